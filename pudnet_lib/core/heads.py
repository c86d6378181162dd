"""The head, and the three losses of meta-training.

Paper, Section 3.3: no classifier is predicted; a class is the cosine to its mean feature, times τ [code]; an auxiliary
linear classifier over all training classes [rec]; a consistency term between the two predictions [rec]. The direction
of the consistency's KL divergence and all weights are our choice: KL(auxiliary ‖ cosine), gradients to both, 1, 1, 1.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pudnet_lib.errors import PudNetError


def class_means(features: Tensor, labels: Tensor, num_classes: int | None = None) -> Tensor:
    """Average the features (N, F) of each class of labels (N,) in 0..K-1: (K, F), zeros for a class without images."""
    onehot = F.one_hot(labels, -1 if num_classes is None else num_classes).to(features)  # (N, K)
    return (onehot.T @ features) / onehot.sum(0).clamp_min(1)[:, None]


def cosine_logits(features: Tensor, means: Tensor, scale: Tensor | float) -> Tensor:
    """Cosine of features (N, F) to class means (K, F), times τ: logits (N, K)."""
    return scale * F.normalize(features, dim=1) @ F.normalize(means, dim=1).T


def leave_one_out_logits(features: Tensor, labels: Tensor, scale: Tensor | float) -> Tensor:
    """Cosine of each image (S, F) to the class means of all *others*, times τ: (S, K); -inf for an empty class."""
    # While a CUDA graph is recorded, nothing may wait for the GPU to tell K; there are at most S classes.
    recording = labels.is_cuda and torch.cuda.is_current_stream_capturing()
    columns = len(labels) if recording else int(labels.max()) + 1
    onehot = (labels[:, None] == torch.arange(columns, device=labels.device)).to(features)  # (S, K)
    sums, counts = onehot.T @ features, onehot.sum(0)  # (K, F), (K,)
    unit = F.normalize(features, dim=1)
    logits = unit @ F.normalize(sums, dim=1).T  # (S, K)
    own = (sums[labels] - features) / (counts[labels] - 1).clamp_min(1)[:, None]  # (S, F): the image itself left out
    logits = torch.where(onehot.bool(), (unit * F.normalize(own, dim=1)).sum(1, keepdim=True), logits)
    return (scale * logits).masked_fill(counts == 0, -torch.inf)


def leave_one_out_loss(features: Tensor, labels: Tensor, scale: Tensor | float) -> Tensor:
    """Cross-entropy of each image against the class means of all others; see ``leave_one_out_logits``."""
    return F.cross_entropy(leave_one_out_logits(features, labels, scale), labels)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the cosine classification, the auxiliary classifier, and the KL divergence between; 0 is off."""

    cosine: float = 1.0
    auxiliary: float = 1.0
    consistency: float = 1.0

    def __post_init__(self) -> None:
        if not min(self.cosine, self.auxiliary, self.consistency) >= 0:
            raise PudNetError(f"{self}: a loss's weight must be at least 0.")


#: The paper's three losses, and the class loss alone.
PAPER_LOSSES, CLASS_LOSS_ALONE = LossWeights(), LossWeights(1.0, 0.0, 0.0)


class EpisodeLosses(NamedTuple):
    """The losses of one episode, each a scalar tensor, and the query accuracy in 0..1."""

    total: Tensor
    cosine: Tensor
    auxiliary: Tensor
    consistency: Tensor
    accuracy: Tensor


def losses_of_logits(
    logits: Tensor, query_labels: Tensor, auxiliary_logits: Tensor | None, pool_classes: Tensor, weights: LossWeights
) -> EpisodeLosses:
    """The three losses from class logits (Q, K), whatever rule they come from."""
    cosine = F.cross_entropy(logits, query_labels)
    auxiliary = consistency = torch.zeros_like(cosine)
    if auxiliary_logits is not None:
        if weights.auxiliary:
            auxiliary = F.cross_entropy(auxiliary_logits, pool_classes[query_labels])
        if weights.consistency:
            within = auxiliary_logits[:, pool_classes].log_softmax(1)  # (Q, K)
            consistency = F.kl_div(logits.log_softmax(1), within, log_target=True, reduction="batchmean")
    total = weights.cosine * cosine + weights.auxiliary * auxiliary + weights.consistency * consistency
    accuracy = (logits.argmax(1) == query_labels).float().mean()
    return EpisodeLosses(total, cosine, auxiliary, consistency, accuracy)
