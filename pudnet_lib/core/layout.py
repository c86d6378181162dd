"""ParameterLayout: which tensors of a ConvNet are predicted, in which order, and why the others are not.

Paper, Section 3.2: the hypernetwork predicts the convolutions layer by layer; batch-norm scale and shift are shared and
learned ([code]). Our choice: any ``nn.Module`` is accepted whose trainable tensors belong to 2-d convolutions (grouped
and transposed ones included) and batch norms; anything else is named and, as the user decides, refused or kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from pudnet_lib.errors import PudNetError

Unsupported = Literal["refuse", "keep"]


@dataclass(frozen=True)
class PredictedTensor:
    """One convolution's weight: (out, in / groups, k, k), or (in, out / groups, k, k) where transposed."""

    name: str
    shape: tuple[int, int, int, int]
    transposed: bool = False

    @property
    def fan_in(self) -> int:
        """Inputs that one output pixel sums over."""
        first, second, height, width = self.shape
        return (first if self.transposed else second) * height * width

    @property
    def numel(self) -> int:
        """Number of scalars."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ParameterLayout:
    """The tensors of a target network, sorted by who supplies them.

    ``predicted``: convolution weights in the order of definition, the hypernetwork's layers; ``shared``: batch-norm
    scales and shifts and biases, learned, the same for every dataset; ``kept``: others, name to why, learned likewise.
    """

    predicted: tuple[PredictedTensor, ...]
    shared: tuple[str, ...]
    kept: dict[str, str]

    @classmethod
    def of(cls, module: nn.Module, unsupported: Unsupported = "refuse") -> ParameterLayout:
        """Read the layout off a module; what can't be predicted is refused, or kept and learned for all alike."""
        predicted: list[PredictedTensor] = []
        shared: list[str] = []
        kept: dict[str, str] = {}
        for prefix, layer in module.named_modules():
            for short, tensor in layer.named_parameters(recurse=False):
                name = f"{prefix}.{short}" if prefix else short
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and short == "weight":
                    a, b, height, width = tensor.shape
                    transposed = isinstance(layer, nn.ConvTranspose2d)
                    predicted.append(PredictedTensor(name, (a, b, height, width), transposed))
                elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
                    shared.append(name)
                else:
                    kept[name] = f"it belongs to a {type(layer).__name__}, not to a 2-d convolution or batch norm"
        if kept and unsupported == "refuse":
            listed = "; ".join(f"{name}: {reason}" for name, reason in list(kept.items())[:5])
            more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
            raise PudNetError(
                f"{type(module).__name__}: {len(kept)} tensors can't be predicted ({listed}{more}). Remove those "
                "layers (a classifier head becomes nn.Identity), or pass unsupported='keep' to learn them, the same "
                "for every dataset."
            )
        if not predicted:
            raise PudNetError(f"{type(module).__name__} has no 2-d convolution; there is nothing to predict.")
        return cls(tuple(predicted), tuple(shared), kept)

    @property
    def num_predicted(self) -> int:
        """Number of predicted scalars."""
        return sum(tensor.numel for tensor in self.predicted)
