"""PSNR and SSIM of estimates against clean images on [0, 1], from torchmetrics.

Paper: PSNR and SSIM [abs]. Deviation: the released code takes them on normalised, clipped tensors; here both images are
pixels in [0, 1], every method's estimate is clipped alike (the noisy input too), and the data range is 1.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from pudnet_lib.denoise.noise import to_unit
from pudnet_lib.errors import PudNetError


def scores(estimate: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Measure each image.

    Args:
        estimate: (N, C, H, W) uint8, or floating point about [0, 1], clipped here.
        clean: (N, C, H, W) uint8 in 0..255, or floating point in [0, 1].

    Returns:
        ``"PSNR"`` in dB and ``"SSIM"`` (Gaussian window, σ 1.5), each (N,).

    Raises:
        PudNetError: If the shapes differ, one of the two is not on [0, 1] or holds NaN, or an estimate is perfect.
    """
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
