"""Where a training on an episode may start: predicted, random, shared or pretrained parameters, and the controls.

Paper, Section 4.4 [rec]: θ̂ as initialisation against random and pretrained ones. Our choice: the shared network, the
far and near swaps and noise for symmetry breaking stand beside it, and the seconds that a start takes are on its clock.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, get_args

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pudnet_lib.core import ParameterModel
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import Episode, EpisodeConfig
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import PredictConfig, PredictedNetwork, predict
from pudnet_lib.core.supervised import ScratchConfig, ScratchResult, finetune, train_from_scratch
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.evaluate import Swapper, episode_dataset
from pudnet_lib.export.models import load_model
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods.trained import Optimiser
from pudnet_lib.shipped import load_shipped, shipped_notes

Start = Literal["predicted", "shared network", "random", "pretrained", "far swap", "near swap", "predicted with noise"]
Trainable = Literal["full", "probe"]


@dataclass(frozen=True)
class StartConfig:
    """What the starts are made of.

    Attributes:
        sources: The pool.
        predictor: A shipped PudNet's name, or a model file.
        shared: A shipped shared network's name, or a model file, of the same target.
        weights: A safetensors file with the target's tensors, for the start ``"pretrained"``; nothing is downloaded.
        noise: Share of each convolution's spread that ``"predicted with noise"`` adds, to break ties between filters.
        episode: What an episode holds.
        accelerator: Lightning Fabric's.
        seed: Seed of episodes and trainings.
    """

    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs")
    predictor: str = "pudnet"
    shared: str = "shared"
    weights: str = ""
    noise: float = 0.05
    episode: EpisodeConfig = field(default_factory=lambda: EpisodeConfig(4, 10, 10, 30))
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    seed: int = 0


@dataclass(frozen=True)
class Dataset:
    """An episode as a small dataset: what every method learns from, and its new images.

    Attributes:
        episode: The episode.
        train: Sketch and support.
        test: The query.
        index: The episode's number.
    """

    episode: Episode
    train: ImageDataset
    test: ImageDataset
    index: int


@lru_cache(maxsize=2)
def load_pool(sources: tuple[str, ...]) -> Pool:
    """Load the pool, once a process."""
    return Pool(PoolConfig(sources))


def load_dataset(config: StartConfig, source: int, index: int, validation: bool = False) -> Dataset:
    """Draw an episode of unseen classes, or of held-out training classes.

    Args:
        config: Which.
        source: Place of the source in the pool.
        index: Number of the episode.
        validation: Draw from the held-out training classes.

    Returns:
        The episode as a dataset.
    """
    pool = load_pool(config.sources)
    sampler = (pool.validation_episodes if validation else pool.unseen_episodes)(config.episode, config.seed)
    episode = sampler.episode(index, source)
    train = episode_dataset(episode, sampler.pool[source])
    return Dataset(
        episode, train, ImageDataset(episode.query, episode.query_labels, train.class_names, train.name), index
    )


@lru_cache(maxsize=8)
def load_predictor(name: str, accelerator: str = "cpu") -> tuple[ParameterModel, float]:
    """Load a shipped model or a model file.

    Args:
        name: Its name or path.
        accelerator: ``"cpu"``, or the GPU where there is one.

    Returns:
        The model, and its meta-training seconds (NaN if its notes do not say).
    """
    model, notes = load_model(name) if name.endswith(".safetensors") else (load_shipped(name), shipped_notes(name))
    device = "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    return model.to(device), float(notes.get("seconds", float("nan")))


def training(optimiser: Optimiser, trainable: Trainable, rate: float, config: ScratchConfig) -> ScratchConfig:
    """Fill in optimiser, what is trained and the learning rate; 0 takes the optimiser's own."""
    return replace(
        config,
        optimiser="adam" if optimiser == "Adam" else "sgd",
        gradient_centralization=optimiser == "GC",
        trainable=trainable,
        learning_rate=rate,
    )


def initial_network(start: Start, data: Dataset, config: StartConfig) -> tuple[PredictedNetwork, float]:
    """Make the network that a start gives before any training, its batch norm recalibrated and its head class means.

    Args:
        start: Any start but ``"pretrained"``.
        data: The episode.
        config: What the starts are made of.

    Returns:
        The network and the seconds that it took: the median of three, after one that is not counted.
    """
    model, _ = load_predictor(config.shared if start == "shared network" else config.predictor, config.accelerator)
    sketch = data.episode.given(PredictConfig().support(model))
    if start == "random":
        model = SharedNetwork(SharedConfig(model.config.target, config.seed + data.index)).to(model.device)
    elif start in ("far swap", "near swap"):
        swapper = Swapper(load_pool(config.sources).train, config.episode.sketch_per_class, config.seed)
        kind: Literal["far", "near"] = "far" if start == "far swap" else "near"
        sketch = swapper.sketch(data.episode, data.train.class_names, data.index, kind, PredictConfig().support(model))
    networks = [predict(model, data.train, sketch=sketch) for _ in range(4)]
    return networks[-1], statistics.median(sum(n.seconds.values()) for n in networks[1:])


def train_from(
    start: Start,
    data: Dataset,
    config: StartConfig,
    fit: ScratchConfig,
    made: tuple[PredictedNetwork, float] | None = None,
) -> tuple[ScratchResult, float]:
    """Train on an episode from a start; row 0 of the curve is the start itself.

    Args:
        start: Where from. ``"random"`` is training from scratch in full; its probe is a recalibrated random network's.
        data: The episode.
        config: What the starts are made of.
        fit: How.
        made: What ``initial_network`` gave, if it is there already; it is not changed.

    Returns:
        The training, and the seconds that the start took before it.
    """
    model, _ = load_predictor(config.predictor, config.accelerator)
    seed = config.seed + data.index
    fit = replace(fit, target=model.config.target, evaluate_start=True, seed=seed, accelerator=config.accelerator)
    if start == "pretrained":
        return train_from_scratch(data.train, data.test, fit, initial=pretrained_tensors(config.weights)), 0.0
    if start == "random" and fit.trainable == "full":
        return train_from_scratch(data.train, data.test, fit), 0.0
    network, seconds = made or initial_network(start, data, config)
    noise = config.noise if start == "predicted with noise" else 0.0
    return finetune(network, data.train, data.test, fit, noise), seconds


def pretrained_tensors(path: str) -> dict[str, torch.Tensor]:
    """Read a backbone's tensors from a local safetensors file, a classifier's left out.

    Args:
        path: The file; names as in the target network (torchvision's, for its ResNets).

    Returns:
        Name to tensor.

    Raises:
        PudNetError: If no file is named, or it can't be read.
    """
    if not path:
        raise PudNetError('The start "pretrained" needs weights=FILE.safetensors with the target\'s tensors.')
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PudNetError(f"{path} is no safetensors file that can be read ({error}).") from None
    return {n: t for n, t in tensors.items() if not n.startswith(("fc.", "classifier.", "head."))}


def curve_rows(start: str, data: Dataset, result: ScratchResult, before: float, **facts: str | float) -> pd.DataFrame:
    """Turn a training's curve into rows, its seconds counted from zero.

    Args:
        start: Where it started.
        data: The episode.
        result: The training.
        before: Seconds that the start took.
        **facts: More columns.

    Returns:
        Columns start, dataset, episode, images, step, seconds, prediction_seconds, value and chance in %, and the
        facts.
    """
    curve = pd.DataFrame(result.curve).assign(start=start, dataset=data.train.name, episode=data.index, **facts)
    curve = curve.assign(images=len(data.train), chance=100 / data.train.num_classes, prediction_seconds=before)
    return curve.assign(seconds=curve["seconds"] + before).drop(columns=["epoch", "loss"], errors="ignore")


def check_starts(starts: Sequence[str]) -> None:
    """Refuse a start that does not exist.

    Raises:
        PudNetError: Naming the nearest.
    """
    for start in starts:
        if start not in get_args(Start):
            raise unknown_name("start", start, get_args(Start))
