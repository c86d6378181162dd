"""Ablations: one factor at a time, and the search for what makes the dataset matter.

Paper, Section 4.5 [rec]: recurrence, α, losses, episodes, sketch size, target. The variants are in
``ablation_variants``; ``pudnet reproduce ablations --grid 'variants=["PudNet","depth 4"],["PudNet","width 32"]'`` runs
chosen ones. All are evaluated on the same unseen episodes, with the same images for batch norm and class means,
whatever their sketch is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pudnet_lib.core import ParameterModel, PudNetConfig
from pudnet_lib.core.episodes import Episode, EpisodeConfig, EpisodeSampler
from pudnet_lib.core.meta import MetaConfig
from pudnet_lib.core.predict import PredictConfig, predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import unknown_name
from pudnet_lib.evaluate import Swap, Swapper, episode_dataset
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods.cache import trained
from pudnet_lib.methods.run import TrainConfig
from pudnet_lib.parallel import parallel
from pudnet_lib.profiles import replace_fields
from pudnet_lib.studies.ablation_tables import answer, effects
from pudnet_lib.studies.ablation_variants import BESIDES, CHEAP, VARIANTS

__all__ = ["PROFILES", "QUESTION", "TITLE", "VARIANTS", "Config", "answer", "effects", "run", "train_config"]

TITLE = "Ablations: one factor at a time"
QUESTION = "Which parts of the hypernetwork matter, and does any of them make the dataset matter?"


@dataclass(frozen=True)
class Config:
    """The ablations' configuration.

    Attributes:
        variants: Which of ``VARIANTS``; empty for all.
        width: Width of the target ConvNet-3.
        steps: Meta-training steps of each run.
        learning_rate: The base's learning rate.
        training_episodes: What an episode of meta-training holds.
        unseen_episodes: What an unseen episode holds, the same for all variants.
        episodes: Unseen episodes a source, and as many of held-out training classes.
        seeds: Seeds of meta-training.
        sources: The pool.
        accelerator: Lightning Fabric's.
        jobs: Runs side by side, each in its own process.
        seed: Seed of the evaluation's episodes.
    """

    variants: tuple[str, ...] = ()
    width: int = 8
    steps: int = 1500
    learning_rate: float = 1e-2
    training_episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    unseen_episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    episodes: int = 100
    seeds: tuple[int, ...] = (0, 1, 2)
    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs")
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    jobs: int = 2
    seed: int = 0


_SMALL = EpisodeConfig(4, 3, 3, 5)
PROFILES = {
    "smoke": Config(
        ("PudNet", "constant embedding", "1 a class at prediction"), width=4, steps=4, training_episodes=_SMALL,
        unseen_episodes=_SMALL, episodes=2, seeds=(0, 1), sources=("fashion", "glyphs"), jobs=1,
    ),
    "laptop": Config(CHEAP, steps=180, training_episodes=EpisodeConfig(5, 5, 5, 5), episodes=8),
    "paper": Config(width=16, steps=10_000, episodes=200, accelerator="auto", jobs=1),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One meta-training run and the variants that are evaluated with it."""

    config: Config
    train: TrainConfig
    variants: tuple[str, ...]
    seed: int


def train_config(config: Config, variant: str, seed: int) -> TrainConfig:
    """Build a variant's meta-training run.

    Args:
        config: The ablations' configuration.
        variant: One of ``VARIANTS``.
        seed: Seed of weights and episodes.

    Returns:
        The run's configuration.

    Raises:
        PudNetError: If there is no such variant.
    """
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    changes = {name: value for name, value in VARIANTS[variant].items() if name not in BESIDES}
    steps = max(1, round(VARIANTS[variant].get("meta.steps_share", 1.0) * config.steps))
    base = TrainConfig(
        pudnet=PudNetConfig(TargetConfig(width=config.width), generator_width=32, filter_norm="standardise", seed=seed),
        pool=PoolConfig(config.sources),
        episodes=config.training_episodes,
        meta=MetaConfig(
            steps=steps, learning_rate=config.learning_rate, seed=seed, validate_every=0, accelerator=config.accelerator
        ),
        episode_seed=seed,
    )
    return replace_fields(base, changes)


def run(config: Config) -> pd.DataFrame:
    """Meta-train each variant with each seed, and predict for the same unseen and validation episodes.

    Args:
        config: What to run.

    Returns:
        Long form: method (the variant), dataset, episode, seed, swap ("own", "far", "near"), classes ("unseen" or
        "validation"), metric, value (accuracy in %), chance in %, prediction_seconds, meta_training_seconds.
    """
    runs: dict[tuple[TrainConfig, int], list[str]] = {}
    for variant in config.variants or tuple(VARIANTS):
        for seed in config.seeds:
            runs.setdefault((train_config(config, variant, seed), seed), []).append(variant)
    jobs = [Job(config, train, tuple(variants), seed) for (train, seed), variants in runs.items()]
    return pd.concat(parallel(run_job, jobs, config.jobs, "variants × seeds"), ignore_index=True)


@lru_cache(maxsize=1)
def _pool(sources: tuple[str, ...]) -> Pool:
    return Pool(PoolConfig(sources))


def run_job(job: Job) -> pd.DataFrame:
    """Meta-train once and evaluate all variants that share the run.

    Args:
        job: Which.

    Returns:
        Rows of ``run``'s table.
    """
    config, tables = job.config, []
    outcome = trained(job.train, progress=False)
    blind = job.train.kind == "shared" or job.train.pudnet.embedding == "constant"
    for variant in job.variants:
        for classes in ("unseen", "validation"):
            # Validation chooses, so it needs no controls; what sees no data has none.
            swaps: tuple[Swap, ...] = ("own",) if blind or classes == "validation" else ("own", "far", "near")
            table = evaluate(config, outcome.model, variant, classes, swaps, job.train.episodes.sketch_per_class)
            tables.append(table.assign(method=variant, seed=job.seed, classes=classes, metric="accuracy"))
    rows = pd.concat(tables, ignore_index=True).rename(columns={"seconds": "prediction_seconds"})
    return rows.assign(meta_training_seconds=outcome.seconds)


def evaluate(
    config: Config, model: ParameterModel, variant: str, classes: str, swaps: tuple[Swap, ...], sketch: int
) -> pd.DataFrame:
    """Evaluate a variant on episodes that are the same for all, with a sketch of its own size.

    Args:
        config: The ablations' configuration.
        model: The variant's.
        variant: Its name.
        classes: ``"unseen"`` or ``"validation"``.
        swaps: ``"own"``, ``"far"``, ``"near"``.
        sketch: Images a class in meta-training's sketches.

    Returns:
        One row a source, episode and swap: dataset, episode, swap, value and chance in %, seconds of the prediction.
    """
    change, pool = VARIANTS[variant], _pool(config.sources)
    size = int(change.get("sketch", sketch))
    sampler: EpisodeSampler = getattr(pool, f"{classes}_episodes")(config.unseen_episodes, config.seed)
    predicting = PredictConfig(recalibrate=bool(change.get("recalibrate", True)))
    model = model.to("cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    swapper, rows = Swapper(pool.train, size, config.seed), []
    for source, index in product(range(len(sampler.pool)), range(config.episodes)):
        episode = sampler.episode(index, source)
        data = episode_dataset(episode, sampler.pool[source])
        for swap in swaps:
            if swap == "own":
                drawn = own_sketch(episode, sampler, size, (config.seed, index, source))
            else:
                drawn = swapper.sketch(episode, data.class_names, index, swap)
            network = predict(model, data, predicting, drawn)
            with torch.no_grad():
                right = network(episode.query.to(model.device)).argmax(1).cpu() == episode.query_labels
            row = {"dataset": data.name, "episode": index, "swap": swap, "chance": 100 / data.num_classes}
            rows.append(row | {"value": 100 * float(right.float().mean()), "seconds": sum(network.seconds.values())})
    return pd.DataFrame(rows)


def own_sketch(episode: Episode, sampler: EpisodeSampler, size: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Draw a sketch of an episode's own classes that may be smaller or larger than the episode's.

    Args:
        episode: The episode.
        sampler: Where it is from. With a query pool of its own, all images of the classes may be drawn; else the
            episode's sketch and support alone, so that no query is seen.
        size: Images a class; a class with fewer gives all it has.
        seed: Seed of the draw.

    Returns:
        Sketch (S, C, H, W) and labels (S,); the episode's own, if it has that size.
    """
    if size == sampler.config.sketch_per_class:
        return episode.sketch, episode.sketch_labels
    images = torch.cat([episode.sketch, episode.support])
    labels = torch.cat([episode.sketch_labels, episode.support_labels])
    if sampler.query_pool is not None:
        data = sampler.pool[episode.source_index].select_classes(episode.classes.tolist())
        images, labels = data.images, data.labels
    rng = np.random.default_rng(seed)
    of_class = [np.flatnonzero(labels.numpy() == label) for label in range(len(episode.classes))]
    picks = [rng.permutation(images_of)[:size] for images_of in of_class]
    chosen = torch.from_numpy(np.concatenate(picks))
    return images[chosen], labels[chosen]
