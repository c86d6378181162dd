"""Refinement: the hypernetwork looks at its own first prediction on the labelled sketch and corrects it.

Not in the paper (our choice, the ``kit`` design). The correction of a layer is the gradient of the sketch's own
class-mean loss, scaled to the layer's weights and by a learned factor for each of its filters. It is the one part of
the model that knows *which classes* it sees: pooled image codes tell what kind of images they are, not how to tell
them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.targets.layout import PredictedTensor


def leave_one_out_loss(features: Tensor, labels: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of each image against the class means of all *other* images.

    Args:
        features: (S, F).
        labels: (S,) in 0..K-1, at least two images a class.
        scale: τ.

    Returns:
        A scalar.
    """
    onehot = F.one_hot(labels).to(features)  # (S, K)
    sums, counts = onehot.T @ features, onehot.sum(0)  # (K, F), (K,)
    unit = F.normalize(features, dim=1)
    logits = unit @ F.normalize(sums, dim=1).T  # (S, K)
    own = (sums[labels] - features) / (counts[labels] - 1).clamp_min(1)[:, None]  # (S, F): the image itself left out
    logits = torch.where(onehot.bool(), (unit * F.normalize(own, dim=1)).sum(1, keepdim=True), logits)
    return F.cross_entropy(scale * logits, labels)


class Refiner(nn.Module):
    """Learned gradient steps on the sketch.

    Args:
        tensors: The predicted tensors.
        steps: How many steps; each has its own factors.
        initial: Initial factor: the share of a layer's norm that a step may change.
    """

    def __init__(self, tensors: Sequence[PredictedTensor], steps: int, initial: float = 0.05) -> None:
        super().__init__()
        self.tensors, self.steps = tuple(tensors), steps
        self.factors = nn.ParameterList(
            nn.Parameter(torch.full((steps, t.shape[1 if t.transposed else 0]), initial)) for t in tensors
        )

    def forward(
        self,
        parameters: dict[str, Tensor],
        features: Callable[[dict[str, Tensor]], Tensor],
        labels: Tensor,
        scale: Tensor,
    ) -> dict[str, Tensor]:
        """Correct parameters.

        Args:
            parameters: Name to tensor, the first prediction.
            features: Parameters to the sketch's features (S, F).
            labels: (S,) the sketch's classes.
            scale: τ.

        Returns:
            The corrected parameters; gradients flow through the correction while training.
        """
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            for step in range(self.steps):
                weights = [parameters[t.name] for t in self.tensors]
                weights = [w if w.requires_grad else w.requires_grad_() for w in weights]
                parameters = parameters | {t.name: w for t, w in zip(self.tensors, weights, strict=True)}
                loss = leave_one_out_loss(features(parameters), labels, scale)
                gradients = torch.autograd.grad(loss, weights, create_graph=training)
                for tensor, factor, weight, gradient in zip(
                    self.tensors, self.factors, weights, gradients, strict=True
                ):
                    shape = [1] * 4
                    shape[1 if tensor.transposed else 0] = -1
                    step_size = factor[step].view(shape) * weight.norm() / gradient.norm().clamp_min(1e-12)
                    parameters[tensor.name] = weight - step_size * gradient
        return parameters if training else {n: w.detach() for n, w in parameters.items()}
