"""Gaussian noise on pixels in [0, 1], its level given in 8-bit units.

Paper: σ = 25, 50, 75 [code]. Deviation: the released code adds noise after its normalisation, which turns σ = 25 into
about 5.7 on pixels; here it is added to the picture itself. Not clipped by default, as is usual in the literature.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pudnet_lib.errors import PudNetError


def is_gray(images: Tensor, probe: int = 64) -> bool:
    """Tell whether images are gray pictures, be it with one channel or with three equal ones.

    Args:
        images: (N, C, H, W).
        probe: At most so many images are looked at.

    Returns:
        True if all channels are equal.
    """
    some = images[:probe]
    return bool((some == some[:, :1]).all())


def to_unit(images: Tensor) -> Tensor:
    """Bring uint8 images to floating point in [0, 1]; floating-point images come back as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def add_noise(
    images: Tensor, sigma: float, generator: torch.Generator, gray: bool = False, clip: bool = False
) -> Tensor:
    """Add white Gaussian noise.

    Args:
        images: (N, C, H, W) uint8 in 0..255, or floating point in [0, 1].
        sigma: σ in 8-bit units: 25 is a deviation of 25/255 on [0, 1].
        generator: Where the noise is drawn from; the global generator is not touched.
        gray: Give all channels of a pixel the same noise, as a gray picture has.
        clip: Clip the result to [0, 1], as a camera's file would be.

    Returns:
        (N, C, H, W) float, new.

    Raises:
        PudNetError: If σ is negative or not finite.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise PudNetError(f"The noise level is {sigma}; expected a σ of 0 or more, in 8-bit units (25, 50, 75).")
    clean = to_unit(images)
    shape = (len(clean), 1 if gray else clean.shape[1], *clean.shape[2:])
    noise = torch.randn(shape, generator=generator) * (sigma / 255)  # (N, 1 or C, H, W)
    noisy = clean + noise.to(clean.device)
    return noisy.clamp_(0, 1) if clip else noisy
