"""Noise, its metrics, and noisy episodes: what a meta-training step of the denoising task sees, and its loss.

Paper [code]: σ = 25, 50, 75, in 8-bit units; episodes as in classification, U-Net, Noise2Void loss (Krull, Buchholz
and Jug, CVPR 2019). Deviations: the released code adds noise and takes the metrics after its normalisation, which turns
σ = 25 into about 5.7 on pixels; here both are on pixels in [0, 1], noise is not clipped, every estimate is. Its masks
lie on the wrong axes; here a mask is (N, 1, H, W) and hides one pixel in each cell of a grid, in all channels. The
sketch is taken from noisy *training* images, never from the batch that is denoised. An episode has one noise level,
drawn at random. The loss is the logarithm of the squared error, so that neither strong noise nor hard pictures prevail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from pudnet_lib.core.dataset import PIXEL_STD, normalise
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaStep
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.errors import PudNetError, unknown_name

Loss = Literal["blind_spot", "supervised"]


def is_gray(images: Tensor) -> bool:
    """Tell whether (N, C, H, W) images are gray: one channel, or equal ones in the first 64 images."""
    return bool((images[:64] == images[:64, :1]).all())


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


def add_noise(images: Tensor, sigma: float, generator: torch.Generator, gray: bool = False) -> Tensor:
    """Add white Gaussian noise."""
    if not (math.isfinite(sigma) and sigma >= 0):
        raise PudNetError(f"The noise level is {sigma}; expected a σ of 0 or more, in 8-bit units (25, 50, 75).")
    clean = to_unit(images)
    shape = (len(clean), 1 if gray else clean.shape[1], *clean.shape[2:])
    noise = torch.randn(shape, generator=generator) * (sigma / 255)  # (N, 1 or C, H, W)
    return clean + noise.to(clean.device)


def scores(estimate: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Measure each image."""
    if estimate.shape != clean.shape:
        raise PudNetError(f"The estimate has shape {tuple(estimate.shape)}, the clean images {tuple(clean.shape)}.")
    estimate, clean = to_unit(estimate, noisy=True).clamp(0, 1), to_unit(clean)
    psnr = peak_signal_noise_ratio(estimate, clean, data_range=1.0, reduction="none", dim=(1, 2, 3))
    if bool(psnr.isinf().any()):
        raise PudNetError(f"{int(psnr.isinf().sum())} estimates equal the clean images exactly: PSNR is infinite.")
    ssim = structural_similarity_index_measure(estimate, clean, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return {"PSNR": psnr, "SSIM": ssim.reshape(len(clean))}


def grid_mask(images: int, height: int, width: int, generator: torch.Generator, cell: int = 4) -> Tensor:
    """Draw one pixel to hide in every cell of a grid: (N, 1, H, W) bool; cells that the border cuts may draw none."""
    rows, columns = -(-height // cell), -(-width // cell)
    chosen = torch.randint(cell * cell, (images, rows, columns, 1), generator=generator)
    inside = chosen == torch.arange(cell * cell)  # (N, rows, columns, cell²), one True each
    grid = inside.view(images, rows, columns, cell, cell).transpose(2, 3)
    return grid.reshape(images, 1, rows * cell, columns * cell)[..., :height, :width]


def hide(noisy: Tensor, mask: Tensor, generator: torch.Generator, radius: int = 2) -> Tensor:
    """Replace hidden pixels by another pixel near by, never by themselves; a new (N, C, H, W) tensor."""
    n, channels, height, width = noisy.shape
    least, side = 2 * radius, 2 * radius + 1
    if min(height, width) < least:
        raise PudNetError(f"The images are {height}×{width} pixels; blind spots need at least {least}×{least}.")
    draw = torch.randint(side * side - 1, (n, height, width), generator=generator)
    draw = draw + (draw >= side * side // 2).long()  # leaves out the window's centre
    y, x = torch.arange(height)[:, None], torch.arange(width)
    down, right = draw // side - radius, draw % side - radius  # (N, H, W) each
    # An offset that leaves the image is turned round, so that it never becomes zero.
    y = torch.where((y + down < 0) | (y + down >= height), y - down, y + down)
    x = torch.where((x + right < 0) | (x + right >= width), x - right, x + right)
    near = (y * width + x).view(n, 1, -1).expand(-1, channels, -1).to(noisy.device)
    replacement = noisy.flatten(2).gather(2, near).view_as(noisy)
    return torch.where(mask.to(noisy.device), replacement, noisy)


def blind_spot_loss(estimate: Tensor, noisy: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error to the noisy pixels (N, C, H, W) where the mask (N, 1, H, W) is set; a scalar."""
    squared = (estimate - noisy).square() * mask  # (N, C, H, W)
    return squared.sum() / (mask.sum() * noisy.shape[1])


@dataclass(frozen=True)
class NoisyEpisodeConfig(EpisodeConfig):
    """What a noisy episode holds; support and query images together are the batch that is denoised.

    Attributes:
        sketch_per_class: Noisy sketch images per class ([code]: 10).
        support_per_class: Images to denoise, per class.
        query_per_class: More images to denoise, per class.
        sigma_low: Lowest noise level, in 8-bit units.
        sigma_high: Highest noise level; drawn uniformly between the two.
        loss: ``"blind_spot"`` (Noise2Void, [code]) or ``"supervised"`` (needs clean images in meta-training).
    """

    support_per_class: int = 2
    query_per_class: int = 2
    sigma_low: float = 15.0
    sigma_high: float = 85.0
    loss: Loss = "blind_spot"

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.sigma_low, self.sigma_high
        if not 0 < low <= high:
            raise PudNetError(f"Noise levels {low}..{high}: expected 0 < sigma_low <= sigma_high.")
        if self.loss not in get_args(Loss):
            raise unknown_name("denoising loss", self.loss, get_args(Loss))


class NoisyEpisode(NamedTuple):
    """An episode with its noise; a named tuple, so that Lightning Fabric can look inside."""

    source: str
    sigma: float
    sketch: Tensor
    seen: Tensor
    goal: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> NoisyEpisode:
        """Copy every tensor to a device."""
        moved: dict[str, Any] = {n: v.to(device) for n, v in self._asdict().items() if isinstance(v, Tensor)}
        return self._replace(**moved)


def noisy_episode(
    source: str, sigma: float, sketch: Tensor, noisy: Tensor, clean: Tensor | None, generator: torch.Generator
) -> NoisyEpisode:
    """Put an episode together: with clean images for the supervised loss, with hidden pixels where they are None."""
    n, _, height, width = noisy.shape
    if clean is not None:
        everywhere = torch.ones(n, 1, height, width, dtype=torch.bool)
        return NoisyEpisode(source, sigma, sketch, noisy, to_unit(clean), everywhere)
    mask = grid_mask(n, height, width, generator)
    return NoisyEpisode(source, sigma, sketch, hide(noisy, mask, generator), noisy, mask)


class NoisyEpisodeSampler(EpisodeSampler):
    """Draws noisy episodes: the kit's episodes, their noise a function of (seed, index) too; arguments are the same."""

    config: NoisyEpisodeConfig

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._gray = [is_gray(data.images) for data in self.pool]

    def episode(self, index: int, source: int | None = None) -> NoisyEpisode:  # type: ignore[override]
        """Draw noisy episode number ``index``; see ``EpisodeSampler.episode``."""
        plain, rng = super().episode(index, source), np.random.default_rng((self.seed, index, 1))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        sigma = float(rng.uniform(self.config.sigma_low, self.config.sigma_high))
        gray = self._gray[plain.source_index]
        clean = torch.cat([plain.support, plain.query])
        noisy, sketch = (add_noise(images, sigma, generator, gray) for images in (clean, plain.sketch))
        goal = clean if self.config.loss == "supervised" else None
        return noisy_episode(plain.source, sigma, sketch, noisy, goal, generator)


class DenoisingLosses(NamedTuple):
    """What a step gives: the logarithm of the squared error in units of the noise's variance."""

    total: Tensor


class DenoisingStep(MetaStep):
    """A parameter model that denoises: noisy episode in, loss out; its target maps images to images."""

    def __init__(self, model: ParameterModel) -> None:
        super().__init__(model, 0, LossWeights(1, 0, 0))

    def forward(self, episode: NoisyEpisode) -> DenoisingLosses:  # type: ignore[override]
        """Predict from the noisy sketch, denoise, compare where the mask is set."""
        estimate = self.model.features(self.model(episode.sketch), episode.seen)  # (N, C, H, W), normalised
        variance = (episode.sigma / 255 / PIXEL_STD) ** 2
        return DenoisingLosses((blind_spot_loss(estimate, normalise(episode.goal), episode.mask) / variance).log())
