"""Class attention: a label-aware hypernetwork, which generates the last block from the classes of a labelled sketch.

The idea of HyperTransformer (Zhmoginov et al. 2022, arXiv 2201.04182), which claims that it pays for small targets
after long training; our own small version. Tokens of the sketch's classes (means of its images' codes) and one token
for each filter of the last convolution attend to each other; each filter is read off its token. What comes before the
last block is learned and the same for every dataset. The plain PudNet pools all images and can't see labels; this one
can, and is the fairest test of whether one forward pass may know *which classes* it sees.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.core.encoder import DatasetEncoder
from pudnet_lib.core.heads import class_means
from pudnet_lib.core.model import ParameterModel, Parameters, seeded
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError


@dataclass(frozen=True)
class ClassAttentionConfig:
    """Sizes: length of a token, attention layers and heads, the target and the seed of the initial weights."""

    target: TargetConfig = field(default_factory=TargetConfig)
    dim: int = 128
    layers: int = 2
    heads: int = 4
    seed: int = 0


class ClassAttention(ParameterModel):
    """Learned first blocks, and a last convolution that is generated from the labelled sketch."""

    ways = 0  # K, where the caller knows it; else the device is asked

    def __init__(self, config: ClassAttentionConfig | None = None) -> None:
        config = config or ClassAttentionConfig()
        with seeded(config.seed):
            module = build_target(config.target)
            super().__init__(module)
            self.config, self.own_target = config, False
            *before, self.last = self.layout.predicted
            values = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}
            self.weights = nn.ParameterDict({t.name.replace(".", "/"): values[t.name] for t in before})
            self.encoder = DatasetEncoder(config.dim, 1, config.target.channels)
            self.filters = nn.Parameter(torch.randn(self.last.shape[0], config.dim))  # (out, D) tokens
            layer = nn.TransformerEncoderLayer(config.dim, config.heads, 2 * config.dim, 0.0, batch_first=True)
            self.attention = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
            self.read = nn.Linear(config.dim, self.last.fan_in)

    def direct_parameters(self) -> list[nn.Parameter]:
        """Batch norm's, and the weights of all blocks but the last."""
        return [*super().direct_parameters(), *self.weights.parameters()]

    def forward(self, sketch: Tensor, labels: Tensor | None = None) -> Parameters:
        """Generate the last block; see ``ParameterModel.forward``."""
        if labels is None:
            raise PudNetError("Class attention needs the sketch's labels (S,).")
        tokens = class_means(self.encoder.codes(sketch), labels, self.ways or int(labels.max()) + 1)  # (K, D)
        mixed = self.attention(torch.cat([tokens, self.filters])[None])[0, len(tokens) :]  # (out, D)
        filters = F.layer_norm(self.read(mixed), (self.last.fan_in,))  # standardised, as the plain design's
        weight = (filters * math.sqrt(2 / self.last.fan_in)).view(self.last.shape)
        fixed = {name.replace("/", "."): tensor for name, tensor in self.weights.items()}
        return fixed | {self.last.name: weight} | self.shared_parameters()
