"""A panel for trying denoisers: noise level, picture, method, and a slider between noisy and cleaned.

Our choice; the paper has no counterpart. The panel only calls ``draw``, a plain function with its own tests.
"""

from __future__ import annotations

from functools import lru_cache

import ipywidgets
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pudnet_lib.denoise import add_noise, is_gray, predict_denoiser
from pudnet_lib.denoise.rivals import FACTORS, bm3d, bm3d_available, classic
from pudnet_lib.denoise.sources import photograph
from pudnet_lib.errors import unknown_name
from pudnet_lib.figures.denoising_figures import figure_before_after
from pudnet_lib.shipped import load_shipped
from pudnet_lib.widgets import Panel

#: Held-out photographs that come with scikit-image.
PICTURES = ("cat", "grass", "gravel")
NETWORKS = {
    "PudNet": "denoiser",
    "shared network": "denoiser_shared",
    "PudNet, Noise2Void meta-training": "denoiser_blind",
}
SIDE = 128  # pixels


def methods() -> tuple[str, ...]:
    """List the methods that can be chosen here."""
    return (*NETWORKS, *FACTORS, *(("BM3D",) if bm3d_available() else ()))


@lru_cache(maxsize=8)
def crop(picture: str) -> Tensor:
    """Cut the middle of a photograph.

    Args:
        picture: One of ``PICTURES``.

    Returns:
        (3, SIDE, SIDE) uint8.
    """
    pixels = torch.from_numpy(np.atleast_3d(photograph(picture)).copy()).permute(2, 0, 1)  # (C, H, W)
    top, left = ((size - SIDE) // 2 for size in pixels.shape[1:])
    return pixels[:, top : top + SIDE, left : left + SIDE].expand(3, -1, -1)


@lru_cache(maxsize=64)
def clean(picture: str, method: str, sigma: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Add noise to a photograph's middle and clean it; a network's sketch is patches of this noisy picture.

    Args:
        picture: One of ``PICTURES``.
        method: One of ``methods()``.
        sigma: σ in 8-bit units.
        seed: Seed of the noise.

    Returns:
        Noisy and cleaned, each (3, SIDE, SIDE) float.

    Raises:
        PudNetError: If the picture or the method is unknown.
    """
    if picture not in PICTURES:
        raise unknown_name("picture", picture, PICTURES)
    if method not in methods():
        raise unknown_name("method", method, methods())
    truth = crop(picture)[None]
    gray = is_gray(truth)
    noisy = add_noise(truth, sigma, torch.Generator().manual_seed(seed), gray)
    if method in NETWORKS:
        estimate = predict_denoiser(load_shipped(NETWORKS[method]), list(noisy))(noisy)
    elif method == "BM3D":
        estimate = bm3d(noisy, sigma, gray)
    else:
        estimate = classic(method, noisy, sigma, 0.6, gray)
    return noisy[0], estimate[0]


def draw(picture: str, method: str, sigma: float, noisy_share: float) -> Figure:
    """Draw a picture, noisy on the left and cleaned on the right.

    Args:
        picture: One of ``PICTURES``.
        method: One of ``methods()``.
        sigma: σ in 8-bit units.
        noisy_share: Where the line between the two stands, 0 to 1.

    Returns:
        The figure.
    """
    noisy, cleaned = clean(picture, method, sigma)
    return figure_before_after(noisy, cleaned, crop(picture), noisy_share, method)


def try_denoisers() -> Panel:
    """Make the panel."""
    return Panel(
        draw,
        picture=list(PICTURES),
        method=list(methods()),
        sigma=ipywidgets.IntSlider(25, 5, 100, 5, continuous_update=False),
        noisy_share=ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.05),
    )
