"""Denoising: U-Nets predicted from noisy images, beside filters, Noise2Void from scratch, a shared U-Net and the swaps.

Paper: the denoising experiment [code]: σ = 25, 50, 75, PSNR and SSIM. Deviations: images that a machine has without a
download; the faults of the released code are put right (see ``pudnet_lib.denoise``). The main PudNet is meta-trained
with clean images (supervised); the paper's Noise2Void meta-training [code] stands beside it. Intervals are over images,
of one meta-training run; patches of one photograph are not independent, so read those as narrow.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pudnet_lib.denoise.metrics import scores
from pudnet_lib.denoise.models import Predictor, load_predictors
from pudnet_lib.denoise.predict import DenoiserConfig
from pudnet_lib.denoise.rivals import Noise2VoidConfig
from pudnet_lib.denoise.sources import PHOTOGRAPHS, TEXTURES, Source, load_source
from pudnet_lib.denoise.train import DenoiserTrainConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.packs import pack_names
from pudnet_lib.parallel import parallel
from pudnet_lib.studies.denoising_cases import (
    NOISY,
    Case,
    Estimate,
    build_case,
    filter_estimates,
    network_estimates,
    trained_estimates,
)
from pudnet_lib.studies.denoising_tables import ALL, answer, gain, gains, headline, rows_to_publish, summary

__all__ = [
    "ALL",
    "PROFILES",
    "QUESTION",
    "TITLE",
    "Config",
    "answer",
    "gain",
    "gains",
    "headline",
    "pictures",
    "rows_to_publish",
    "run",
    "summary",
]

TITLE = "Denoising: predicted U-Nets"
QUESTION = "Does a U-Net predicted from a dataset's noisy images clean them, and does the dataset matter?"


@dataclass(frozen=True)
class Config:
    """The denoising experiment's configuration.

    Attributes:
        sources: Names or image folders to evaluate on: unseen classes, held-out photographs.
        sigmas: Noise levels, in 8-bit units.
        images: Test images a source.
        own_images: The dataset's noisy images: sketch, and training set of Noise2Void.
        bm3d_images: Test images that BM3D denoises (it is slow); 0 leaves it out.
        trained_sigmas: Noise levels at which Noise2Void is trained, from scratch and from the prediction.
        noise2void: How.
        predict: How networks are predicted.
        meta_train: Meta-train instead of taking the predictors that come with the kit.
        train: How to meta-train then; ``train.episodes.loss`` is "blind_spot" [code] or "supervised".
        jobs: Cases side by side.
        seed: Seed of the draws of images and of all noise.
    """

    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs", PHOTOGRAPHS, TEXTURES)
    sigmas: tuple[float, ...] = (25.0, 50.0, 75.0)
    images: int = 100
    own_images: int = 512
    bm3d_images: int = 20
    trained_sigmas: tuple[float, ...] = (25.0,)
    noise2void: Noise2VoidConfig = field(default_factory=Noise2VoidConfig)
    predict: DenoiserConfig = field(default_factory=DenoiserConfig)
    meta_train: bool = False
    train: DenoiserTrainConfig = field(default_factory=DenoiserTrainConfig)
    jobs: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 2 or self.own_images < 2:
            raise PudNetError(f"Config: images ({self.images}) and own_images ({self.own_images}) must be at least 2.")
        if not self.sources or not self.sigmas:
            raise PudNetError("Config: sources and sigmas must name at least one each.")


PROFILES = {
    "smoke": Config(
        sources=("emoji", TEXTURES), sigmas=(25.0,), images=6, own_images=32, bm3d_images=0,
        noise2void=Noise2VoidConfig(budgets=(2, 4), batch=8, tuned_budgets=(2,)), jobs=1,
    ),
    "laptop": Config(),
    "paper": Config(
        sources=("cifar10", "cifar100", "dtd", "fashion", "emoji", "glyphs", PHOTOGRAPHS, TEXTURES),
        images=1000, own_images=5000, bm3d_images=200, trained_sigmas=(25.0, 50.0, 75.0),
        noise2void=Noise2VoidConfig(budgets=(100, 1000, 10000), tuned_budgets=(100, 1000)),
        meta_train=True, train=DenoiserTrainConfig(sources=("tiny-imagenet", PHOTOGRAPHS, TEXTURES)), jobs=1,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One case: a source's index and a noise level."""

    config: Config
    source: int
    sigma: float


@lru_cache(maxsize=16)
def _source(name: str, patch: int) -> Source:
    return load_source(name, patch, channels=3)


@lru_cache(maxsize=2)
def _predictors(train: DenoiserTrainConfig | None) -> list[Predictor]:
    return load_predictors(train)


def case_of(job: Job, shown: bool = False) -> Case:
    """Draw a job's images and noise; for pictures to be shown, from the cat alone of the photographs (it is CC0)."""
    config = job.config
    sources = [_source(name, config.predict.patch) for name in config.sources]
    if shown and sources[job.source].name == PHOTOGRAPHS:
        source = sources[job.source]
        cat = source.test.select_classes((source.test.class_names.index("cat"),))
        sources[job.source] = replace(source, test=cat)
    other = max(config.sigmas, key=lambda level: abs(level - job.sigma))
    other = other if other != job.sigma else 3 * job.sigma
    counts = config.own_images, config.images, config.predict.sketch_images
    return build_case(sources, job.source, job.sigma, other, *counts, config.seed)


def estimates(job: Job, shown: bool = False) -> tuple[Case, dict[str, Estimate]]:
    """Let all methods denoise a job's images; see ``case_of``."""
    config, case = job.config, case_of(job, shown)
    predictors = _predictors(config.train if config.meta_train else None)
    found = {NOISY: Estimate(case.noisy, 0.0, 0.0)} | network_estimates(case, predictors, config.predict)
    if case.sigma in config.trained_sigmas:
        found |= trained_estimates(case, predictors[0], config.noise2void, config.predict, config.seed)
    return case, found | filter_estimates(case, config.bm3d_images)


def evaluate(job: Job) -> pd.DataFrame:
    """Measure all methods on a job's images; a row an image and metric."""
    case, found = estimates(job)
    tables = []
    for method, estimate in found.items():
        facts: dict[str, Any] = {"method": method, "dataset": case.dataset, "sigma": case.sigma}
        facts |= {"seed": job.config.seed, "prediction_seconds": estimate.prepared}
        facts |= {"seconds_per_100": 100 * estimate.cleaned / len(estimate.images)}
        facts |= {"meta_training_seconds": estimate.meta or np.nan}
        measured = scores(estimate.images, case.clean[: len(estimate.images)])
        for name, values in measured.items():
            numbers = {"image": np.arange(len(values)), "value": values.double().numpy()}
            tables.append(pd.DataFrame(numbers).assign(metric=name, **facts))
    return pd.concat(tables, ignore_index=True)


def run(config: Config) -> pd.DataFrame:
    """Denoise all sources at all noise levels with all methods.

    Args:
        config: What to run.

    Returns:
        Long form, a row an image: method, dataset, sigma, image, seed, metric (PSNR in dB, SSIM), value,
        prediction_seconds (until the method can be used), seconds_per_100 (to clean 100 images) and
        meta_training_seconds.
    """
    if config.meta_train:  # once, in this process
        config = replace(config, jobs=1)
    jobs = [Job(config, index, sigma) for index in range(len(config.sources)) for sigma in config.sigmas]
    return pd.concat(parallel(evaluate, jobs, config.jobs, "denoising"), ignore_index=True)


def pictures(config: Config, sigma: float | None = None) -> dict[str, Tensor]:
    """Clean one test image of each source whose images may be shown, for a look.

    Args:
        config: The experiment's configuration.
        sigma: The noise level; by default the lowest.

    Returns:
        Title → (sources, C, H, W) floating point: noisy, the predicted networks', the rivals', clean.
    """
    sigma = min(config.sigmas) if sigma is None else sigma
    indices = [i for i, name in enumerate(config.sources) if name in (*pack_names(), PHOTOGRAPHS, TEXTURES)]
    few = replace(config, images=2, bm3d_images=min(2, config.bm3d_images), trained_sigmas=())
    columns: dict[str, list[Tensor]] = {}
    for index in indices:
        case, found = estimates(Job(few, index, sigma), shown=True)
        for method, estimate in (found | {"clean": Estimate(case.clean / 255, 0, 0)}).items():
            columns.setdefault(method, []).append(estimate.images[0])
    return {method: torch.stack(images) for method, images in columns.items()}
