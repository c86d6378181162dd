"""MUSML (Jiang et al. 2022): task parameters lie in one of several learned subspaces.

A baseline of paper Section 4 [rec], kept simple: all convolution weights together are S_k·v, with a learned basis S_k
and a learned start v of each subspace k. A dataset takes gradient steps in v alone, on its labelled sketch, in every
subspace, and keeps the subspace of the smallest loss. Deviations: first-order inner gradients; while training the
subspace is drawn with softmax weights of the sketch's losses, instead of a weighted sum of the losses (the same
gradient in the mean, one target network a step); class means take the place of a trained classifier.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pudnet_lib.core.heads import leave_one_out_loss
from pudnet_lib.core.model import ParameterModel, Parameters, seeded
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.methods.metric import fit
from pudnet_lib.methods.registry import register


@dataclass(frozen=True)
class MusmlConfig:
    """Target and seed of the initial weights; subspaces and dimensions of each; inner steps, their rate, and γ."""

    target: TargetConfig = field(default_factory=TargetConfig)
    seed: int = 0
    subspaces: int = 2
    dim: int = 8
    steps: int = 2
    rate: float = 0.1
    temperature: float = 0.1  # γ, of the softmax over the subspaces' negative losses while training

    def __post_init__(self) -> None:
        if min(self.subspaces, self.dim) < 1 or self.steps < 0 or not self.temperature > 0:
            raise PudNetError("MusmlConfig: subspaces and dim must be at least 1, steps 0, temperature above 0.")


class MUSML(ParameterModel):
    """The subspaces."""

    draws: Tensor

    def __init__(self, config: MusmlConfig | None = None) -> None:
        config = config or MusmlConfig()
        with seeded(config.seed):
            super().__init__(build_target(config.target))
            self.config, self.own_target = config, False
            # He-like filters at the start, whatever the dimensions: Σ_d basis_d · v_d with v_d = 1.
            self.bases = nn.ParameterDict()
            for t in self.layout.predicted:
                filters = torch.randn(config.subspaces, config.dim, *t.shape)
                self.bases[t.name.replace(".", "/")] = filters * math.sqrt(2 / t.fan_in / config.dim)
            self.starts = nn.Parameter(torch.ones(config.subspaces, config.dim))
        self.register_buffer("draws", torch.tensor(0))  # seeds the choice while training; resumes with the state

    def direct_parameters(self) -> list[nn.Parameter]:
        """Batch norm and the bases."""
        return [*super().direct_parameters(), *self.bases.parameters()]

    def compose(self, subspace: int, coordinates: Tensor) -> Parameters:
        """Turn a subspace's coordinates (dim,) into all parameters of the target."""
        weights = {n.replace("/", "."): torch.tensordot(coordinates, b[subspace], 1) for n, b in self.bases.items()}
        return weights | self.shared_parameters()

    def adapt(self, subspace: int, sketch: Tensor, labels: Tensor) -> tuple[Tensor, float]:
        """Take the gradient steps in one subspace."""
        start, shift = self.starts[subspace].detach(), torch.zeros(self.config.dim, device=self.device)
        with torch.enable_grad():
            for step in range(self.config.steps + 1):
                shift.requires_grad_()
                features = self.features(self.compose(subspace, start + shift), sketch)
                loss = leave_one_out_loss(features, labels, self.scale)
                if step < self.config.steps:
                    (gradient,) = torch.autograd.grad(loss, shift)
                    shift = (shift - self.config.rate * gradient).detach()
        return shift.detach(), float(loss.detach())

    def forward(self, sketch: Tensor, labels: Tensor | None = None) -> Parameters:
        """Adapt in every subspace and keep one; see ``ParameterModel.forward``."""
        if labels is None:
            raise PudNetError("MUSML adapts on the sketch's classes; give the sketch's labels (S,) as well.")
        adapted = [self.adapt(k, sketch, labels) for k in range(self.config.subspaces)]
        losses = torch.tensor([loss for _, loss in adapted])
        if self.training:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + int(self.draws))
            share = (-losses / self.config.temperature).softmax(0)
            chosen = int(torch.multinomial(share, 1, generator=generator))
            self.draws += 1
        else:
            chosen = int(losses.argmin())
        return self.compose(chosen, self.starts[chosen] + adapted[chosen][0])


register("musml", fit, model=MUSML, config=MusmlConfig)
