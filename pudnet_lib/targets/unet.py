"""U-Net, the target network of the denoising experiment.

The paper's last experiment predicts a U-Net [code]; widths and depth are our parameters. Deviation: the last layer is a
plain 1×1 convolution; the released code follows it with a batch norm and a ReLU, which cannot give a pixel below the
mean. Image in, image out, both normalised, so that the kit's layout, hypernetwork and prediction path serve unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pudnet_lib.errors import PudNetError


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
        self.down = nn.ModuleList(self._block(a, b) for a, b in zip([channels, *widths], widths[:-1], strict=False))
        self.bottom = self._block(widths[-2], widths[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths[:-1]))
        self.merge = nn.ModuleList(self._block(2 * w, w) for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(width, channels, 1)

    @staticmethod
    def _block(channels_in: int, width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in range(2):
            layers.append(nn.Conv2d(channels_in if i == 0 else width, width, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        return nn.Sequential(*layers)

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
        maps = F.pad(images, (0, -width % step, 0, -height % step), mode="reflect")
        skips = []
        for block in self.down:
            maps = block(maps)
            skips.append(maps)
            maps = F.max_pool2d(maps, 2)
        maps = self.bottom(maps)
        for up, merge in zip(self.up, self.merge, strict=True):
            maps = merge(torch.cat([up(maps), skips.pop()], 1))
        out: Tensor = self.last(maps)
        return out[..., :height, :width]
