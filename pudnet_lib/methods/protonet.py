"""ProtoNet (Snell et al. 2017): a class is the mean of its features, an image belongs to the nearest mean.

A baseline of paper Section 4 [rec]. The head is easyfsl's ``PrototypicalNetworks`` (Euclidean distance, not squared).
Deviation: logits are multiplied by a learned τ, so that the short features of a small ConvNet are no handicap.
"""

from torch import Tensor

from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.methods.metric import fit
from pudnet_lib.methods.registry import register


class ProtoNet(SharedNetwork):
    """The shared network's backbone under ProtoNet's rule."""

    def class_logits(self, support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
        """Negative distance to the class means times τ; see ``ParameterModel.class_logits``."""
        from easyfsl.methods import PrototypicalNetworks  # slow to import

        head = PrototypicalNetworks()  # no backbone: it reads features; made anew, it keeps no state
        head.process_support_set(support, labels)
        return self.scale * head(query)  # type: ignore[no-any-return]  # (Q, K)


register("protonet", fit, model=ProtoNet, config=SharedConfig)
