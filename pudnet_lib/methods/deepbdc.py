"""Meta-DeepBDC (Xie et al. 2022): an image is the Brownian distance covariance of its feature maps' channels.

A baseline of paper Section 4 [rec]; easyfsl has none, so this is our own. Channels are random variables observed at
the map's positions: pairwise distances (F × F), centred in rows and columns, upper triangle. A class is its mean
matrix, an image belongs to the nearest one. First stage as in Meta-Baseline. Deviation: the learned temperature, which
in the original scales all distances before the root, scales the logits; more than 64 channels are reduced to 64.
"""

import torch
from torch import Tensor, nn

from pudnet_lib.core.heads import class_means
from pudnet_lib.core.model import SharedConfig, SharedNetwork, seeded
from pudnet_lib.core.targets import ConvNet3, build_target
from pudnet_lib.methods.metric import CLASSES_THEN_EPISODES, fit
from pudnet_lib.methods.registry import register

REDUCED = 64


def distance_covariance(maps: Tensor) -> Tensor:
    """Brownian distance covariance of channels."""
    x = maps.flatten(2)  # (N, F, h·w)
    gram = x @ x.transpose(1, 2)
    squared = gram.diagonal(dim1=1, dim2=2)
    distances = (squared[:, :, None] + squared[:, None] - 2 * gram).clamp_min(0) / (2 * x.shape[2])
    roots = (distances + 1e-5).sqrt()  # (N, F, F)
    centred = roots - roots.mean(1, keepdim=True) - roots.mean(2, keepdim=True) + roots.mean((1, 2), keepdim=True)
    rows, columns = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    return centred[:, rows, columns]


class DistanceCovariancePooling(nn.Module):
    """A target network whose last pooling is replaced by ``distance_covariance``."""

    def __init__(self, target: nn.Module) -> None:
        super().__init__()
        if isinstance(target, ConvNet3):
            self.maps = target.blocks
        else:
            self.maps = nn.Sequential(*(m for n, m in target.named_children() if n not in ("avgpool", "fc")))
        channels = int(target.feature_dim)  # type: ignore[arg-type]
        self.reduce = nn.Sequential()
        if channels > REDUCED:
            conv = nn.Conv2d(channels, REDUCED, 1, bias=False)
            self.reduce = nn.Sequential(conv, nn.BatchNorm2d(REDUCED), nn.ReLU())
        kept = min(channels, REDUCED)
        self.feature_dim = kept * (kept + 1) // 2

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to (N, F·(F + 1) / 2)."""
        return distance_covariance(self.reduce(self.maps(images)))


class DeepBDC(SharedNetwork):
    """Meta-DeepBDC."""

    def __init__(self, config: SharedConfig | None = None) -> None:
        config = config or SharedConfig()
        with seeded(config.seed):
            target = DistanceCovariancePooling(build_target(config.target))
        super().__init__(config, target)
        self.own_target = False  # it is rebuilt from the config, like every other

    def class_logits(self, support: Tensor, labels: Tensor, query: Tensor, num_classes: int) -> Tensor:
        """Negative squared distance to the class means times τ; see ``ParameterModel.class_logits``."""
        means = class_means(support, labels, num_classes)  # (K, F)
        return -self.scale * (query[:, None] - means).pow(2).sum(2)  # (Q, K)


register("meta-deepbdc", fit, model=DeepBDC, config=SharedConfig, stages=CLASSES_THEN_EPISODES)
