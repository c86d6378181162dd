"""MatchingNet (Vinyals et al. 2016): an image's class is a vote of all labelled images, weighted by similarity.

A baseline of paper Section 4 [rec]. The head is easyfsl's ``MatchingNetworks`` with full context embeddings: an LSTM
over the labelled images and one that attends to them for each query. It keeps as many attention steps as there are
labelled images, so that its time grows with them.
"""

import torch.nn.functional as F
from torch import Tensor

from pudnet_lib.core.model import SharedConfig, SharedNetwork, seeded
from pudnet_lib.methods.metric import fit
from pudnet_lib.methods.registry import register


class MatchingNet(SharedNetwork):
    """The shared network's backbone under MatchingNet's rule."""

    def __init__(self, config: SharedConfig | None = None) -> None:
        from easyfsl.modules import predesigned_modules as made  # slow to import

        super().__init__(config)
        with seeded(self.config.seed):
            self.support_encoder = made.default_matching_networks_support_encoder(self.feature_dim)
            self.query_encoder = made.default_matching_networks_query_encoder(self.feature_dim)

    def class_logits(self, support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
        """Log-probabilities of the vote; see ``ParameterModel.class_logits``."""
        from easyfsl.methods import MatchingNetworks

        head = MatchingNetworks(
            feature_dimension=self.feature_dim, support_encoder=self.support_encoder, query_encoder=self.query_encoder
        )
        # Not process_support_set, which infers the number of classes from the labels.
        head.contextualized_support_features = head.encode_support_features(support)  # (M, F)
        head.one_hot_support_labels = F.one_hot(labels, num_classes).to(support)
        return head(query)  # type: ignore[no-any-return]  # (Q, K)


register("matchingnet", fit, model=MatchingNet, config=SharedConfig)
