"""The ConvNets whose parameters are predicted, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from pudnet_lib.core.convnet import ConvNet3
from pudnet_lib.core.layout import ParameterLayout, PredictedTensor
from pudnet_lib.core.resnet import Stem, resnet18, resnet34, resnet50
from pudnet_lib.core.torchvision_nets import mobilenet_small, vgg11_bn
from pudnet_lib.core.unet import UNet
from pudnet_lib.errors import PudNetError, unknown_name

TargetName = Literal["convnet3", "resnet18", "resnet34", "resnet50", "vgg11_bn", "mobilenet_v3_small", "unet"]

__all__ = [
    "ConvNet3",
    "ParameterLayout",
    "PredictedTensor",
    "TargetConfig",
    "UNet",
    "build_target",
    "mobilenet_small",
    "resnet18",
    "resnet34",
    "resnet50",
    "vgg11_bn",
]


@dataclass(frozen=True)
class TargetConfig:
    """Which target network.

    Attributes:
        name: ``"convnet3"``, ``"resnet18"``, ``"resnet34"``, ``"resnet50"``, ``"vgg11_bn"``, ``"mobilenet_v3_small"``,
            or ``"unet"`` (depth 2) for denoising.
        width: Channels of ConvNet-3, of a ResNet's first stage, of VGG's first layer, or of the U-Net at full
            resolution; MobileNet's multiplier times 64.
        channels: C of the images, 1 or 3.
        stem: First layer of the ResNets and of MobileNet, ``"cifar"`` or ``"imagenet"``; the others have no choice.
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
    """Build a target network with random parameters, as PyTorch initialises them.

    Args:
        config: Which network.

    Returns:
        A module from normalised images (N, C, H, W) to features (N, F), or to images (N, C, H, W) for the U-Net, with
        attribute ``feature_dim`` = F, or C.
    """
    width, channels, stem = config.width, config.channels, config.stem
    builders: dict[str, Callable[[], nn.Module]] = {
        "convnet3": lambda: ConvNet3(width, channels, config.depth),
        "resnet18": lambda: resnet18(width, channels, stem),
        "resnet34": lambda: resnet34(width, channels, stem),
        "resnet50": lambda: resnet50(width, channels, stem),
        "vgg11_bn": lambda: vgg11_bn(width, channels),
        "mobilenet_v3_small": lambda: mobilenet_small(width, channels, stem),
        "unet": lambda: UNet(width, channels),
    }
    return builders[config.name]()
