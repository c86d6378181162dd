"""Dataset encoder: a sketch of a dataset to its embedding.

Paper, Section 3.2; sizes from the authors' code: three 5×5 convolutions of stride 2 (16, 32, 32 channels, GELU), a
linear layer, norm, GELU, mean over images. Deviations: LayerNorm instead of batch norm, which in front of the mean
removes exactly what tells datasets apart while training; adaptive pooling to 4×4, so that any image size works (the
identity at 32 pixels).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.core.dataset import normalise
from pudnet_lib.errors import PudNetError

Pooling = Literal["mean", "mean_std", "class"]
EncoderNorm = Literal["layer", "batch"]


class DatasetEncoder(nn.Module):
    """Images of a sketch to one embedding a state of the recurrence."""

    def __init__(
        self, embedding_dim: int, states: int, channels: int = 3, pooling: Pooling = "mean", norm: EncoderNorm = "layer"
    ) -> None:
        super().__init__()
        length = states * embedding_dim
        self.states, self.embedding_dim, self.pooling = states, embedding_dim, pooling
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(32, 32, 5, stride=2, padding=2),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, length),
            nn.LayerNorm(length) if norm == "layer" else nn.BatchNorm1d(length),
            nn.GELU(),
        )
        if pooling != "mean":
            self.merge = nn.Linear(2 * length, length)

    def forward(self, sketch: Tensor, labels: Tensor | None = None) -> Tensor:
        """Sketch (S, C, H, W), with labels (S,) for ``pooling="class"``, to its embedding (G, D)."""
        return self.pool(self.codes(sketch), labels)

    def codes(self, images: Tensor, chunk: int = 512) -> Tensor:
        """Images (S, C, H, W) to one code each, (S, G·D); so many at a time, to bound memory."""
        return torch.cat([self.body(normalise(part)) for part in images.split(chunk)])

    def pool(self, codes: Tensor, labels: Tensor | None = None) -> Tensor:
        """One sketch's codes (S, G·D) to its embedding (G, D); their order does not matter."""
        mean = codes.mean(0)  # (G·D,)
        if self.pooling == "mean":
            return mean.view(self.states, self.embedding_dim)
        if self.pooling == "class":
            if labels is None:
                raise PudNetError("This encoder pools over classes; give the sketch's labels (S,) as well.")
            onehot = F.one_hot(labels).to(codes)  # (S, K)
            codes = (onehot.T @ codes) / onehot.sum(0).clamp_min(1)[:, None]  # (K, G·D)
        spread = codes.var(0, unbiased=False).add(1e-6).sqrt()
        merged: Tensor = self.merge(torch.cat([mean, spread]))
        return merged.view(self.states, self.embedding_dim)
