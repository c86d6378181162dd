"""More target networks: the denoising experiment's U-Net [code], and two of torchvision's, to show that any will do.

They register themselves with ``core.targets``; torchvision is imported when one of its networks is built.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.core.targets import BUILDERS, TargetConfig
from pudnet_lib.errors import PudNetError


class UNet(nn.Module):
    """Images to images, for denoising."""

    def __init__(self, width: int = 16, channels: int = 3, depth: int = 2) -> None:
        super().__init__()
        if depth < 1:
            raise PudNetError(f"UNet.depth is {depth}; expected at least 1.")
        self.feature_dim, self.depth = channels, depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_pair(a, b) for a, b in zip([channels, *widths], widths[:-1], strict=False))
        self.bottom = _pair(widths[-2], widths[-1])
        self.up = nn.ModuleList(_up(2 * w, w) for w in reversed(widths[:-1]))
        self.merge = nn.ModuleList(_pair(2 * w, w) for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(width + channels, channels, 1, bias=False)
        with torch.no_grad():  # starts from the features alone; what the input itself is worth has to be learned
            nn.init.normal_(self.last.weight, std=0.5 / math.sqrt(width))
            self.last.weight[:, width:] = 0

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W), H and W at least 2^depth, to the same; padded by reflection inside."""
        (height, width), step = images.shape[2:], 2**self.depth
        if min(height, width) < step:
            need = f"a U-Net of depth {self.depth} needs {step}×{step}"
            raise PudNetError(f"The images are {height}×{width} pixels; {need}.")
        maps = padded = F.pad(images, (0, -width % step, 0, -height % step), mode="reflect")
        skips = []
        for block in self.down:
            maps = block(maps)
            skips.append(maps)
            maps = F.max_pool2d(maps, 2)
        maps = self.bottom(maps)
        for up, merge in zip(self.up, self.merge, strict=True):
            maps = merge(torch.cat([up(maps), skips.pop()], 1))
        out: Tensor = self.last(torch.cat([maps, padded], 1))[..., :height, :width]
        return out + local_mean(images - out)


def local_mean(images: Tensor, window: int = 17) -> Tensor:
    """Mean of (N, C, H, W) images over the pixels of a square window, odd; rows first, then columns."""
    half = window // 2
    rows = F.avg_pool2d(images, (window, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, window), 1, (0, half), count_include_pad=False)


def _pair(channels_in: int, width: int) -> nn.Sequential:
    """Two 3×3 convolutions with ReLU, initialised after He, for there is no batch norm that would set the scale."""
    layers: list[nn.Module] = []
    for channels in (channels_in, width):
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        layers += [convolution, nn.ReLU()]
    return nn.Sequential(*layers)


def _up(channels_in: int, width: int) -> nn.ConvTranspose2d:
    """Twice the resolution; an output pixel sums over the channels of one input pixel."""
    layer = nn.ConvTranspose2d(channels_in, width, 2, stride=2, bias=False)
    nn.init.normal_(layer.weight, std=math.sqrt(1 / channels_in))
    return layer


class PooledFeatures(nn.Module):
    """Layers up to the last map, then the mean over its pixels: how torchvision's networks become targets."""

    def __init__(self, features: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.features, self.feature_dim = features, feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to features (N, F)."""
        maps: Tensor = self.features(images)  # (N, F, h, w)
        return maps.mean((2, 3))


def vgg11_bn(config: TargetConfig) -> nn.Module:
    """Torchvision's VGG-11 with batch norm, for images of at least 32 pixels: biased convolutions, F = 8 · width."""
    from torchvision.models.vgg import make_layers  # not on every machine

    shares: tuple[int | str, ...] = (1, "M", 2, "M", 4, 4, "M", 8, 8, "M", 8, 8, "M")
    features = make_layers([s if isinstance(s, str) else s * config.width for s in shares], batch_norm=True)
    if config.channels != 3:
        features[0] = nn.Conv2d(config.channels, config.width, 3, padding=1)
    for layer in features:
        if isinstance(layer, nn.Conv2d):  # as torchvision initialises the whole network
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return PooledFeatures(features, 8 * config.width)


def mobilenet_small(config: TargetConfig) -> nn.Module:
    """Torchvision's MobileNetV3-small: depthwise and 1×1 convolutions, squeeze-and-excitation; F = 576 at width 64."""
    from torchvision.models import mobilenet_v3_small  # not on every machine

    features = mobilenet_v3_small(width_mult=config.width / 64).features
    stride = 1 if config.stem == "cifar" else 2
    features[0][0] = nn.Conv2d(config.channels, features[0][0].out_channels, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(features[0][0].weight, mode="fan_out")
    return PooledFeatures(features, int(features[-1][0].out_channels))


BUILDERS |= {"vgg11_bn": vgg11_bn, "mobilenet_v3_small": mobilenet_small, "unet": lambda c: UNet(c.width, c.channels)}
