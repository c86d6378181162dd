"""Augmentation of a batch without a loop over images: horizontal flips and shifts. Our choice.

Two switches, since a flip makes another class of a letter or digit, and a shift never does.
"""

from __future__ import annotations

import torch
from torch import Tensor


def augment(images: Tensor, flip: bool, crop: int, generator: torch.Generator) -> Tensor:
    """Flip and shift images, each on its own, without a loop.

    Args:
        images: (N, C, H, W).
        flip: Flip every image with probability 1/2.
        crop: Shift by up to so many pixels in each direction; what comes in from outside repeats the border.
        generator: A CPU generator.

    Returns:
        (N, C, H, W) of the same dtype.
    """
    n, _, height, width = images.shape
    rows = torch.arange(height)[None].expand(n, -1)
    columns = torch.arange(width)[None].expand(n, -1)
    if crop:
        shift = torch.randint(-crop, crop + 1, (2, n, 1), generator=generator)
        rows, columns = (rows + shift[0]).clamp(0, height - 1), (columns + shift[1]).clamp(0, width - 1)
    if flip:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    if not crop and not flip:
        return images
    rows, columns = rows.to(images.device), columns.to(images.device)
    picked = torch.arange(n, device=images.device)[:, None, None]
    # advanced indices around a slice put their dimensions first: (N, H, W, C)
    return images[picked, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
