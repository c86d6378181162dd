"""What a predicted denoiser stands beside: BM3D, non-local means, total variation (all told σ), Noise2Void.

Paper: BM3D, non-local means, Noise2Void [rec]. Our choice: the libraries' own code (bm3d, scikit-image); the free
factor of non-local means and total variation is the best on *clean* images of the source's training classes, which is
to their advantage. Noise2Void may start from random or from predicted weights (fine-tuning).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle
from torch import Tensor

import pudnet_lib.runs  # noqa: F401  (its hooks register themselves)
from pudnet_lib.core.meta import MetaConfig, meta_train
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.denoise.episodes import DenoisingStep, NoisyEpisode, NoisyEpisodeConfig, noisy_episode
from pudnet_lib.denoise.noise import add_noise, to_unit
from pudnet_lib.denoise.predict import Denoiser, predict_denoiser
from pudnet_lib.errors import PudNetError, unknown_name

FACTORS = (0.4, 0.5, 0.6, 0.7, 0.85)  # a filter's strength in units of σ
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


FILTERS: dict[str, Callable[..., np.ndarray]] = {"non-local means": _nlm, "total variation": _tv}


def classic(method: str, noisy: Tensor, sigma: float, factor: float = 0.6, gray: bool = False) -> Tensor:
    """Denoise (N, C, H, W) floats with a filter of ``FILTERS``; σ in 8-bit units, its strength in units of σ."""
    if method not in FILTERS:
        raise unknown_name("filter", method, FILTERS)
    images = noisy[:, : 1 if gray else noisy.shape[1]].permute(0, 2, 3, 1).double().numpy()
    # scikit-image takes one image at a time
    out = np.stack([FILTERS[method](image, factor, sigma / 255) for image in images])
    return torch.from_numpy(out).permute(0, 3, 1, 2).float().expand(noisy.shape)


def best_factor(method: str, clean: Tensor, sigma: float, gray: bool = False, seed: int = 0) -> float:
    """Choose a filter's factor, one of ``FACTORS``, by the squared error on a few clean images (M, C, H, W)."""
    truth = to_unit(clean)
    noisy = add_noise(truth, sigma, torch.Generator().manual_seed(seed), gray)
    errors = {f: float((classic(method, noisy, sigma, f, gray) - truth).square().mean()) for f in FACTORS}
    return min(errors, key=errors.__getitem__)


def bm3d_available() -> bool:
    """Tell whether the package bm3d works here; its licence allows non-commercial use only, so it is an extra."""
    try:
        import bm3d  # noqa: F401
    except (ImportError, OSError):  # not installed; or its compiled part is for another processor
        return False
    return True


def bm3d(noisy: Tensor, sigma: float, gray: bool = False) -> Tensor:
    """Denoise with the package bm3d, all images in one mosaic."""
    if not bm3d_available():
        raise PudNetError(
            "The package bm3d is missing or does not load. pip install 'pudnet-kit[denoise]' (non-commercial use)."
        )
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


class _Batches:
    """Batches of one dataset's fixed noisy images, as episodes: what the meta-trainer asks of a sampler."""

    def __init__(self, noisy: Tensor, batch: int, seed: int) -> None:
        self.noisy, self.batch, self.seed = noisy, batch, seed
        self.config, self.weights, self.num_classes = NoisyEpisodeConfig(), np.ones(1), 0
        self.pool: tuple[Any, ...] = ()

    def images_and_classes(self) -> dict[str, list[object]]:
        return {}

    def episode(self, index: int) -> NoisyEpisode:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        images = self.noisy[torch.randint(len(self.noisy), (self.batch,), generator=generator)]
        return noisy_episode("own", 25.0, images[:1], images, None, generator)  # σ only shifts the loss, a logarithm


def noise2void(
    noisy: Tensor,
    steps: int,
    learning_rate: float,
    start: Denoiser | None = None,
    target: TargetConfig | None = None,
    batch: int = 24,
    seed: int = 0,
) -> tuple[Denoiser, float]:
    """Train a U-Net on noisy images alone, through the kit's own trainer (a shared network with one dataset)."""
    if steps < 1:
        raise PudNetError(f"noise2void: {steps} steps; expected at least one.")
    target = target or (start.target if start is not None else None) or TargetConfig("unet", 12)
    model = SharedNetwork(SharedConfig(target, seed))
    if start is not None:
        own = {n.replace("/", "."): t for part in (model.weights, model.shared) for n, t in part.items()}
        values = dict(start.backbone.named_parameters())
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in values.items()}:
            raise PudNetError(f"The denoiser to start from is no {target}; leave target out, or pass its own.")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(values[name])
    meta = MetaConfig(steps=steps, learning_rate=learning_rate, validate_every=0, clip_norm=1.0, beta1=0.9)
    meta = replace(meta, accelerator="cpu" if noisy.device.type == "cpu" else "auto")
    sampler: Any = _Batches(noisy, batch, seed)
    result = meta_train(model, sampler, meta, progress=False, step_module=DenoisingStep(model))
    return predict_denoiser(model.eval(), noisy, sketch=noisy[:1]), result.seconds
