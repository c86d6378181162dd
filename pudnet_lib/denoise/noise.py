"""Gaussian noise on pixels in [0, 1], its level given in 8-bit units; and what is left of it: PSNR and SSIM.

Paper: σ = 25, 50, 75 [code]. Deviations: the released code adds noise after its normalisation, which turns σ = 25 into
about 5.7 on pixels, and takes the metrics there, too; here both are on pixels in [0, 1], noise is not clipped, as is
usual in the literature, and every estimate is clipped alike.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from pudnet_lib.errors import PudNetError


def is_gray(images: Tensor, probe: int = 64) -> bool:
    """Tell whether (N, C, H, W) images are gray: one channel, or equal ones in the first ``probe`` images."""
    some = images[:probe]
    return bool((some == some[:, :1]).all())


def to_unit(images: Tensor, noisy: bool = False) -> Tensor:
    """Bring images to floating point about [0, 1] (noisy: beyond it as far as noise explains), or refuse them."""
    if images.dtype == torch.uint8:
        return images.float() / 255
    expected = "expected uint8 in 0..255, or floating point in [0, 1]: divide by the largest value a pixel can have"
    if not images.is_floating_point():
        raise PudNetError(f"The images have dtype {str(images.dtype).removeprefix('torch.')}; {expected}.")
    rows = images.reshape(-1, images.shape[-1])
    some = rows[:: -(-len(rows) // 256)] if noisy else rows  # of noisy images a sample of rows
    if not bool(torch.isfinite(images).all()):
        raise PudNetError(f"The images hold NaN or infinite pixels; {expected}.")
    low, high, room = float(some.min()), float(some.max()), 1e-3
    if noisy and (low < 0 or high > 1):
        low, high = (float(v) for v in torch.quantile(some.flatten()[:100_000].float(), torch.tensor([0.01, 0.99])))
        sigma = float(some.diff(dim=1).abs().median()) / (0.6745 * math.sqrt(2))  # of neighbours' differences
        room = 0.25 + 3 * sigma  # estimates of filters and networks overshoot a little, too
    if low < -room or high > 1 + room:
        raise PudNetError(f"The images' pixels range over [{low:.3g}, {high:.3g}]; {expected}.")
    return images


def add_noise(
    images: Tensor, sigma: float, generator: torch.Generator, gray: bool = False, clip: bool = False
) -> Tensor:
    """Add white Gaussian noise."""
    if not (math.isfinite(sigma) and sigma >= 0):
        raise PudNetError(f"The noise level is {sigma}; expected a σ of 0 or more, in 8-bit units (25, 50, 75).")
    clean = to_unit(images)
    shape = (len(clean), 1 if gray else clean.shape[1], *clean.shape[2:])
    noise = torch.randn(shape, generator=generator) * (sigma / 255)  # (N, 1 or C, H, W)
    noisy = clean + noise.to(clean.device)
    return noisy.clamp_(0, 1) if clip else noisy


def scores(estimate: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Measure each image."""
    if estimate.shape != clean.shape:
        raise PudNetError(f"The estimate has shape {tuple(estimate.shape)}, the clean images {tuple(clean.shape)}.")
    estimate, clean = to_unit(estimate, noisy=True).clamp(0, 1), to_unit(clean)
    squared = (estimate - clean).square().flatten(1).mean(1)
    if bool((squared == 0).any()):
        raise PudNetError(f"{int((squared == 0).sum())} estimates equal the clean images exactly: PSNR is infinite.")
    psnr = peak_signal_noise_ratio(estimate, clean, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(estimate, clean, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return {"PSNR": psnr, "SSIM": ssim.reshape(len(clean))}
