"""Ablations: one factor at a time, and the search for what makes the dataset matter.

Paper, Section 4.5 [rec]: no recurrence, α = 0, no auxiliary task, no consistency. Our choice: rivals at several
learning rates stand in the same table: a hypernetwork changes the effective learning rate of the target's weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from pudnet_lib.datasets import GroupConfig
from pudnet_lib.datasets.pool import Pool, PoolConfig
from pudnet_lib.errors import unknown_name
from pudnet_lib.evaluation import Interval, Swap, Swapper, difference, evaluate_groups
from pudnet_lib.experiments.profiles import replace_fields
from pudnet_lib.hypernetwork import PudNetConfig
from pudnet_lib.prediction import PredictConfig
from pudnet_lib.targets import TargetConfig
from pudnet_lib.training.cache import train_many, trained
from pudnet_lib.training.meta import MetaConfig
from pudnet_lib.training.run import TrainConfig

TITLE = "Ablations: one factor at a time"
QUESTION = "Which parts of the hypernetwork matter, and does any of them make the dataset matter?"

#: Variant → what differs from the base, a PudNet of the paper's plain design at a tuned learning rate.
VARIANTS: dict[str, dict[str, Any]] = {
    "PudNet": {},
    "shared network, lr 3e-3": {"kind": "shared", "meta.learning_rate": 3e-3},
    "shared network, lr 1e-2": {"kind": "shared", "meta.learning_rate": 1e-2},
    "shared network, lr 2e-2": {"kind": "shared", "meta.learning_rate": 2e-2},
    "shared network, lr 4e-2": {"kind": "shared", "meta.learning_rate": 4e-2},
    "constant embedding": {"pudnet.embedding": "constant"},
    "constant embedding, lr 3e-3": {"pudnet.embedding": "constant", "meta.learning_rate": 3e-3},
    "constant embedding, lr 2e-2": {"pudnet.embedding": "constant", "meta.learning_rate": 2e-2},
    "lr 1e-3": {"meta.learning_rate": 1e-3},
    "lr 3e-3": {"meta.learning_rate": 3e-3},
    "lr 2e-2": {"meta.learning_rate": 2e-2},
    "plain GRU": {"pudnet.recurrence": "gru"},
    "no recurrence": {"pudnet.recurrence": "none"},
    "α = 0": {"pudnet.alpha": 0.0},
    "α = 0.5": {"pudnet.alpha": 0.5},
    "no auxiliary task": {"meta.weights.auxiliary": 0.0},
    "no consistency": {"meta.weights.consistency": 0.0},
    "cosine loss only": {"meta.weights.auxiliary": 0.0, "meta.weights.consistency": 0.0},
    "generator width 16": {"pudnet.generator_width": 16},
    "generator width 64": {"pudnet.generator_width": 64},
    "filters not standardised": {"pudnet.filter_norm": "none"},
    "learned base + residual": {"pudnet.residual": True, "meta.direct_learning_rate": 2e-2},
    "pooling: mean and spread": {"pudnet.pooling": "mean_std"},
    "pooling: class means": {"pudnet.pooling": "class"},
    "refined on the sketch": {"pudnet.refine": 1},
    "refined thrice": {"pudnet.refine": 3},
    "sketch of 1 a class": {"groups.sketch_per_class": 1},
    "sketch of 5 a class": {"groups.sketch_per_class": 5},
    "sketch of 30 a class": {"groups.sketch_per_class": 30},
    "4 groups a step": {"meta.groups_per_step": 4},
    "1/4 of the groups": {"meta.steps_share": 0.25},
    "width 4": {"pudnet.target.width": 4},
    "width 16": {"pudnet.target.width": 16},
    "not recalibrated": {"recalibrate": False},
}


@dataclass(frozen=True)
class Config:
    """The ablations' configuration.

    Attributes:
        variants: Which of ``VARIANTS``; empty for all.
        width: Width of the target ConvNet-3.
        steps: Meta-training steps of each run.
        learning_rate: The base's learning rate.
        ways: K, classes a group.
        groups: Unseen groups a source.
        seeds: Seeds of meta-training.
        sources: The pool.
        jobs: Runs side by side, each in its own process.
        seed: Seed of the evaluation's groups.
    """

    variants: tuple[str, ...] = ()
    width: int = 8
    steps: int = 1500
    learning_rate: float = 1e-2
    ways: int = 5
    groups: int = 100
    seeds: tuple[int, ...] = (0, 1, 2)
    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs")
    jobs: int = 2
    seed: int = 0


_CHEAP = (
    "PudNet",
    "shared network, lr 1e-2",
    "shared network, lr 2e-2",
    "constant embedding",
    "no recurrence",
    "α = 0",
    "cosine loss only",
    "refined on the sketch",
)
PROFILES = {
    "smoke": Config(_CHEAP[:4], width=4, steps=15, groups=3, seeds=(0, 1), sources=("fashion", "glyphs"), jobs=1),
    "laptop": Config(_CHEAP, width=8, steps=500, groups=50, seeds=(0, 1)),
    "paper": Config(width=16, steps=10_000, groups=200, jobs=1),
}


def train_config(config: Config, variant: str, seed: int) -> TrainConfig:
    """Build a variant's meta-training run.

    Args:
        config: The ablations' configuration.
        variant: One of ``VARIANTS``.
        seed: Seed of weights and groups.

    Returns:
        The run's configuration.

    Raises:
        PudNetError: If there is no such variant.
    """
    if variant not in VARIANTS:
        raise unknown_name("variant", variant, VARIANTS)
    target = TargetConfig(width=config.width)
    base = TrainConfig(
        pudnet=PudNetConfig(target, generator_width=32, filter_norm="standardise", seed=seed),
        pool=PoolConfig(config.sources),
        groups=GroupConfig(config.ways),
        meta=MetaConfig(
            steps=config.steps, learning_rate=config.learning_rate, seed=seed, validate_every=0, accelerator="cpu"
        ),
        group_seed=seed,
    )
    changes = dict(VARIANTS[variant])
    changes.pop("recalibrate", None)
    share = changes.pop("meta.steps_share", None)
    if share is not None:
        base = replace(base, meta=replace(base.meta, steps=max(1, round(share * config.steps))))
    return replace_fields(base, changes)


def run(config: Config) -> pd.DataFrame:
    """Meta-train each variant with each seed, and predict for the same unseen and validation groups.

    Args:
        config: What to run.

    Returns:
        Long form: method (the variant), dataset, group, seed, swap ("own", "far", "near"), classes ("unseen" or
        "validation"), metric, value (accuracy in %), chance in %, seconds of prediction, meta_training_seconds.
    """
    variants = config.variants or tuple(VARIANTS)
    runs = {(v, s): train_config(config, v, s) for v in variants for s in config.seeds}
    train_many(list(runs.values()), config.jobs)
    pool, tables = Pool(PoolConfig(config.sources)), []
    for (variant, seed), train in runs.items():
        outcome = trained(train, progress=False)
        blind = train.kind == "shared" or train.pudnet.embedding == "constant"
        predict = PredictConfig(recalibrate=bool(VARIANTS[variant].get("recalibrate", True)))
        swapper = Swapper(pool.train, train.groups.sketch_per_class, config.seed)
        for classes in ("unseen", "validation"):
            sampler = getattr(pool, f"{classes}_groups")(train.groups, config.seed)
            # Validation chooses, so it needs no controls; what sees no data has none.
            swaps: tuple[Swap, ...] = ("own",) if blind or classes == "validation" else ("own", "far", "near")
            table = evaluate_groups(outcome.model, sampler, config.groups, swapper, swaps, predict)
            tables.append(table.assign(method=variant, seed=seed, classes=classes, metric="accuracy"))
            tables[-1]["meta_training_seconds"] = outcome.seconds
    return pd.concat(tables, ignore_index=True).rename(columns={"seconds": "prediction_seconds"})


def effects(table: pd.DataFrame, base: str = "PudNet") -> pd.DataFrame:
    """Each variant minus the base on the same unseen groups, and its far and near gains.

    Args:
        table: From ``run``.
        base: The variant to compare with.

    Returns:
        One row a variant and quantity ("effect", "far gain", "near gain", "accuracy", "validation"): mean, low, high in
        points or %, n, seeds.
    """
    unseen = table[table["classes"] == "unseen"]
    own = unseen[unseen["swap"] == "own"]
    validation = table[(table["classes"] == "validation") & (table["swap"] == "own")]
    rows = []

    def add(variant: str, quantity: str, found: Interval) -> None:
        rows.append({"method": variant, "metric": quantity, **vars(found)})

    for variant, part in unseen.groupby("method", sort=False):
        name = str(variant)
        add(name, "accuracy", difference(pd.concat([own, _zero(own)]), name, "zero"))
        add(name, "validation", difference(pd.concat([validation, _zero(validation)]), name, "zero"))
        if name != base and base in set(own["method"]):
            add(name, "effect", difference(own, name, base))
        for swap in ("far", "near"):
            if swap in set(part["swap"]):
                both = part.assign(method=part["swap"])
                add(name, f"{swap} gain", difference(both, "own", swap))
    return pd.DataFrame(rows)


def _zero(table: pd.DataFrame) -> pd.DataFrame:
    """A method that is never right, so that an accuracy is a difference and gets the same interval."""
    one: pd.DataFrame = table[table["method"] == table["method"].iloc[0]]
    return one.assign(method="zero", value=0.0)


def answer(table: pd.DataFrame) -> str:
    """Say in one sentence which variant is best on validation classes, and what it gains over the rivals."""
    found = effects(table)
    chosen = found[found["metric"] == "validation"]
    validation = {str(m): float(v) for m, v in zip(chosen["method"], chosen["mean"], strict=True)}
    rivals = [m for m in validation if m.startswith(("shared", "constant"))]
    ours = max((m for m in validation if m not in rivals), key=validation.__getitem__)
    own = table[(table["classes"] == "unseen") & (table["swap"] == "own")]
    if not rivals:
        return f"Of {len(validation)} variants, {ours} is the best on held-out training classes."
    rival = max(rivals, key=validation.__getitem__)
    gain = difference(own, ours, rival)
    mine = table[(table["classes"] == "unseen") & (table["method"] == ours)]
    swapped = mine.assign(method=mine["swap"])
    far, near = difference(swapped, "own", "far"), difference(swapped, "own", "near")
    return (
        f"Of {len(validation)} variants the best on held-out training classes is “{ours}”; on unseen classes it "
        f"differs from the best rival that sees no data, “{rival}”, by {gain.signed()} points (n = {gain.n}, "
        f"{gain.seeds} seeds), with a far gain of {far.signed()} and a near gain of {near.signed()}."
    )
