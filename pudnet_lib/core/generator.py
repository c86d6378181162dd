"""Weight generators: one code a layer to that layer's convolution weight.

Paper, Section 3.2; sizes from the authors' code: linear D → 8·k·k, GELU, 1×1 convolution 8 → 16, GELU, 1×1 convolution
16 → out·in, no bias. Deviations: the width 16 is a parameter, the rule that scales the result is explicit (the released
code has a fan-in rule that it never calls), and the last step writes all layers of one kernel size as one product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pudnet_lib.core.layout import PredictedTensor

FilterNorm = Literal["none", "standardise"]

# A build of PyTorch without oneDNN lacks it; the plain product then takes its place.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


class WeightGenerator(nn.Module):
    """The generator of one layer.

    Args:
        tensor: The weight to generate.
        dim: D, length of the code.
        width: Channels before the last step; 16 in the authors' code, and half as many before that.
        filter_norm: ``"none"``; or ``"standardise"``, each filter to mean 0 and a spread of sqrt(2 / fan-in).
        residual: Add the generated weight, initially zero, to a learned base weight that no dataset changes.
        like: Share everything but the base with this generator of a tensor of the same shape; the two layers' codes
            then make the difference (our choice, to save memory).
    """

    def __init__(
        self,
        tensor: PredictedTensor,
        dim: int,
        width: int = 16,
        filter_norm: FilterNorm = "none",
        residual: bool = False,
        like: WeightGenerator | None = None,
    ) -> None:
        super().__init__()
        self.tensor, self.filter_norm = tensor, filter_norm
        first, second, height, width_px = tensor.shape
        self.kernel = height * width_px
        self.base: nn.Parameter | None = None
        if like is not None:
            self.code: nn.Linear = like.code
            self.mix: nn.Linear = like.mix
            self.basis: nn.Parameter = like.basis
            if residual:
                self.base = nn.Parameter(torch.randn(tensor.shape) * math.sqrt(2 / tensor.fan_in))
            return
        self.code = nn.Linear(dim, max(1, width // 2) * self.kernel)
        self.mix = nn.Linear(max(1, width // 2), width)
        # He-like at the start: a GELU'd mix has a mean square of about mean_square, which the last step must undo.
        with torch.no_grad():
            z = torch.randn(256, dim)
            mean_square = float(self.hidden(z).pow(2).mean())
        deviation = math.sqrt(2 / tensor.fan_in / (width * max(mean_square, 1e-8)))
        self.basis = nn.Parameter(torch.randn(first * second, width) * deviation)
        if residual:
            self.base = nn.Parameter(torch.randn(tensor.shape) * math.sqrt(2 / tensor.fan_in))
            nn.init.zeros_(self.basis)

    def hidden(self, codes: Tensor) -> Tensor:
        """Codes (B, D) to the last step's input (B, k·k, width)."""
        gelu = torch.nn.functional.gelu
        spatial = gelu(self.code(codes)).view(len(codes), -1, self.kernel).transpose(1, 2)  # (B, k·k, width/2)
        return gelu(self.mix(spatial))

    def forward(self, codes: Tensor) -> Tensor:
        """Generate the weight for B datasets.

        Args:
            codes: (B, D), this layer's codes.

        Returns:
            (B, *shape) weights.
        """
        return self.weight(self.hidden(codes))

    def weight(self, hidden: Tensor) -> Tensor:
        """The last step: hidden (B, k·k, width) to weights (B, *shape)."""
        batch = len(hidden)
        product = narrow_product(self.basis, hidden.flatten(0, 1))  # (out·in, B·k·k)
        weight = product.view(-1, batch, self.kernel).transpose(0, 1).reshape(batch, *self.tensor.shape)
        if self.base is not None:
            weight = weight + self.base
        # A filter of one scalar (a 1×1 depthwise layer) has no mean or spread of its own: standardised, it would be 0.
        if self.filter_norm == "standardise" and self.tensor.fan_in > 1:
            filters = weight.transpose(1, 2) if self.tensor.transposed else weight  # (B, filters, …)
            filters = torch.nn.functional.layer_norm(filters, filters.shape[2:], eps=1e-8)
            filters = filters * math.sqrt(2 / self.tensor.fan_in)
            weight = filters.transpose(1, 2) if self.tensor.transposed else filters
        return weight


def hidden_of_layers(generators: Sequence[WeightGenerator], codes: Tensor) -> list[Tensor]:
    """All layers' ``WeightGenerator.hidden``, those of one kernel size as one product.

    Args:
        generators: L generators.
        codes: (B, L, D).

    Returns:
        L times (B, k·k, width).
    """
    gelu = torch.nn.functional.gelu
    found: dict[int, Tensor] = {}
    for kernel in {g.kernel for g in generators}:
        places = [i for i, g in enumerate(generators) if g.kernel == kernel]  # l of the L layers
        same = [generators[i] for i in places]
        code, shift = torch.stack([g.code.weight for g in same]), torch.stack([g.code.bias for g in same])
        mix, offset = torch.stack([g.mix.weight for g in same]), torch.stack([g.mix.bias for g in same])
        own = codes[:, places].transpose(0, 1)  # (l, B, D)
        spatial = gelu(torch.baddbmm(shift[:, None], own, code.mT))  # (l, B, width/2·k·k)
        spatial = spatial.unflatten(2, (-1, kernel)).mT.flatten(1, 2)  # (l, B·k·k, width/2)
        hidden = gelu(torch.baddbmm(offset[:, None], spatial, mix.mT)).unflatten(1, (-1, kernel))  # (l, B, k·k, width)
        found.update(zip(places, hidden.unbind(0), strict=True))
    return [found[i] for i in range(len(generators))]


def narrow_product(basis: Tensor, hidden: Tensor) -> Tensor:
    """``basis @ hidden.T`` for a very tall basis and a few columns, at the speed of memory where no gradient is wanted.

    PyTorch's own product goes to a library that multiplies into 9 columns at a quarter of the speed of oneDNN, which
    PyTorch has on board for its compiler. The same numbers but for rounding; docs/speed.md has the measurement.

    Args:
        basis: (rows, width).
        hidden: (columns, width).

    Returns:
        (rows, columns).
    """
    if torch.is_grad_enabled() or basis.device.type != "cpu" or basis.dtype != torch.float32 or _ONEDNN is None:
        return basis @ hidden.T
    product: Tensor = _ONEDNN(basis, hidden, None, "none", [], "")
    return product
