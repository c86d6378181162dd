"""ConvNet-3, the small target network of the intra- and inter-dataset experiments.

Three blocks of 3×3 convolution, batch norm, ReLU and 2×2 max pooling ([rec]: the paper's "ConvNet-3"; widths are our
parameter). Deviation: global average pooling instead of flattening, so that any image size gives ``width`` features.
"""

from __future__ import annotations

from torch import Tensor, nn


class ConvNet3(nn.Module):
    """Images to features.

    Args:
        width: Channels of every block.
        channels: C of the images.
        depth: Blocks; another number than 3 is an ablation of the target's depth (our choice).
    """

    def __init__(self, width: int = 64, channels: int = 3, depth: int = 3) -> None:
        super().__init__()
        self.feature_dim = width
        self.blocks = nn.Sequential(*(self._block(channels if i == 0 else width, width) for i in range(depth)))

    @staticmethod
    def _block(channels_in: int, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels_in, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images to features.

        Args:
            images: (N, C, H, W) floating point, H and W at least 2^depth.

        Returns:
            (N, width) features.
        """
        maps: Tensor = self.blocks(images)  # (N, width, H/2^depth, W/2^depth)
        return maps.mean((2, 3))  # (N, width)
