"""Meta-Baseline (Chen et al. 2021): a classifier over all training classes first, then cosine to class means.

A baseline of paper Section 4 [rec]. Half of the steps go to the first stage (the auxiliary classifier alone), half to
the second (the cosine loss alone, gradients through both sides and the learned τ); PudNet has both losses throughout.
"""

from torch import Tensor

from pudnet_lib.core.heads import class_means, cosine_logits
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.methods.metric import CLASSES_THEN_EPISODES, fit
from pudnet_lib.methods.registry import register


class MetaBaseline(SharedNetwork):
    """The shared network's backbone under Meta-Baseline's rule and stages."""

    def class_logits(self, support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
        """Cosine to the class means times τ, means not detached; see ``ParameterModel.class_logits``."""
        return cosine_logits(query, class_means(support, labels, num_classes), self.scale)


register("meta-baseline", fit, model=MetaBaseline, config=SharedConfig, stages=CLASSES_THEN_EPISODES)
