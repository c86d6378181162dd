"""The ConvNets whose parameters are predicted: ConvNet-3 and -4, ResNets, the U-Net, and two of torchvision's.

Each maps normalised images (N, C, H, W) to features (N, F), without a classifier: the class means take its place
(paper, Section 3.2). ConvNet-3 [rec] and ResNet-18 [abs] are the paper's, the U-Net is the denoising experiment's
[code]; widths are our parameter. Deviation: global average pooling instead of flattening, so that any image size works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.errors import PudNetError, unknown_name

TargetName = Literal[
    "convnet3", "convnet4", "resnet10", "resnet18", "resnet34", "resnet50", "vgg11_bn", "mobilenet_v3_small", "unet"
]
Stem = Literal["cifar", "imagenet"]


@dataclass(frozen=True)
class TargetConfig:
    """Which target network.

    Attributes:
        name: ``"convnet3"``, ``"convnet4"`` (width, 2, 2 and 4 times the width), ``"resnet10"`` to ``"resnet50"``,
            ``"vgg11_bn"``, ``"mobilenet_v3_small"``, or ``"unet"`` (depth 2) for denoising.
        width: Channels of a ConvNet's first block, of a ResNet's first stage, of VGG's first layer, or of the U-Net at
            full resolution; MobileNet's multiplier times 64.
        channels: C of the images, 1 or 3.
        stem: First layer of the ResNets and of MobileNet, ``"cifar"`` (3×3, for images under about 64 pixels) or
            ``"imagenet"`` (7×7 of stride 2, pooling); the others have no choice.
        depth: Blocks of ConvNet-3, for an ablation; the others have their own.
    """

    name: TargetName = "convnet3"
    width: int = 64
    channels: int = 3
    stem: Stem = "cifar"
    depth: int = 3

    def __post_init__(self) -> None:
        if self.name not in get_args(TargetName):
            raise unknown_name("target network", self.name, get_args(TargetName))
        if self.stem not in get_args(Stem):
            raise unknown_name("stem", self.stem, get_args(Stem))
        if self.width < 1 or self.depth < 1 or self.channels not in (1, 3):
            raise PudNetError(f"{self}: width and depth must be at least 1 and channels 1 or 3.")


def build_target(config: TargetConfig) -> nn.Module:
    """Build a target network with random parameters.

    Args:
        config: Which network.

    Returns:
        A module from normalised images (N, C, H, W) to features (N, F), or to images (N, C, H, W) for the U-Net, with
        attributes ``feature_dim`` (F, or C), ``config`` and, where the features are the pixels' mean of one module's
        output, ``last_block``, that module's name.
    """
    network = _BUILDERS[config.name](config)
    network.config = config  # type: ignore[assignment]
    return network


class ConvNet(nn.Module):
    """Blocks of 3×3 convolution, batch norm, ReLU and 2×2 max pooling, then the mean over pixels.

    Args:
        widths: Channels of each block; the images must be at least 2^blocks pixels wide.
        channels: C of the images.
    """

    def __init__(self, widths: Sequence[int], channels: int = 3) -> None:
        super().__init__()
        self.feature_dim, self.last_block = widths[-1], f"blocks.{len(widths) - 1}"
        self.blocks = nn.Sequential(*(self._block(a, b) for a, b in zip([channels, *widths], widths, strict=False)))

    @staticmethod
    def _block(channels: int, width: int) -> nn.Sequential:
        convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to features (N, F)."""
        maps: Tensor = self.blocks(images)  # (N, F, H/2^blocks, W/2^blocks)
        return maps.mean((2, 3))  # (N, F)


class ConvNet3(ConvNet):
    """ConvNet-3, the paper's small target network [rec]; another depth is an ablation (our choice)."""

    def __init__(self, width: int = 64, channels: int = 3, depth: int = 3) -> None:
        super().__init__([width] * depth, channels)
        self.config = TargetConfig("convnet3", width, channels, depth=depth)


class ConvNet4(ConvNet):
    """ConvNet-4 with width, 2, 2 and 4 times the width channels (our choice, for photographs of 64 pixels)."""

    def __init__(self, width: int = 32, channels: int = 3) -> None:
        super().__init__([width, 2 * width, 2 * width, 4 * width], channels)
        self.config = TargetConfig("convnet4", width, channels)


class _Block(nn.Module):
    """A ResNet's basic block, or the bottleneck of the deeper ones; names and order as torchvision's."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        # Drawn first, as torchvision does, and registered last: the same seed gives the same network.
        short = None
        if stride > 1 or channels != out:
            short = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        if bottleneck:
            sizes = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        else:
            sizes = [(channels, width, 3, stride), (width, width, 3, 1)]
        self.depth = len(sizes)
        for i, (a, b, kernel, step) in enumerate(sizes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = short

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) to maps (N, C', H', W')."""
        out = maps
        for i in range(1, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out if i == 1 else F.relu(out)))
        return F.relu(out + (maps if self.downsample is None else self.downsample(maps)))


class ResNet(nn.Module):
    """A ResNet without its classifier; the names of its tensors are torchvision's.

    Args:
        depths: Blocks of the four stages.
        width: Channels of the first stage, doubled in each; 64 is the usual network.
        channels: C of the images.
        stem: First layer; after ImageNet's, 32-pixel images would end 1 pixel wide.
        bottleneck: The blocks of ResNet-50.
    """

    def __init__(
        self, depths: Sequence[int], width: int = 64, channels: int = 3, stem: Stem = "cifar", bottleneck: bool = False
    ) -> None:
        super().__init__()
        self.feature_dim = 8 * width * (4 if bottleneck else 1)
        small = stem == "cifar"
        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        inside = width
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                blocks.append(_Block(inside, width * 2**stage, 2 if stage and not i else 1, bottleneck))
                inside = width * 2**stage * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.last_block = f"layer4.{depths[-1] - 1}"
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to features (N, F)."""
        maps = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        for stage in range(1, 5):
            maps = getattr(self, f"layer{stage}")(maps)
        return maps.mean((2, 3))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Images to images, for denoising.

    Deviations from the released code, our choice: the last layer is a plain 1×1 convolution that sees the input beside
    the features (a batch norm and ReLU after it cannot give a pixel below the mean); no batch norm, which rescales a
    picture by whatever stands beside it in the batch; no biases, so that a picture twice as far from mid-gray, noise
    and all, comes out twice as far (after Mohan et al., ICLR 2020: such a network holds at unseen noise levels); local
    means pass through: predicted or trained from few pictures, a U-Net shifts colours that it has seldom seen (a cat's
    fur turned pink), and the mean of 289 noisy pixels has a seventeenth of the noise: the input's own is better.

    Args:
        width: Channels at full resolution; twice as many at each halving.
        channels: C of the images.
        depth: Halvings of the resolution.
    """

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
        height, width = images.shape[2:]
        step = 2**self.depth
        if min(height, width) < step:
            raise PudNetError(
                f"The images are {height}×{width} pixels; a U-Net of depth {self.depth} needs {step}×{step}."
            )
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


def _vgg11_bn(config: TargetConfig) -> nn.Module:
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


def _mobilenet_small(config: TargetConfig) -> nn.Module:
    """Torchvision's MobileNetV3-small: depthwise and 1×1 convolutions, squeeze-and-excitation; F = 576 at width 64."""
    from torchvision.models import mobilenet_v3_small  # not on every machine

    features = mobilenet_v3_small(width_mult=config.width / 64).features
    stride = 1 if config.stem == "cifar" else 2
    features[0][0] = nn.Conv2d(config.channels, features[0][0].out_channels, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(features[0][0].weight, mode="fan_out")
    return PooledFeatures(features, int(features[-1][0].out_channels))


def _resnet(*depths: int, bottleneck: bool = False) -> Callable[[TargetConfig], nn.Module]:
    return lambda c: ResNet(depths, c.width, c.channels, c.stem, bottleneck)


_BUILDERS: dict[str, Callable[[Any], nn.Module]] = {
    "convnet3": lambda c: ConvNet3(c.width, c.channels, c.depth),
    "convnet4": lambda c: ConvNet4(c.width, c.channels),
    "resnet10": _resnet(1, 1, 1, 1),
    "resnet18": _resnet(2, 2, 2, 2),
    "resnet34": _resnet(3, 4, 6, 3),
    "resnet50": _resnet(3, 4, 6, 3, bottleneck=True),
    "vgg11_bn": _vgg11_bn,
    "mobilenet_v3_small": _mobilenet_small,
    "unet": lambda c: UNet(c.width, c.channels),
}
