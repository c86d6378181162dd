"""U-Net, the target network of the denoising experiment.

The paper's last experiment predicts a U-Net [code]; widths and depth are our parameters. Deviations, our choice:

- The last layer is a plain 1×1 convolution that sees the input beside the features. The released code follows it with a
  batch norm and a ReLU, which cannot give a pixel below the mean.
- There is no batch norm: it rescales a picture by whatever stands beside it in the batch, and a denoiser has to give
  back each picture's own level.
- There are no biases, so that a picture twice as far from mid-gray, noise and all, comes out twice as far (after Mohan
  et al., ICLR 2020: such a network holds at noise levels that it has not seen).
- Local means pass through: what the network changes has about mean zero over every 17×17 window. Predicted or trained
  from few pictures, a U-Net shifts colours that it has seldom seen (a cat's fur turned pink, green 8 of 255 too dark);
  the mean of 289 noisy pixels has a seventeenth of the noise, so the input's own is the better one.

Image in, image out, both normalised, so that the kit's layout, hypernetwork and prediction path serve unchanged.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.errors import PudNetError

WINDOW = 17  # pixels, odd


class UNet(nn.Module):
    """Images to images.

    Args:
        width: Channels at full resolution; twice as many at each halving.
        channels: C of the images.
        depth: Halvings of the resolution.

    Attributes:
        feature_dim: C; the output has the images' channels, not a vector of features.
    """

    def __init__(self, width: int = 16, channels: int = 3, depth: int = 2) -> None:
        super().__init__()
        if depth < 1:
            raise PudNetError(f"UNet.depth is {depth}; expected at least 1.")
        self.feature_dim, self.depth = channels, depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([channels, *widths], widths[:-1], strict=False))
        self.bottom = _block(widths[-2], widths[-1])
        self.up = nn.ModuleList(_up(2 * w, w) for w in reversed(widths[:-1]))
        self.merge = nn.ModuleList(_block(2 * w, w) for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(width + channels, channels, 1, bias=False)
        with torch.no_grad():  # starts from the features alone; what the input itself is worth has to be learned
            nn.init.normal_(self.last.weight, std=0.5 / math.sqrt(width))
            self.last.weight[:, width:] = 0

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images to normalised images.

        Args:
            images: (N, C, H, W) floating point, any H and W of at least 2^depth; padded by reflection inside.

        Returns:
            (N, C, H, W).
        """
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


def local_mean(images: Tensor, window: int = WINDOW) -> Tensor:
    """Mean of (N, C, H, W) images over the pixels of a square window; rows first, then columns."""
    half = window // 2
    rows = F.avg_pool2d(images, (window, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, window), 1, (0, half), count_include_pad=False)


def _block(channels_in: int, width: int) -> nn.Sequential:
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
