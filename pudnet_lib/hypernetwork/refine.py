"""Refinement: the hypernetwork looks at its own first prediction on the labelled sketch and corrects it.

Not in the paper (our choice, the ``kit`` design). The correction of a layer is the gradient of the sketch's own
class-mean loss, scaled to the layer's weights and by a learned factor for each of its filters; several such steps may
follow one another. It is the one part of the model that knows *which classes* it sees: pooled image codes tell what
kind of images they are, not how to tell them apart. What it costs is a forward and a backward pass a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
    """Learned gradient steps on the sketch; first-order, no gradient flows through a gradient.

    Args:
        tensors: The predicted tensors.
        steps: How many steps; each has its own factors.
        norms: Batch-norm scales and shifts to correct as well, name to number of channels.
        initial: Initial factor of the first step: the share of a layer's norm that it may change; of a scale or shift,
            whose size is about 1, the root mean square of the change.
        decay: Initial factor of a step over that of the step before.
    """

    def __init__(
        self,
        tensors: Sequence[PredictedTensor],
        steps: int,
        norms: Mapping[str, int] | None = None,
        initial: float = 0.1,
        decay: float = 0.7,
    ) -> None:
        super().__init__()
        self.steps = steps
        # Name to the shape that lets one factor a filter (a channel) be multiplied with the tensor.
        self.shapes = {t.name: (1, -1, 1, 1) if t.transposed else (-1, 1, 1, 1) for t in tensors}
        self.shapes |= {name: (-1,) for name in norms or {}}
        filters = [t.shape[1 if t.transposed else 0] for t in tensors] + list((norms or {}).values())
        start = initial * decay ** torch.arange(steps)  # (steps,)
        self.factors = nn.ParameterList(nn.Parameter(start[:, None].repeat(1, n)) for n in filters)

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
            The corrected parameters; gradients flow through the weights and the factors while training.
        """
        detached = {name: tensor.detach() for name, tensor in parameters.items()}
        for step in range(self.steps):
            with torch.enable_grad():
                leaves = {name: parameters[name].detach().requires_grad_() for name in self.shapes}
                loss = leave_one_out_loss(features(detached | leaves), labels, scale.detach())
                gradients = torch.autograd.grad(loss, list(leaves.values()))
            corrected = {}
            for (name, shape), factor, gradient in zip(self.shapes.items(), self.factors, gradients, strict=True):
                weight = parameters[name]
                size = weight.detach().norm() if weight.ndim == 4 else weight.numel() ** 0.5
                step_size = factor[step].view(shape) * size / gradient.norm().clamp_min(1e-12)
                corrected[name] = weight - step_size * gradient
            parameters = parameters | corrected
        return parameters
