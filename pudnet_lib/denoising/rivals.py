"""The rivals: BM3D, non-local means, total variation (all told the noise level) and Noise2Void from scratch.

Paper: BM3D, non-local means, Noise2Void [rec]. Our choice: the libraries' own code (bm3d, scikit-image); the free
factor of non-local means and total variation is chosen by scikit-image's ``calibrate_denoiser``, on noisy training
images alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from skimage.restoration import calibrate_denoiser, denoise_nl_means, denoise_tv_chambolle
from torch import Tensor

from pudnet_lib.baselines.shared import SharedConfig, SharedNetwork
from pudnet_lib.denoising.groups import NoisyGroup, NoisyGroupConfig, noisy_group
from pudnet_lib.denoising.predict import Denoiser, DenoiserConfig, predict_denoiser
from pudnet_lib.denoising.train import DenoisingStep
from pudnet_lib.errors import PudNetError
from pudnet_lib.targets import TargetConfig
from pudnet_lib.training.meta import MetaConfig, meta_train

FACTORS = {"non-local means": (0.5, 0.7, 0.9, 1.1), "total variation": (0.6, 1.0, 1.5, 2.2)}
PAD = 4  # pixels that a picture is mirrored at its border in BM3D's mosaic


def _nlm(image: np.ndarray, factor: float, sigma: float) -> np.ndarray:
    """Non-local means of one (H, W, C) image; σ on [0, 1], h = factor · σ."""
    out: np.ndarray = denoise_nl_means(
        image, patch_size=5, patch_distance=6, h=factor * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
    )
    return out.reshape(image.shape)  # it drops a single channel


def _tv(image: np.ndarray, factor: float, sigma: float) -> np.ndarray:
    """Total variation (Chambolle) of one (H, W, C) image; σ on [0, 1], weight = factor · σ."""
    out: np.ndarray = denoise_tv_chambolle(image, weight=factor * sigma, channel_axis=-1)
    return out


_FILTERS: dict[str, Callable[..., np.ndarray]] = {"non-local means": _nlm, "total variation": _tv}


def classic(method: str, noisy: Tensor, sigma: float, own: Tensor, gray: bool = False) -> tuple[Tensor, float]:
    """Denoise with non-local means or total variation from scikit-image.

    Args:
        method: ``"non-local means"`` or ``"total variation"``.
        noisy: (N, C, H, W) float about [0, 1].
        sigma: σ in 8-bit units.
        own: (M, C, H, W) noisy training images, for the choice of the free factor.
        gray: All channels are equal; one is worked on.

    Returns:
        (N, C, H, W) float, and the factor that was chosen.
    """
    channels = 1 if gray else noisy.shape[1]
    function = partial(_FILTERS[method], sigma=sigma / 255)
    probe = _mosaic(own[:16, :channels], 0)
    options = {"factor": list(FACTORS[method])}
    _, (tried, losses) = calibrate_denoiser(
        probe, function, options, stride=3, approximate_loss=True, extra_output=True
    )
    factor = float(tried[int(np.argmin(losses))]["factor"])
    images = noisy[:, :channels].permute(0, 2, 3, 1).double().numpy()
    out = np.stack([function(image, factor) for image in images])  # scikit-image takes one image at a time
    return torch.from_numpy(out).permute(0, 3, 1, 2).float().expand(noisy.shape), factor


def bm3d_available() -> bool:
    """Tell whether the package bm3d is installed; its licence allows non-commercial use only, so it is an extra."""
    return importlib.util.find_spec("bm3d") is not None


def bm3d(noisy: Tensor, sigma: float, gray: bool = False) -> Tensor:
    """Denoise with the package bm3d, all images in one mosaic.

    A call takes seconds, whatever the image's size. In a mosaic, mirrored at each picture's border, blocks may also be
    matched with the neighbouring pictures of the same dataset: if anything, that is to BM3D's advantage.

    Args:
        noisy: (N, C, H, W) float about [0, 1].
        sigma: σ in 8-bit units.
        gray: All channels are equal; one is worked on.

    Returns:
        (N, C, H, W) float.

    Raises:
        PudNetError: If the package is missing.
    """
    if not bm3d_available():
        raise PudNetError("The package bm3d is not installed. pip install 'pudnet-kit[denoise]' (non-commercial use).")
    import bm3d as package

    n, channels, height, width = noisy.shape
    picture = _mosaic(noisy[:, : 1 if gray else channels], PAD)
    function = package.bm3d_rgb if picture.shape[2] == 3 else package.bm3d
    out = np.asarray(function(picture if picture.shape[2] == 3 else picture[..., 0], sigma / 255))
    tiles = torch.from_numpy(np.atleast_3d(out)).float().permute(2, 0, 1)
    tiles = tiles.unfold(1, height + 2 * PAD, height + 2 * PAD).unfold(2, width + 2 * PAD, width + 2 * PAD)
    tiles = tiles.permute(1, 2, 0, 3, 4).flatten(0, 1)[:n]
    return tiles[..., PAD : PAD + height, PAD : PAD + width].expand(noisy.shape)


def _mosaic(images: Tensor, pad: int) -> np.ndarray:
    """Lay images (N, C, H, W) out as one picture (rows, columns, C); the last row is filled up with the first ones."""
    padded = torch.nn.functional.pad(images, (pad, pad, pad, pad), mode="reflect") if pad else images
    n, channels, height, width = padded.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    index = torch.arange(rows * columns) % n
    grid = padded[index].view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    return grid.reshape(rows * height, columns * width, channels).double().numpy()


@dataclass(frozen=True)
class Noise2VoidConfig:
    """Noise2Void from scratch on one dataset's noisy images.

    Attributes:
        target: The U-Net.
        budgets: Steps after which the network is measured, ascending.
        batch: Images a step.
        learning_rate: Adam's peak; falls to zero along a cosine over the longest budget.
        seed: Seed of weights, batches and masks.
    """

    target: TargetConfig = field(default_factory=lambda: TargetConfig("unet", 12))
    budgets: tuple[int, ...] = (25, 100, 400)
    batch: int = 32
    learning_rate: float = 2e-3
    seed: int = 0


class _Batches:
    """Batches of one dataset's fixed noisy images, as groups: what the meta-trainer asks of a sampler."""

    def __init__(self, noisy: Tensor, sigma: float, config: Noise2VoidConfig) -> None:
        self.noisy, self.sigma, self.batch, self.seed = noisy, sigma, config.batch, config.seed
        self.config, self.weights, self.num_classes = NoisyGroupConfig(), np.ones(1), 0
        self.pool: tuple[Any, ...] = ()

    def images_and_classes(self) -> dict[str, list[object]]:
        """No classes here; see ``GroupSampler.images_and_classes``."""
        return {}

    def group(self, index: int) -> NoisyGroup:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        images = self.noisy[torch.randint(len(self.noisy), (self.batch,), generator=generator)]
        return noisy_group("own", self.sigma, images[:1], images, None, generator)


def noise2void(
    noisy: Tensor, sigma: float, config: Noise2VoidConfig | None = None, predict: DenoiserConfig | None = None
) -> list[tuple[int, float, Denoiser]]:
    """Train a U-Net from scratch on noisy images, through the kit's own trainer (a shared network with one dataset).

    Args:
        noisy: (N, C, H, W) float, each image with one fixed noise: nobody has more.
        sigma: σ in 8-bit units; only scales the loss.
        config: How.
        predict: How batch norm's statistics are recalibrated; as for predicted networks.

    Returns:
        For each budget: steps, training seconds, and the denoiser. One run a budget, each with a whole schedule.
    """
    config = config or Noise2VoidConfig()
    trained = []
    for steps in _ascending(config.budgets):
        model = SharedNetwork(SharedConfig(config.target, config.seed))
        meta = MetaConfig(steps=steps, learning_rate=config.learning_rate, validate_every=0, clip_norm=1.0)
        meta = replace(meta, beta1=0.9, accelerator="cpu" if noisy.device.type == "cpu" else "auto")
        sampler: Any = _Batches(noisy, sigma, config)
        result = meta_train(model, sampler, meta, progress=False, step_module=DenoisingStep(model))
        trained.append((steps, result.seconds, predict_denoiser(model.eval(), noisy, predict)))
    return trained


def _ascending(budgets: Sequence[int]) -> list[int]:
    if not budgets or min(budgets) < 1:
        raise PudNetError(f"Noise2VoidConfig.budgets is {tuple(budgets)}; expected at least one step each.")
    return sorted(set(budgets))
