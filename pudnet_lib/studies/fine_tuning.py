"""Fine-tuning: predicted parameters as an initialisation, against random, shared-network and pretrained ones.

Paper, Section 4.4 [rec]: accuracy against steps. Our choice: three optimisers, full training and a linear probe,
seconds counted from zero (a prediction is on the clock), intervals over episodes of unseen classes, and the step at
which training from scratch overtakes. Learning rates: ``RATES``, each the best of ``RATE_FACTORS`` times the
optimiser's own on held-out training classes (``choose_rates``), a random start included.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pandas as pd

from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.core.supervised import ScratchConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.methods.trained import Optimiser
from pudnet_lib.parallel import parallel
from pudnet_lib.studies.fine_tuning_tables import answer, at_end, curves, gains, label, overtakings, summary
from pudnet_lib.studies.starts import (
    Start,
    StartConfig,
    Trainable,
    check_starts,
    curve_rows,
    initial_network,
    load_dataset,
    load_predictor,
    train_from,
    training,
)

__all__ = ["PROFILES", "QUESTION", "TITLE", "Config", "answer", "curves", "gains", "overtakings", "run", "summary"]

TITLE = "Predicted parameters as an initialisation"
QUESTION = "Does training from predicted parameters beat training from random ones, and for how long?"

RATE_FACTORS = (0.3, 1.0, 3.0, 10.0)
#: (start, optimiser, what is trained) → learning rate, from ``choose_rates`` on two episodes a source, for the shipped
#: predictors; ``pudnet reproduce fine_tuning --grid rate_episodes=2`` chooses anew. What is not here takes the kit's.
RATES: dict[tuple[str, str, str], float] = {
    ("predicted", "Adam", "full"): 0.009,
    ("shared network", "Adam", "full"): 0.003,
    ("random", "Adam", "full"): 0.009,
    ("predicted", "SGD", "full"): 0.03,
    ("shared network", "SGD", "full"): 0.1,
    ("random", "SGD", "full"): 0.03,
    ("predicted", "GC", "full"): 0.1,
    ("shared network", "GC", "full"): 0.03,
    ("random", "GC", "full"): 0.1,
    ("predicted", "Adam", "probe"): 0.003,
    ("shared network", "Adam", "probe"): 0.0009,
    ("random", "Adam", "probe"): 0.03,
    ("predicted", "SGD", "probe"): 0.1,
    ("shared network", "SGD", "probe"): 1.0,
    ("random", "SGD", "probe"): 0.3,
    ("predicted", "GC", "probe"): 0.1,
    ("shared network", "GC", "probe"): 0.03,
    ("random", "GC", "probe"): 0.3,
}


@dataclass(frozen=True)
class Config:
    """The experiment's configuration.

    Attributes:
        starts: Starts that are trained with every optimiser, in full and as a probe; ``"pretrained"`` needs
            ``start.weights``.
        controls: Starts that are trained in full with the first optimiser alone.
        optimisers: ``"Adam"``, ``"SGD"``, ``"GC"``.
        trainables: ``"full"`` network, or the head alone (``"probe"``).
        episodes: Unseen episodes a source.
        epochs: Passes over an episode's images, in full training.
        probe_epochs: The same for a probe.
        evaluations: Places at which a curve is measured, besides its start and its first step.
        batch_size: Images a step.
        rate_episodes: Episodes of held-out training classes a source on which learning rates are chosen anew; 0 takes
            ``RATES``.
        start: What the starts are made of.
        jobs: Episodes side by side, each in its own process.
        seed: Seed of episodes and trainings.
    """

    starts: tuple[str, ...] = ("predicted", "shared network", "random")
    controls: tuple[str, ...] = ("far swap", "near swap", "predicted with noise")
    optimisers: tuple[Optimiser, ...] = ("Adam", "SGD", "GC")
    trainables: tuple[Trainable, ...] = ("full", "probe")
    episodes: int = 5
    epochs: int = 30
    probe_epochs: int = 10
    evaluations: int = 10
    batch_size: int = 32
    rate_episodes: int = 0
    start: StartConfig = field(default_factory=StartConfig)
    jobs: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_starts((*self.starts, *self.controls))
        if self.episodes < 2:
            raise PudNetError("Config.episodes must be at least 2; an interval needs two episodes.")

    def arms(self) -> list[tuple[Start, Optimiser, Trainable]]:
        """Every (start, optimiser, what is trained) that takes part."""
        found = [(s, o, t) for t in self.trainables for o in self.optimisers for s in self.starts]
        found += [(s, self.optimisers[0], self.trainables[0]) for s in self.controls]
        return cast(list[tuple[Start, Optimiser, Trainable]], found)

    def fit(self, arm: tuple[Start, Optimiser, Trainable], rate: float) -> ScratchConfig:
        """How an arm is trained at a learning rate; 0 takes the kit's own."""
        epochs = self.epochs if arm[2] == "full" else self.probe_epochs
        plain = ScratchConfig(epochs=epochs, batch_size=self.batch_size, evaluations=self.evaluations)
        return training(arm[1], arm[2], rate, plain)


_SMALL = StartConfig(sources=("fashion", "glyphs"))
PROFILES = {
    "smoke": Config(
        controls=("near swap",), optimisers=("Adam",), episodes=2, epochs=2, probe_epochs=1, evaluations=2,
        start=_SMALL, jobs=1,
    ),
    "laptop": Config(),
    "paper": Config(episodes=50, epochs=100, probe_epochs=30, evaluations=25, rate_episodes=10,
                    start=StartConfig(accelerator="auto"), jobs=1),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One episode with every arm, each at some learning rates."""

    config: Config
    source: int
    index: int
    rates: tuple[tuple[float, ...], ...]
    validation: bool = False


def train_episode(job: Job) -> pd.DataFrame:
    """Train one episode from every start.

    Args:
        job: Which.

    Returns:
        Rows of ``run``'s table, with the learning rate.
    """
    config, tables = job.config, []
    data = load_dataset(config.start, job.source, job.index, job.validation)
    made: dict[Start, tuple[PredictedNetwork, float]] = {}
    for arm, rates in zip(config.arms(), job.rates, strict=True):
        start, optimiser, trainable = arm
        base: Start = "predicted" if start == "predicted with noise" else start
        if base != "pretrained" and base not in made:
            made[base] = initial_network(base, data, config.start)
        for rate in rates:
            result, before = train_from(start, data, config.start, config.fit(arm, rate), made.get(base))
            facts = {"optimiser": optimiser, "trainable": trainable, "rate": rate}
            tables.append(curve_rows(start, data, result, before, **facts))
    return pd.concat(tables, ignore_index=True)


def run(config: Config) -> pd.DataFrame:
    """Train on every episode from every start.

    Args:
        config: What to run.

    Returns:
        Long form: method, start, optimiser, trainable, dataset, episode, seed, metric, step, seconds (from zero), value
        (accuracy in %), chance in %, images, rate, prediction_seconds (of the start), meta_training_seconds.
    """
    config = replace(config, start=replace(config.start, seed=config.seed))
    chosen = choose_rates(config) if config.rate_episodes else RATES
    like = dict.fromkeys(config.controls, "predicted")  # a control is trained as what it stands beside
    rates = tuple((chosen.get((like.get(s, s), o, t), 0.0),) for s, o, t in config.arms())
    table = _train(config, rates, config.episodes, validation=False)
    cost = {"predictor": config.start.predictor, "shared": config.start.shared}
    seconds = {kind: load_predictor(name)[1] for kind, name in cost.items()}
    meta = {"random": 0.0, "pretrained": np.nan, "shared network": seconds["shared"]}
    table["meta_training_seconds"] = table["start"].map(lambda start: meta.get(start, seconds["predictor"]))
    table["method"] = [
        label(s, o, t) for s, o, t in zip(table["start"], table["optimiser"], table["trainable"], strict=True)
    ]
    return table.assign(seed=config.seed, metric="accuracy")


def _train(config: Config, rates: tuple[tuple[float, ...], ...], episodes: int, validation: bool) -> pd.DataFrame:
    sources = range(len(config.start.sources))
    jobs = [Job(config, s, g, rates, validation) for g in range(episodes) for s in sources]
    return pd.concat(parallel(train_episode, jobs, config.jobs, "episodes"), ignore_index=True)


def choose_rates(config: Config) -> dict[tuple[str, str, str], float]:
    """Choose each arm's learning rate on episodes of held-out training classes; the unseen classes take no part.

    Args:
        config: The arms, and ``rate_episodes``.

    Returns:
        (start, optimiser, what is trained) to the rate with the best mean accuracy after the last step.
    """
    config = replace(config, controls=())
    own = {"Adam": 3e-3, "SGD": 0.1, "GC": 0.1}
    rates = tuple(tuple(own[arm[1]] * factor for factor in RATE_FACTORS) for arm in config.arms())
    table = _train(config, rates, max(1, config.rate_episodes), validation=True)
    last = at_end(table)
    arms = last.groupby(["start", "optimiser", "trainable"], sort=False)
    best = {arm: part.groupby("rate")["value"].mean().idxmax() for arm, part in arms}
    return {cast(tuple[str, str, str], arm): float(cast(float, rate)) for arm, rate in best.items()}
