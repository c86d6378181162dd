"""Can the trust report be believed? Its estimate, distance and advice on unseen sources, beside the truth.

Our choice; the paper has no counterpart. On episodes of a source that meta-training never saw, each with few or many
images a class, the report is made from the training images alone; then the network classifies new test images. On the
first episodes it is also fine-tuned, and the same network trained from scratch, to see whether the advice was right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pudnet_lib.core import ParameterModel
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import Episode, EpisodeConfig, EpisodeSampler
from pudnet_lib.core.predict import predict
from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import Interval, episode_dataset, interval
from pudnet_lib.methods.contenders import CONDITIONED as DESIGNS
from pudnet_lib.methods.from_scratch import ScratchFit
from pudnet_lib.methods.measuring import Protocol, fine_tuned
from pudnet_lib.trust import TrustConfig, trust_report

__all__ = ["DESIGNS", "TrustStudy", "advice_table", "bias", "calibrate", "calibration_error", "coverage", "reliability"]


@dataclass(frozen=True)
class TrustStudy:
    """How the trust report is calibrated.

    Attributes:
        sizes: Training images a class, one after the other; a source with fewer gives what it has.
        episodes: Episodes a source and size.
        fit_episodes: The first so many of them are also fine-tuned and trained from scratch.
        fit_epochs: For so many epochs.
        query_per_class: Test images a class for the true accuracy.
    """

    sizes: tuple[int, ...] = (5, 20, 100)
    episodes: int = 3
    fit_episodes: int = 2
    fit_epochs: int = 10
    query_per_class: int = 40

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 2 or self.episodes < 1:
            raise PudNetError(
                f"{self}: sizes must be at least 2 images a class (one is left out), episodes at least 1."
            )


def calibrate(
    model: ParameterModel,
    train: ImageDataset,
    test: ImageDataset,
    pool: Sequence[ImageDataset],
    study: TrustStudy,
    ways: int = 5,
    seed: int = 0,
    accelerator: str = "cpu",
    fits: bool = True,
) -> pd.DataFrame:
    """Make trust reports for episodes of an unseen source, and measure what they estimate.

    Args:
        model: The predictor.
        train: The unseen source's training images.
        test: Its test images.
        pool: The training classes of the sources that the predictor was meta-trained on.
        study: How many episodes of which size.
        ways: K, classes an episode.
        seed: Seed of the episodes and of training.
        accelerator: Lightning Fabric's.
        fits: Fine-tune and train from scratch as well.

    Returns:
        One row an episode and size: dataset, episode, per_class (asked for), images_per_class (median there is),
        estimate, low, high, accuracy (the truth, as the others in %), test_images, chance, pixels, distance, nearest,
        advice, and fine_tuned and scratch (the truth of these, NaN where not measured).
    """
    rows: list[dict[str, Any]] = []
    for size in study.sizes:
        drawn = EpisodeConfig(ways, max(1, size // 2), size - max(1, size // 2), study.query_per_class)
        sampler = EpisodeSampler([train], drawn, seed + 4_000_037, query_pool=[test])
        for index in range(study.episodes):
            episode = sampler.episode(index)
            data = episode_dataset(episode, train)
            network = predict(model, data)
            report = trust_report(network, data, model, TrustConfig(seed=seed), tuple(pool))
            rows.append({
                "dataset": train.name, "episode": index, "per_class": size, "images_per_class": report.images_per_class,
                "estimate": report.accuracy, "low": report.low, "high": report.high,
                "accuracy": _accuracy(network, episode), "test_images": len(episode.query), "chance": report.chance,
                "pixels": report.pixel_accuracy, "distance": report.distance, "nearest": report.nearest,
                "advice": report.advice, "fine_tuned": np.nan, "scratch": np.nan,
            })  # fmt: skip
            if fits and index < study.fit_episodes:
                for name, fit in _fits(model, study.fit_epochs, seed, accelerator).items():
                    rows[-1][name] = _accuracy(fit(data), episode)
    return pd.DataFrame(rows)


def _fits(
    model: ParameterModel, epochs: int, seed: int, accelerator: str
) -> dict[str, Callable[[ImageDataset], nn.Module]]:
    tuning = Protocol(2, 2, (), (), epochs, accelerator, seed).tuning("fine-tuned")
    scratch = ScratchFit(model.config.target, "GC", epochs, seed=seed, accelerator=accelerator)
    return {"fine_tuned": lambda data: fine_tuned(model, tuning, data), "scratch": scratch}


def _accuracy(network: nn.Module, episode: Episode) -> float:
    device = next(network.parameters()).device
    with torch.no_grad():
        right = network(episode.query.to(device)).argmax(1).cpu() == episode.query_labels
    return 100 * float(right.float().mean())


def reliability(table: pd.DataFrame, bins: int = 6) -> pd.DataFrame:
    """Bin the reports by their estimate, as many reports a bin as the next.

    Args:
        table: From ``calibrate``.
        bins: At most so many.

    Returns:
        One row a bin: estimate (mean), accuracy (mean of the truth), low, high (95 % interval of that mean), n.
    """
    rows = []
    for _, part in table.groupby(_bins(table["estimate"].to_numpy(), bins)):
        found = interval(part["accuracy"].to_numpy()) if len(part) > 1 else Interval(np.nan, np.nan, np.nan, 1)
        rows.append({
            "estimate": part["estimate"].mean(), "accuracy": part["accuracy"].mean(), "low": found.low,
            "high": found.high, "n": len(part),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Number of the equally filled bin of each value."""
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    number: np.ndarray = rank * min(bins, len(values)) // len(values)
    return number


def calibration_error(table: pd.DataFrame, bins: int = 6, draws: int = 500, seed: int = 0) -> Interval:
    """Expected calibration error: mean distance of the bins' truth from their estimate, in points.

    Args:
        table: From ``calibrate``.
        bins: As for ``reliability``.
        draws: Bootstrap draws of whole episodes (all seeds and designs of an episode together).
        seed: Seed of the draws.

    Returns:
        The error with its 95 % bootstrap interval; it is never negative, and noise alone makes it positive.
    """

    def error(estimate: np.ndarray, truth: np.ndarray) -> float:
        number = _bins(estimate, bins)
        off = np.array([(truth - estimate)[number == b].mean() for b in np.unique(number)])
        return float(np.average(np.abs(off), weights=np.bincount(number)))

    values = table[["estimate", "accuracy"]].to_numpy()
    members = [np.asarray(ids) for ids in table.groupby(["dataset", "per_class", "episode"]).indices.values()]
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = values[np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])]
        found.append(error(drawn[:, 0], drawn[:, 1]))
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(error(values[:, 0], values[:, 1]), float(low), float(high), len(table))


def bias(table: pd.DataFrame) -> Interval:
    """Mean of the estimate minus the truth, in points, over episodes (the mean of all reports on an episode)."""
    off = (
        (table["estimate"] - table["accuracy"]).groupby([table[c] for c in ("dataset", "per_class", "episode")]).mean()
    )
    return interval(off.to_numpy())


def coverage(table: pd.DataFrame) -> float:
    """How often, in %, the report's 95 % interval holds the accuracy on test images (whose noise it does not count)."""
    return 100 * float(((table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])).mean())


def advice_table(table: pd.DataFrame, by: str = "advice") -> pd.DataFrame:
    """What fine-tuning and training from scratch gain over the prediction, by the advice that was given.

    Args:
        table: From ``calibrate``.
        by: Another column to episode by, such as per_class.

    Returns:
        One row a value of ``by``: n (episodes that were also trained), predicted, then fine-tuned and from scratch
        minus predicted in points, as text with 95 % intervals.
    """
    known = table.dropna(subset=["fine_tuned", "scratch"])
    rows = []
    for value, part in known.groupby(by, sort=by != "advice"):
        row: dict[str, Any] = {by: value, "n": len(part), "predicted": part["accuracy"].mean()}
        for name, column in (("fine-tuned − predicted", "fine_tuned"), ("from scratch − predicted", "scratch")):
            off = (part[column] - part["accuracy"]).to_numpy()
            row[name] = interval(off).signed() if len(off) > 1 else f"{off[0]:+.1f}"
        rows.append(row)
    return pd.DataFrame(rows)
