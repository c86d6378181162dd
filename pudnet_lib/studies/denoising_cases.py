"""The cases of the denoising experiment: one source at one noise level, and every method's estimate of its images.

Our choice. Every method denoises the same noisy images; the sketch is a draw from other noisy images of the dataset,
except in the row that copies the released code (transductive: the sketch is the test batch itself).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pudnet_lib.denoise import add_noise, is_gray, predict_denoiser
from pudnet_lib.denoise.models import Predictor
from pudnet_lib.denoise.predict import DenoiserConfig
from pudnet_lib.denoise.rivals import Noise2VoidConfig, best_factor, bm3d, bm3d_available, classic, noise2void
from pudnet_lib.denoise.sources import Source

NOISY, PUDNET, SHARED, BM3D = "noisy input", "PudNet", "shared network", "BM3D"
TRANSDUCTIVE = f"{PUDNET}, sketch from the test batch [code]"
CLASSIC = ("non-local means", "total variation")


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
        tuning: (T, C, H, W) uint8, clean images of the training classes, for the filters' factors.
        sketches: Sketches (S, C, H, W) of the controls: "far swap", "near swap", "other noise level".
    """

    dataset: str
    sigma: float
    gray: bool
    own: Tensor
    noisy: Tensor
    clean: Tensor
    tuning: Tensor
    sketches: dict[str, Tensor]


class Estimate(NamedTuple):
    """What a method makes of a case's images.

    Attributes:
        images: (N, C, H, W) float; fewer where the method is slow.
        prepared: Seconds until the method can be used: prediction, or training; 0 for a filter.
        cleaned: Seconds to clean these images.
        meta: Seconds of meta-training.
    """

    images: Tensor
    prepared: float
    cleaned: float
    meta: float = 0.0


def build_case(
    sources: Sequence[Source], index: int, sigma: float, other: float, own: int, test: int, sketch: int, seed: int
) -> Case:
    """Draw images and noise; they depend on the seed, the source and the noise level alone.

    Args:
        sources: All sources; the one after ``index`` gives the far swap.
        index: Which of them.
        sigma: The noise level, in 8-bit units.
        other: The noise level of the sketch that is wrong in nothing else.
        own: Noisy images of the dataset.
        test: Images to denoise.
        sketch: Images of a swapped sketch.
        seed: Seed.

    Returns:
        The case.
    """
    source, far = sources[index], sources[(index + 1) % len(sources)]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index * 1009 + round(sigma))

    def drawn(images: Tensor, count: int, level: float = sigma) -> tuple[Tensor, Tensor]:
        some = images[torch.randperm(len(images), generator=generator)[:count]]
        return some, add_noise(some, level, generator, is_gray(images))

    _, own_noisy = drawn(source.own.images, own)
    clean, noisy = drawn(source.test.images, test)
    tuning, near = drawn(source.meta.images, sketch)
    sketches = {"near swap": near}
    if len(sources) > 1:
        sketches["far swap"] = drawn(far.own.images, sketch)[1]
    sketches["other noise level"] = drawn(source.own.images, sketch, other)[1]
    gray = is_gray(source.own.images)
    return Case(source.name, sigma, gray, own_noisy, noisy, clean, tuning, sketches)


def timed(call: Callable[[], Tensor], prepared: float = 0.0, meta: float = 0.0) -> Estimate:
    """Take the time of a call."""
    began = time.perf_counter()
    images = call()
    return Estimate(images, prepared, time.perf_counter() - began, meta)


def network_estimates(case: Case, predictors: Sequence[Predictor], predict: DenoiserConfig) -> dict[str, Estimate]:
    """Denoise with predicted networks, the swap controls, and the released code's transductive sketch."""
    found: dict[str, Estimate] = {}
    for predictor in predictors:
        sketches: dict[str, Tensor | None] = {predictor.name: None}
        if predictor.controls:
            sketches |= {f"{predictor.name}, {name}": sketch for name, sketch in case.sketches.items()}
            sketches[TRANSDUCTIVE] = case.noisy[: predict.sketch_images]
        for name, sketch in sketches.items():
            network = predict_denoiser(predictor.model, case.own, predict, sketch)
            seconds = sum(network.seconds.values())
            found[name] = timed(lambda network=network: network(case.noisy), seconds, predictor.seconds)  # type: ignore[misc]
    return found


def filter_estimates(case: Case, bm3d_images: int) -> dict[str, Estimate]:
    """Denoise with non-local means, total variation and, on the first images, BM3D; all are told σ."""
    found: dict[str, Estimate] = {}
    for name in CLASSIC:
        factor = best_factor(name, case.tuning, case.sigma, case.gray)
        found[name] = timed(lambda n=name, f=factor: classic(n, case.noisy, case.sigma, f, case.gray))  # type: ignore[misc]
    if bm3d_images and bm3d_available():
        found[BM3D] = timed(lambda: bm3d(case.noisy[:bm3d_images], case.sigma, case.gray))
    return found


def trained_estimates(
    case: Case, predictor: Predictor, config: Noise2VoidConfig, predict: DenoiserConfig, seed: int
) -> dict[str, Estimate]:
    """Denoise with Noise2Void on the dataset's own noisy images: from scratch, and from the predicted network."""
    found: dict[str, Estimate] = {}
    setup = replace(config, seed=seed)
    for steps, seconds, network in noise2void(case.own, case.sigma, setup):
        name = f"Noise2Void from scratch, {steps} steps"
        found[name] = timed(lambda network=network: network(case.noisy), seconds)  # type: ignore[misc]
    start = predict_denoiser(predictor.model, case.own, predict)
    before = sum(start.seconds.values())
    for steps, seconds, network in noise2void(case.own, case.sigma, setup, start):
        name = f"{predictor.name} fine-tuned by Noise2Void, {steps} steps"
        call = lambda network=network: network(case.noisy)  # noqa: E731
        found[name] = timed(call, before + seconds, predictor.seconds)
    return found
