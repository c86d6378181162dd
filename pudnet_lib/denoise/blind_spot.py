"""Noise2Void's blind spots: train on noisy images alone, by hiding pixels and guessing them from their neighbours.

Paper: Noise2Void loss [code], after Krull, Buchholz and Jug (CVPR 2019). Deviations: the released code indexes arrays
(C, H, W) as (H, W, C), so that its masks lie on the wrong axes; here a mask is (N, 1, H, W) and hides a pixel in all
channels. One pixel is hidden in each cell of a grid (stratified, as in Noise2Void); the count is our choice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pudnet_lib.errors import PudNetError

CELL, RADIUS = 4, 2  # one hidden pixel in 4×4; replacements from the 5×5 window around it


def grid_mask(images: int, height: int, width: int, generator: torch.Generator, cell: int = CELL) -> Tensor:
    """Draw one pixel to hide in every cell of a grid: (N, 1, H, W) bool; cells that the border cuts may draw none."""
    rows, columns = -(-height // cell), -(-width // cell)
    chosen = torch.randint(cell * cell, (images, rows, columns, 1), generator=generator)
    inside = chosen == torch.arange(cell * cell)  # (N, rows, columns, cell²), one True each
    grid = inside.view(images, rows, columns, cell, cell).transpose(2, 3)
    return grid.reshape(images, 1, rows * cell, columns * cell)[..., :height, :width]


def hide(noisy: Tensor, mask: Tensor, generator: torch.Generator, radius: int = RADIUS) -> Tensor:
    """Replace hidden pixels by another pixel near by, never by themselves; a new (N, C, H, W) tensor."""
    n, channels, height, width = noisy.shape
    if min(height, width) < 2 * radius:
        raise PudNetError(
            f"The images are {height}×{width} pixels; blind spots need at least {2 * radius}×{2 * radius}."
        )
    side = 2 * radius + 1
    draw = torch.randint(side * side - 1, (n, height, width), generator=generator)
    draw = draw + (draw >= side * side // 2).long()  # leaves out the window's centre
    y = _shifted(torch.arange(height)[:, None], draw // side - radius, height)  # (N, H, W)
    x = _shifted(torch.arange(width), draw % side - radius, width)
    near = (y * width + x).view(n, 1, -1).expand(-1, channels, -1).to(noisy.device)
    replacement = noisy.flatten(2).gather(2, near).view_as(noisy)
    return torch.where(mask.to(noisy.device), replacement, noisy)


def _shifted(place: Tensor, offset: Tensor, size: int) -> Tensor:
    """Place plus offset; an offset that leaves the image is turned round, so that it never becomes zero."""
    there = place + offset
    return torch.where((there < 0) | (there >= size), place - offset, there)


def blind_spot_loss(estimate: Tensor, noisy: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error to the noisy pixels (N, C, H, W) where the mask (N, 1, H, W) is set; a scalar."""
    squared = (estimate - noisy).square() * mask  # (N, C, H, W)
    return squared.sum() / (mask.sum() * noisy.shape[1])
