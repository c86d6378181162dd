"""Denoising: U-Nets predicted from noisy images, beside filters, Noise2Void from scratch, a shared U-Net and the swaps.

Paper: the denoising experiment [code]: σ = 25, 50, 75, PSNR and SSIM. Deviations: images that a machine has without a
download; the faults of the released code are put right (docs of ``pudnet_lib.denoising``). Every method denoises the
same noisy images; intervals are over images (patches of one photograph are not independent: read those as narrow).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pudnet_lib.denoising import add_noise, is_gray, predict_denoiser
from pudnet_lib.denoising.metrics import scores
from pudnet_lib.denoising.models import Predictor, load_predictors
from pudnet_lib.denoising.predict import DenoiserConfig
from pudnet_lib.denoising.rivals import Noise2VoidConfig, bm3d, bm3d_available, classic, noise2void
from pudnet_lib.denoising.sources import PHOTOGRAPHS, TEXTURES, Source, load_source
from pudnet_lib.denoising.train import DenoiserTrainConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluation import Interval, interval

TITLE = "Denoising: predicted U-Nets"
QUESTION = "Does a U-Net predicted from a dataset's noisy images clean them, and does the dataset matter?"
CLASSIC = ("non-local means", "total variation")
#: Methods of the figure by source.
MAIN = ("PudNet", "shared network", "PudNet, far swap", "non-local means", "total variation", "noisy")


@dataclass(frozen=True)
class Config:
    """The denoising experiment's configuration.

    Attributes:
        sources: Names or image folders to evaluate on: unseen classes, held-out photographs.
        sigmas: Noise levels, in 8-bit units.
        images: Test images a source.
        own_images: The dataset's noisy images: sketch, batch-norm statistics, and training set of Noise2Void.
        bm3d_images: Test images that BM3D denoises (it is slow); 0 leaves it out.
        scratch_sigmas: Noise levels at which Noise2Void is trained from scratch.
        scratch: Noise2Void from scratch.
        predict: How networks are predicted.
        train: Meta-train so instead of taking the predictors that come with the kit; None takes those.
        seed: Seed of the draws of images and of all noise.
    """

    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs", PHOTOGRAPHS, TEXTURES)
    sigmas: tuple[float, ...] = (25.0, 50.0, 75.0)
    images: int = 100
    own_images: int = 512
    bm3d_images: int = 25
    scratch_sigmas: tuple[float, ...] = (25.0,)
    scratch: Noise2VoidConfig = field(default_factory=Noise2VoidConfig)
    predict: DenoiserConfig = field(default_factory=DenoiserConfig)
    train: DenoiserTrainConfig | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 2 or self.own_images < 2:
            raise PudNetError(f"Config: images ({self.images}) and own_images ({self.own_images}) must be at least 2.")


PROFILES = {
    "smoke": Config(
        sources=("emoji", TEXTURES),
        sigmas=(25.0,),
        images=6,
        own_images=32,
        bm3d_images=0,
        scratch=Noise2VoidConfig(budgets=(2, 4), batch=8),
    ),
    "laptop": Config(),
    "paper": Config(
        sources=("cifar10", "cifar100", "dtd", "fashion", "emoji", "glyphs", PHOTOGRAPHS, TEXTURES),
        images=1000,
        own_images=5000,
        bm3d_images=1000,
        scratch_sigmas=(25.0, 50.0, 75.0),
        scratch=Noise2VoidConfig(budgets=(100, 1000, 10000)),
        train=DenoiserTrainConfig(sources=("tiny-imagenet", PHOTOGRAPHS, TEXTURES)),
    ),
}


@dataclass(frozen=True)
class Case:
    """One source at one noise level: what every method gets.

    Attributes:
        dataset: The source's name.
        sigma: The noise level, in 8-bit units.
        gray: Gray pictures: all channels have the same noise.
        own: (M, C, H, W) float, the dataset's noisy images.
        noisy: (N, C, H, W) float, the noisy test images.
        clean: (N, C, H, W) uint8, for the metrics only.
        sketches: Sketches (S, C, H, W) of the controls: "far swap", "near swap", "other noise level".
    """

    dataset: str
    sigma: float
    gray: bool
    own: Tensor
    noisy: Tensor
    clean: Tensor
    sketches: dict[str, Tensor]


def cases(config: Config) -> Iterator[Case]:
    """Make all cases; noise and draws depend on the seed, the source and the noise level alone."""
    channels = 3
    sources = [load_source(name, config.predict.patch, channels) for name in config.sources]
    for index in range(len(sources)):
        for sigma in config.sigmas:
            yield _case(sources, index, sigma, config)


def _case(sources: Sequence[Source], index: int, sigma: float, config: Config) -> Case:
    source, far = sources[index], sources[(index + 1) % len(sources)]
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + index * 1009 + round(sigma))

    def drawn(images: Tensor, count: int, level: float = sigma) -> tuple[Tensor, Tensor]:
        some = images[torch.randperm(len(images), generator=generator)[:count]]
        return some, add_noise(some, level, generator, is_gray(images))

    _, own = drawn(source.own.images, config.own_images)
    clean, noisy = drawn(source.test.images, config.images)
    count = config.predict.sketch_images
    other = max(config.sigmas, key=lambda level: abs(level - sigma)) if len(config.sigmas) > 1 else 3 * sigma
    sketches = {"near swap": drawn(source.meta.images, count)[1]}
    if len(sources) > 1:
        sketches["far swap"] = drawn(far.own.images, count)[1]
    sketches["other noise level"] = drawn(source.own.images, count, other)[1]
    return Case(source.name, sigma, is_gray(source.own.images), own, noisy, clean, sketches)


#: Method → estimates, seconds to get the method, meta-training seconds.
Estimates = dict[str, tuple[Tensor, float, float]]


def network_estimates(case: Case, predictors: Sequence[Predictor], config: Config) -> Estimates:
    """Denoise with predicted networks, their controls, and the transductive way (the sketch is the test batch)."""
    found: Estimates = {}
    for predictor in predictors:
        sketches: dict[str, Tensor | None] = {"": None}
        if predictor.controls:
            sketches |= {f", {name}": sketch for name, sketch in case.sketches.items()}
            sketches[", sketch from the test batch (transductive)"] = case.noisy[: config.predict.sketch_images]
        for suffix, sketch in sketches.items():
            network = predict_denoiser(predictor.model, case.own, config.predict, sketch)
            seconds = sum(network.seconds.values())
            found[f"{predictor.name}{suffix}"] = network(case.noisy), seconds, predictor.seconds
    return found


def rival_estimates(case: Case, config: Config) -> Estimates:
    """Denoise with the filters (seconds: denoising with calibration) and Noise2Void (seconds: of training)."""
    found: Estimates = {}

    def timed(name: str, call: Callable[[], Tensor]) -> None:
        began = time.perf_counter()
        found[name] = call(), time.perf_counter() - began, 0.0

    for name in CLASSIC:
        timed(name, lambda name=name: classic(name, case.noisy, case.sigma, case.own, case.gray)[0])  # type: ignore[misc]
    if config.bm3d_images and bm3d_available():
        timed("BM3D", lambda: bm3d(case.noisy[: config.bm3d_images], case.sigma, case.gray))
    if case.sigma in config.scratch_sigmas:
        setup = replace(config.scratch, seed=config.seed)
        for steps, seconds, network in noise2void(case.own, case.sigma, setup, config.predict):
            found[f"Noise2Void from scratch, {steps} steps"] = network(case.noisy), seconds, 0.0
    return found


def run(config: Config) -> pd.DataFrame:
    """Denoise all sources at all noise levels with all methods.

    Args:
        config: What to run.

    Returns:
        Long form, a row an image: method, dataset, sigma, image, seed, metric (PSNR in dB, SSIM), value,
        prediction_seconds (until the method can be used; for filters, of the denoising itself) and
        meta_training_seconds.
    """
    predictors = load_predictors(config.train)
    tables = []
    for case in cases(config):
        estimates: Estimates = {"noisy": (case.noisy, 0.0, 0.0)}
        estimates |= network_estimates(case, predictors, config) | rival_estimates(case, config)
        tables += [_rows(method, case, config, *found) for method, found in estimates.items()]
    return pd.concat(tables, ignore_index=True)


def _rows(method: str, case: Case, config: Config, estimate: Tensor, seconds: float, meta: float) -> pd.DataFrame:
    measured = scores(estimate, case.clean[: len(estimate)])
    parts = [
        pd.DataFrame({"metric": name, "image": np.arange(len(values)), "value": values.double().numpy()})
        for name, values in measured.items()
    ]
    facts: dict[str, Any] = {"method": method, "dataset": case.dataset, "sigma": case.sigma, "seed": config.seed}
    facts |= {"prediction_seconds": seconds, "meta_training_seconds": meta}
    return pd.concat(parts, ignore_index=True).assign(**facts)


def pictures(config: Config, count: int = 4) -> dict[str, Tensor]:
    """Clean a few test images of the first source at the lowest noise level, for a look.

    Args:
        config: The experiment's configuration.
        count: How many images.

    Returns:
        Title → (count, C, H, W) floating point: noisy, the predicted network's, the rivals', clean.
    """
    predictors = load_predictors(config.train)
    case = next(cases(replace(config, sources=config.sources[:2], sigmas=(min(config.sigmas),))))
    shown = {"noisy": case.noisy[:count]}
    for predictor in predictors:
        shown[predictor.name] = predict_denoiser(predictor.model, case.own, config.predict)(case.noisy[:count])
    for name in CLASSIC:
        shown[name] = classic(name, case.noisy[:count], case.sigma, case.own, case.gray)[0]
    return shown | {"clean": case.clean[:count] / 255}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over images of each method, source, noise level and metric.

    Args:
        table: From ``run``.

    Returns:
        One row each: method, dataset, sigma, metric, mean, low, high, n, seeds, prediction_seconds and
        meta_training_seconds.
    """
    rows = []
    for (method, dataset, sigma, metric), part in table.groupby(["method", "dataset", "sigma", "metric"], sort=False):
        found = interval(part["value"].to_numpy())
        row = {"method": method, "dataset": dataset, "sigma": sigma, "metric": metric} | vars(found)
        seconds = {name: float(part[name].mean()) for name in ("prediction_seconds", "meta_training_seconds")}
        rows.append(row | seconds)
    return pd.DataFrame(rows)


def gain(table: pd.DataFrame, over: str, sigma: float, method: str = "PudNet", metric: str = "PSNR") -> Interval:
    """Paired difference between two methods on the same images, all sources together.

    Args:
        table: From ``run``.
        over: The method that is subtracted.
        sigma: The noise level.
        method: The other method.
        metric: ``"PSNR"`` (dB) or ``"SSIM"``.

    Returns:
        Mean and 95 % interval over images that both have.

    Raises:
        PudNetError: If one of them was not measured at this level.
    """
    rows = table[(table["sigma"] == sigma) & (table["metric"] == metric) & table["method"].isin([method, over])]
    wide = rows.pivot(index=["dataset", "image"], columns="method", values="value").dropna()
    if method not in wide or over not in wide or len(wide) < 2:
        raise PudNetError(f"No images with both {method!r} and {over!r} at σ = {sigma:g}.")
    return interval((wide[method] - wide[over]).to_numpy())


def answer(table: pd.DataFrame) -> str:
    """One sentence made from the numbers."""
    sigma = float(table["sigma"].min())
    rows = table[table["sigma"] == sigma]
    known = set(rows["method"])
    said = []
    names = {"noisy": "the noisy input", "shared network": "a shared U-Net", "PudNet, far swap": "a far swapped sketch"}
    names |= {"PudNet, near swap": "a near swapped sketch", "BM3D": "BM3D", "total variation": "total variation"}
    names |= {"non-local means": "non-local means"}
    for method, words in names.items():
        if method in known:
            found = gain(table, method, sigma)
            said.append(f"{found.mean:+.2f} [{found.low:.2f}, {found.high:.2f}] dB over {words} (n = {found.n})")
    return f"At σ = {sigma:g} a predicted U-Net has {'; '.join(said)}."
