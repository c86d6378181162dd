"""The three losses of meta-training.

Paper, Section 3.3: cosine classification against class means [code]; an auxiliary linear classifier over all training
classes [rec]; a consistency term between the two predictions [rec]. The direction of the consistency's KL divergence
and all weights are our choice: KL(auxiliary ‖ cosine), gradients to both, weights 1, 1, 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Average the features of each class.

    Args:
        features: (N, F).
        labels: (N,) int64 in 0..K-1.
        num_classes: K.

    Returns:
        (K, F); zeros for a class without images.
    """
    onehot = F.one_hot(labels, num_classes).to(features)  # (N, K)
    return (onehot.T @ features) / onehot.sum(0).clamp_min(1)[:, None]


def cosine_logits(features: Tensor, means: Tensor, scale: Tensor | float) -> Tensor:
    """Cosine of features to class means, times τ.

    Args:
        features: (N, F).
        means: (K, F).
        scale: τ.

    Returns:
        (N, K) logits.
    """
    return scale * F.normalize(features, dim=1) @ F.normalize(means, dim=1).T


@dataclass(frozen=True)
class LossWeights:
    """Weights of the three losses; 0 switches one off (an ablation).

    Attributes:
        cosine: Of the cosine classification.
        auxiliary: Of the auxiliary classifier.
        consistency: Of the KL divergence between the two.
    """

    cosine: float = 1.0
    auxiliary: float = 1.0
    consistency: float = 1.0


class EpisodeLosses(NamedTuple):
    """The losses of one episode, each a scalar tensor, and the query accuracy in 0..1."""

    total: Tensor
    cosine: Tensor
    auxiliary: Tensor
    consistency: Tensor
    accuracy: Tensor


def episode_losses(
    support: Tensor,
    support_labels: Tensor,
    query: Tensor,
    query_labels: Tensor,
    scale: Tensor,
    auxiliary_logits: Tensor | None,
    pool_classes: Tensor,
    weights: LossWeights,
) -> EpisodeLosses:
    """Compute the three losses of an episode.

    Args:
        support: (M, F) support features; detached here ([code]).
        support_labels: (M,) in 0..K-1.
        query: (Q, F) query features.
        query_labels: (Q,) in 0..K-1.
        scale: τ, a scalar.
        auxiliary_logits: (Q, all training classes) of the auxiliary classifier; None if both its losses are off.
        pool_classes: (K,) the episode's classes among all training classes.
        weights: Weights of the three.

    Returns:
        The losses.
    """
    means = class_means(support.detach(), support_labels, len(pool_classes))
    logits = cosine_logits(query, means, scale)  # (Q, K)
    return losses_of_logits(logits, query_labels, auxiliary_logits, pool_classes, weights)


def losses_of_logits(
    logits: Tensor, query_labels: Tensor, auxiliary_logits: Tensor | None, pool_classes: Tensor, weights: LossWeights
) -> EpisodeLosses:
    """Compute the three losses from class logits, whatever rule they come from.

    Args:
        logits: (Q, K).
        query_labels: (Q,) in 0..K-1.
        auxiliary_logits: (Q, all training classes) of the auxiliary classifier; None if both its losses are off.
        pool_classes: (K,) the episode's classes among all training classes.
        weights: Weights of the three.

    Returns:
        The losses.
    """
    cosine = F.cross_entropy(logits, query_labels)
    zero = torch.zeros_like(cosine)
    auxiliary = consistency = zero
    if auxiliary_logits is not None:
        if weights.auxiliary:
            auxiliary = F.cross_entropy(auxiliary_logits, pool_classes[query_labels])
        if weights.consistency:
            within = auxiliary_logits[:, pool_classes].log_softmax(1)  # (Q, K)
            consistency = F.kl_div(logits.log_softmax(1), within, log_target=True, reduction="batchmean")
    total = weights.cosine * cosine + weights.auxiliary * auxiliary + weights.consistency * consistency
    accuracy = (logits.argmax(1) == query_labels).float().mean()
    return EpisodeLosses(total, cosine, auxiliary, consistency, accuracy)
