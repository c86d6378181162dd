"""The ConvNets whose parameters are predicted: ConvNet-3 and -4 and the ResNets; ``more_targets`` adds others.

Each maps normalised images (N, C, H, W) to features (N, F), without a classifier: the class means take its place
(paper, Section 3.2). ConvNet-3 [rec] and ResNet-18 [abs] are the paper's; widths are our parameter. Deviation: global
average pooling instead of flattening, so that any image size works.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

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

    @property
    def title(self) -> str:
        """For people: ConvNet-3 of width 16."""
        return f"{self.name.replace('convnet', 'ConvNet-').replace('resnet', 'ResNet-')} of width {self.width}"

    def __post_init__(self) -> None:
        if self.name not in get_args(TargetName):
            raise unknown_name("target network", self.name, get_args(TargetName))
        if self.stem not in get_args(Stem):
            raise unknown_name("stem", self.stem, get_args(Stem))
        if self.width < 1 or self.depth < 1 or self.channels not in (1, 3):
            raise PudNetError(f"{self}: width and depth must be at least 1 and channels 1 or 3.")


def build_target(config: TargetConfig) -> nn.Module:
    """Build a target network with random parameters."""
    if config.name not in BUILDERS:
        raise PudNetError(f"The target {config.name!r} is built by pudnet_lib.more_targets; import it first.")
    network = BUILDERS[config.name](config)
    network.config = config  # type: ignore[assignment]
    return network


class ConvNet(nn.Module):
    """Blocks (one a width) of 3×3 convolution, batch norm, ReLU, 2×2 max pooling; then the mean over pixels."""

    def __init__(self, widths: Sequence[int], channels: int = 3) -> None:
        super().__init__()
        self.feature_dim, self.last_convolution = widths[-1], f"blocks.{len(widths) - 1}.0"
        self.blocks = nn.Sequential()
        for inside, width in zip([channels, *widths], widths, strict=False):
            convolution = nn.Conv2d(inside, width, 3, padding=1, bias=False)
            self.blocks.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to features (N, F)."""
        if min(images.shape[2:]) < 2 ** len(self.blocks):
            least = f"{len(self.blocks)} blocks halve them, so at least {2 ** len(self.blocks)} are needed"
            raise PudNetError(f"The images have {images.shape[2]}×{images.shape[3]} pixels; {least}.")
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
        sizes = [(channels, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            sizes = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        self.depth = len(sizes)
        for i, (a, b, kernel, step) in enumerate(sizes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = short

    def forward(self, maps: Tensor, read: Tensor | None = None) -> Tensor:
        """Maps (N, C, H, W) to maps (N, C', H', W'); ``read`` is what the last convolution reads, if that is known."""
        out = maps if read is None else read
        for i in range(1 if read is None else self.depth, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = F.relu(out) if i < self.depth else out
        return F.relu(out + (maps if self.downsample is None else self.downsample(maps)))


class ResNet(nn.Module):
    """A ResNet without its classifier; the names of its tensors are torchvision's."""

    def __init__(
        self, depths: Sequence[int], width: int = 64, channels: int = 3, stem: Stem = "cifar", bottleneck: bool = False
    ) -> None:
        super().__init__()
        self.feature_dim = 8 * width * (4 if bottleneck else 1)
        small = stem == "cifar"
        kernel, stride, self.blind = (3, 1, 4) if small else (7, 2, 16)
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
        self.last_convolution = f"layer4.{depths[-1] - 1}.conv{3 if bottleneck else 2}"
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to features (N, F)."""
        if min(images.shape[2:]) <= self.blind:  # the last stage would see one pixel
            raise PudNetError("The images have {}×{} pixels; expected over {}.".format(*images.shape[2:], self.blind))
        maps = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        for stage in range(1, 5):
            maps = getattr(self, f"layer{stage}")(maps)
        return maps.mean((2, 3))  # type: ignore[no-any-return]


def _resnet(*depths: int, bottleneck: bool = False) -> Callable[[TargetConfig], nn.Module]:
    return lambda c: ResNet(depths, c.width, c.channels, c.stem, bottleneck)


BUILDERS: dict[str, Callable[[Any], nn.Module]] = {
    "convnet3": lambda c: ConvNet3(c.width, c.channels, c.depth),
    "convnet4": lambda c: ConvNet4(c.width, c.channels),
    "resnet10": _resnet(1, 1, 1, 1),
    "resnet18": _resnet(2, 2, 2, 2),
    "resnet34": _resnet(3, 4, 6, 3),
    "resnet50": _resnet(3, 4, 6, 3, bottleneck=True),
}
