"""Weight generators: one code a layer to that layer's convolution weight.

Paper, Section 3.2; sizes from the authors' code: linear D → 8·k·k, GELU, 1×1 convolution 8 → 16, GELU, 1×1 convolution
16 → out·in, no bias. Deviations: the width 16 is a parameter, the rule that scales the result is explicit (the released
code has a fan-in rule that it never calls), and all layers of one kernel size go through one product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.core.hooks import hook
from pudnet_lib.core.layout import PredictedTensor

FilterNorm = Literal["none", "standardise"]


class WeightGenerator(nn.Module):
    """The generator of one layer."""

    def __init__(
        self, tensor: PredictedTensor, dim: int, width: int = 16, filter_norm: FilterNorm = "none",
        residual: bool = False, like: WeightGenerator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tensor, self.filter_norm = tensor, filter_norm
        first, second, height, width_px = tensor.shape
        self.kernel = height * width_px
        if like is not None:
            self.code: nn.Linear = like.code
            self.mix: nn.Linear = like.mix
            self.basis: nn.Parameter = like.basis
        else:
            self.code = nn.Linear(dim, max(1, width // 2) * self.kernel)
            self.mix = nn.Linear(max(1, width // 2), width)
            # He-like at the start: a GELU'd mix has a mean square of about mean_square, which the last step must undo.
            with torch.no_grad():
                mean_square = float(hidden_of_layers([self], torch.randn(256, 1, dim))[0].pow(2).mean())
            deviation = math.sqrt(2 / tensor.fan_in / (width * max(mean_square, 1e-8)))
            self.basis = nn.Parameter(torch.randn(first * second, width) * deviation)
        self.base: nn.Parameter | None = None
        if residual:
            self.base = nn.Parameter(torch.randn(tensor.shape) * math.sqrt(2 / tensor.fan_in))
            nn.init.zeros_(self.basis)

    def forward(self, codes: Tensor) -> Tensor:
        """This layer's codes of B datasets, (B, D), to its weights (B, *shape)."""
        return self.weight(hidden_of_layers([self], codes[:, None])[0])

    def weight(self, hidden: Tensor) -> Tensor:
        """The last step: hidden (B, k·k, width) to weights (B, *shape)."""
        batch = len(hidden)
        product = hook("narrow_product", F.linear)(self.basis, hidden.flatten(0, 1))  # (out·in, B·k·k)
        weight: Tensor = product.view(-1, batch, self.kernel).transpose(0, 1).reshape(batch, *self.tensor.shape)
        if self.base is not None:
            weight = weight + self.base
        # A filter of one scalar (a 1×1 depthwise layer) has no mean or spread of its own: standardised, it would be 0.
        if self.filter_norm == "standardise" and self.tensor.fan_in > 1:
            filters = weight.transpose(1, 2) if self.tensor.transposed else weight  # (B, filters, …)
            filters = F.layer_norm(filters, filters.shape[2:], eps=1e-8) * math.sqrt(2 / self.tensor.fan_in)
            weight = filters.transpose(1, 2) if self.tensor.transposed else filters
        return weight


def hidden_of_layers(generators: Sequence[WeightGenerator], codes: Tensor) -> list[Tensor]:
    """The first two steps of L layers, of one kernel size as one product: codes (B, L, D) to L (B, k·k, width)."""
    found: dict[int, Tensor] = {}
    for kernel in {g.kernel for g in generators}:
        places = [i for i, g in enumerate(generators) if g.kernel == kernel]  # l of the L layers
        same = [generators[i] for i in places]
        code, shift = torch.stack([g.code.weight for g in same]), torch.stack([g.code.bias for g in same])
        mix, offset = torch.stack([g.mix.weight for g in same]), torch.stack([g.mix.bias for g in same])
        own = torch.stack([codes[:, i] for i in places])  # (l, B, D); a list of indices would wait for the GPU
        spatial = F.gelu(torch.baddbmm(shift[:, None], own, code.mT))  # (l, B, width/2·k·k)
        spatial = spatial.unflatten(2, (-1, kernel)).mT.flatten(1, 2)  # (l, B·k·k, width/2)
        hidden = F.gelu(torch.baddbmm(offset[:, None], spatial, mix.mT))  # (l, B·k·k, width)
        found.update(zip(places, hidden.unflatten(1, (-1, kernel)).unbind(0), strict=True))  # (B, k·k, width) each
    return [found[i] for i in range(len(generators))]
