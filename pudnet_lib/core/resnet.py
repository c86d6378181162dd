"""ResNet-18, the paper's large target network [abs], and its deeper kin; torchvision's, with a width and a small stem.

Deviation: no classifier layer, since the class means take its place (paper, Section 3.2); ``width`` scales all stages.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

Stem = Literal["cifar", "imagenet"]


class _Headless(ResNet):  # type: ignore[misc]  # torchvision has no types
    """Torchvision's ResNet with the first stage's width as a parameter and features as output."""

    def __init__(
        self, block: type[BasicBlock | Bottleneck], depths: tuple[int, ...], width: int, channels: int, stem: Stem
    ) -> None:
        with torch.device("meta"):  # every layer with parameters is rebuilt below: spend no time on these
            super().__init__(block, list(depths))
        self.feature_dim = 8 * width * int(block.expansion)
        self.inplanes = width
        if stem == "cifar":  # 32-pixel images would be 1 pixel wide after the ImageNet stem's stages
            self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._make_layer(block, width, depths[0])
        self.layer2 = self._make_layer(block, 2 * width, depths[1], stride=2)
        self.layer3 = self._make_layer(block, 4 * width, depths[2], stride=2)
        self.layer4 = self._make_layer(block, 8 * width, depths[3], stride=2)
        self.fc = nn.Identity()
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def resnet18(width: int = 64, channels: int = 3, stem: Stem = "cifar") -> nn.Module:
    """Build a ResNet-18 that maps normalised images (N, C, H, W) to features (N, 8 · width).

    Args:
        width: Channels of the first stage; 64 is the usual network.
        channels: C of the images.
        stem: ``"cifar"`` (3×3, no pooling; for images under about 64 pixels) or ``"imagenet"`` (7×7, stride 2).

    Returns:
        The network, with attribute ``feature_dim``.
    """
    return _Headless(BasicBlock, (2, 2, 2, 2), width, channels, stem)


def resnet34(width: int = 64, channels: int = 3, stem: Stem = "cifar") -> nn.Module:
    """Build a ResNet-34; see ``resnet18``. Features (N, 8 · width)."""
    return _Headless(BasicBlock, (3, 4, 6, 3), width, channels, stem)


def resnet50(width: int = 64, channels: int = 3, stem: Stem = "cifar") -> nn.Module:
    """Build a ResNet-50; see ``resnet18``. Features (N, 32 · width)."""
    return _Headless(Bottleneck, (3, 4, 6, 3), width, channels, stem)
