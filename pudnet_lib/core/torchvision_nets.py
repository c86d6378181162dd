"""VGG-11 with batch norm and MobileNetV3-small as target networks: torchvision's, without their classifiers.

Not in the paper (our choice): biased, depthwise and 1×1 convolutions, squeeze-and-excitation, to show that any ConvNet
of 2-d convolutions and batch norms can be predicted. ``width`` scales all layers; 64 is the usual network.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small
from torchvision.models.vgg import make_layers

from pudnet_lib.core.resnet import Stem

_VGG_11: tuple[int | str, ...] = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")


class PooledFeatures(nn.Module):
    """Layers up to the last map, then the mean over its pixels.

    Args:
        features: Images to maps (N, F, h, w).
        feature_dim: F.
    """

    def __init__(self, features: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.features, self.feature_dim = features, feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (N, C, H, W) to features (N, F)."""
        maps: Tensor = self.features(images)  # (N, F, h, w)
        return maps.mean((2, 3))


def vgg11_bn(width: int = 64, channels: int = 3) -> nn.Module:
    """Build VGG-11 with batch norm, without its three linear layers.

    Args:
        width: Channels of the first layer.
        channels: C of the images, which must be at least 32 pixels wide.

    Returns:
        Images to features (N, 8 · width).
    """
    layers = [entry if isinstance(entry, str) else entry * width // 64 for entry in _VGG_11]
    features = make_layers(layers, batch_norm=True)
    if channels != 3:
        features[0] = nn.Conv2d(channels, width, 3, padding=1)
    for layer in features:
        if isinstance(layer, nn.Conv2d):  # as torchvision initialises the whole network
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return PooledFeatures(features, 8 * width)


def mobilenet_small(width: int = 64, channels: int = 3, stem: Stem = "cifar") -> nn.Module:
    """Build MobileNetV3-small, without its classifier.

    Args:
        width: 64 is the usual network; torchvision rounds each layer to a multiple of 8.
        channels: C of the images.
        stem: ``"cifar"`` sets the first layer's stride to 1, for images under about 64 pixels.

    Returns:
        Images to features (N, 576) at width 64; in general six times the last block's channels.
    """
    features = mobilenet_v3_small(width_mult=width / 64).features
    first, last = features[0][0], features[-1][0]
    stride = 1 if stem == "cifar" else 2
    features[0][0] = nn.Conv2d(channels, first.out_channels, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(features[0][0].weight, mode="fan_out")
    return PooledFeatures(features, int(last.out_channels))
