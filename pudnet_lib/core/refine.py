"""Refinement: the hypernetwork looks at its own first prediction on the labelled sketch and corrects it.

Not in the paper (our choice, the ``kit`` design). The correction of a layer is the gradient of the sketch's own
class-mean loss, scaled to the layer's weights and by a factor for each of its filters; several such steps, ever
shorter, follow one another. It is the one part of the model that knows *which classes* it sees: pooled image codes tell
what kind of images they are, not how to tell them apart. What it costs is a forward and a backward pass a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pudnet_lib.core.heads import leave_one_out_loss
from pudnet_lib.core.layout import PredictedTensor


class Refiner(nn.Module):
    """Gradient steps on the sketch; first-order, no gradient flows through a gradient.

    Args:
        tensors: The predicted tensors.
        steps: How many steps.
        rate: Factor of the first step: the share of a layer's norm that it may change.
        decay: Factor of a step over that of the step before.
        learned: Meta-train one factor a step and filter, starting from these. Otherwise they stay, and the refinement
            takes no part in meta-training: learned factors were no better (docs/conditioning.md).
    """

    def __init__(
        self, tensors: Sequence[PredictedTensor], steps: int, rate: float, decay: float, learned: bool = False
    ) -> None:
        super().__init__()
        self.tensors, self.steps, self.learned = tuple(tensors), steps, learned
        start = rate * decay ** torch.arange(steps)[:, None]  # (steps, 1)
        filters = (t.shape[1 if t.transposed else 0] for t in tensors)
        self.factors = nn.ParameterList(nn.Parameter(start.repeat(1, n), requires_grad=learned) for n in filters)

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
                leaves = {t.name: parameters[t.name].detach().requires_grad_() for t in self.tensors}
                loss = leave_one_out_loss(features(detached | leaves), labels, scale.detach())
                gradients = torch.autograd.grad(loss, list(leaves.values()))
            corrected = {}
            for tensor, factor, gradient in zip(self.tensors, self.factors, gradients, strict=True):
                weight = parameters[tensor.name]
                shape = (1, -1, 1, 1) if tensor.transposed else (-1, 1, 1, 1)
                step_size = factor[step].view(shape) * weight.detach().norm() / gradient.norm().clamp_min(1e-12)
                corrected[tensor.name] = weight - step_size * gradient
            parameters = parameters | corrected
        return parameters
