"""What a prediction costs and what it saves: accuracy against total seconds, with everything counted.

Paper, abstract [abs]: 238 and 2,305 times faster at about equal accuracy, against one weak point of training from
scratch. Our choice: rivals are whole curves at several budgets (every measured point of every budget counts for them),
over several dataset sizes, with the shared network, fine-tuning and meta-training's own seconds beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.supervised import Batches, ScratchConfig, accuracy
from pudnet_lib.errors import PudNetError
from pudnet_lib.methods.trained import Optimiser
from pudnet_lib.parallel import parallel
from pudnet_lib.studies.cost_tables import (
    PUDNET,
    SCRATCH,
    answer,
    break_evens,
    headline,
    points,
    ratios,
    rows_to_publish,
)
from pudnet_lib.studies.energy import EnergyMeter
from pudnet_lib.studies.fine_tuning import RATES
from pudnet_lib.studies.prediction_cost import ScalingConfig
from pudnet_lib.studies.starts import (
    Dataset,
    Start,
    StartConfig,
    curve_rows,
    initial_network,
    load_dataset,
    load_predictor,
    train_from,
    training,
)

__all__ = ["PROFILES", "QUESTION", "TITLE", "Config", "answer", "break_evens", "headline", "points", "ratios",
           "rows_to_publish", "run"]  # fmt: skip

TITLE = "What it costs and what it saves"
QUESTION = "How many times faster is a prediction at equal accuracy, and from how many datasets on does it pay?"

#: Method → the start that it is; names of other shipped predictors come from the config.
PREDICTED: dict[str, Start] = {
    PUDNET: "predicted",
    f"{PUDNET}, far swap": "far swap",
    f"{PUDNET}, near swap": "near swap",
    "shared network": "shared network",
}
#: Fine-tuned method → where it starts.
TUNED: dict[str, Start] = {f"{PUDNET}, fine-tuned": "predicted", "shared network, fine-tuned": "shared network"}
RIVALS = {"paper": f"{PUDNET}, plain design", "constant": "constant embedding"}


@dataclass(frozen=True)
class Config:
    """The experiment's configuration.

    Attributes:
        sizes: Images a dataset, over all of its classes; a class that has fewer images gives all it has.
        episodes: Datasets a source, one number for each size.
        ways: K, classes a dataset.
        query_per_class: New images a class, on which accuracy is measured.
        rivals: Further shipped predictors: ``"paper"``, ``"constant"``.
        optimisers: Of training from scratch; the first is fine-tuning's as well.
        budgets: Steps of training from scratch, each a run with its own schedule (rounded to whole epochs, one at
            least).
        tuned_steps: Steps of fine-tuning.
        evaluations: Places at which a run's accuracy is measured.
        batch_size: Images a step.
        start: Sources, predictor and shared network.
        scaling: What is varied to see how prediction grows.
        jobs: Datasets side by side, each in its own process.
        seed: Seed of datasets and trainings.
    """

    sizes: tuple[int, ...] = (40, 160, 640)
    episodes: tuple[int, ...] = (2, 5, 2)
    ways: int = 4
    query_per_class: int = 30
    rivals: tuple[str, ...] = ("paper", "constant")
    optimisers: tuple[Optimiser, ...] = ("Adam", "SGD", "GC")
    budgets: tuple[int, ...] = (20, 160)
    tuned_steps: int = 40
    evaluations: int = 8
    batch_size: int = 32
    start: StartConfig = field(default_factory=StartConfig)
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    jobs: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.episodes) != len(self.sizes) or min(self.episodes) < 2:
            raise PudNetError("Config.episodes must hold a number of at least 2 for each of Config.sizes.")
        if min(self.sizes) < 2 * self.ways:
            raise PudNetError(f"Config.sizes must be at least {2 * self.ways}: two images a class.")

    def start_for(self, size: int) -> StartConfig:
        """The starts' configuration for datasets of one size."""
        each = size // self.ways
        sketch = min(10, each - 1)
        return replace(
            self.start, episode=EpisodeConfig(self.ways, sketch, each - sketch, self.query_per_class), seed=self.seed
        )


_TINY = ScalingConfig(
    widths=(4, 8), layers=("resnet18",), classes=(2, 5), images=(20, 40), deep_width=4, base_images=20, repeats=1
)
PROFILES = {
    "smoke": Config(
        sizes=(16, 40), episodes=(2, 2), rivals=(), optimisers=("Adam",), budgets=(2, 6), tuned_steps=2, evaluations=2,
        query_per_class=10, start=StartConfig(sources=("fashion", "glyphs")), scaling=_TINY, jobs=1,
    ),
    "laptop": Config(),
    "paper": Config(
        sizes=(50, 500, 5_000, 50_000), episodes=(50, 30, 20, 10), ways=10, query_per_class=100,
        budgets=(20, 100, 500, 2_500, 12_500), tuned_steps=500, evaluations=20, batch_size=64,
        start=StartConfig(sources=("fashion", "emoji", "glyphs", "cifar100", "tiny-imagenet"), accelerator="auto"),
        scaling=ScalingConfig(widths=(8, 16, 32, 64, 128), classes=(2, 5, 10, 100), images=(50, 500, 5_000, 50_000),
                              deep_width=64, repeats=20, accelerator="auto"),
        jobs=1,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One dataset: a source, a size, a number."""

    config: Config
    source: int
    size: int
    index: int


def run(config: Config) -> pd.DataFrame:
    """Let every method learn every dataset.

    Args:
        config: What to run.

    Returns:
        Long form: method, kind ("predicted" or "trained"), budget (steps; 0 for a prediction), dataset, size, episode,
        seed, metric, images, step, seconds (from zero), value (accuracy in %), chance in %, seconds of each part of a
        prediction, prediction_seconds, meta_training_seconds, joules.
    """
    jobs = [
        Job(config, source, size, index)
        for size, episodes in zip(config.sizes, config.episodes, strict=True)
        for index in range(episodes)
        for source in range(len(config.start.sources))
    ]
    table = pd.concat(parallel(measure_dataset, jobs, config.jobs, "datasets"), ignore_index=True)
    return table.assign(seed=config.seed, metric="accuracy")


def measure_dataset(job: Job) -> pd.DataFrame:
    """Let every method learn one dataset.

    Args:
        job: Which.

    Returns:
        Rows of ``run``'s table.
    """
    config, starts = job.config, job.config.start_for(job.size)
    data = load_dataset(starts, job.source, job.index)
    tables = [
        _predicted(method, start, data, starts) for method, start in PREDICTED.items() if _possible(start, starts)
    ]
    others = {RIVALS.get(name, name): replace(starts, predictor=name) for name in config.rivals}
    tables += [_predicted(method, "predicted", data, theirs) for method, theirs in others.items()]
    first = config.optimisers[0]
    for optimiser in config.optimisers:
        for epochs in dict.fromkeys(_epochs(config, data, steps) for steps in config.budgets):
            method = f"{optimiser}, {SCRATCH}"
            tables.append(_trained(method, "random", optimiser, epochs, data, config, starts))
    for method, start in TUNED.items():
        tables.append(_trained(method, start, first, _epochs(config, data, config.tuned_steps), data, config, starts))
    return pd.concat(tables, ignore_index=True).assign(size=job.size)


def _possible(start: Start, config: StartConfig) -> bool:
    return start != "far swap" or len(config.sources) > 1  # a far swap needs another source


def _epochs(config: Config, data: Dataset, steps: int) -> int:
    return max(1, round(steps / Batches(len(data.train), config.batch_size, 1, 0).total))


def _predicted(method: str, start: Start, data: Dataset, config: StartConfig) -> pd.DataFrame:
    name = config.shared if start == "shared network" else config.predictor
    model, meta = load_predictor(name, config.accelerator)
    with EnergyMeter(model.device) as meter:
        network, seconds = initial_network(start, data, config)
    row = {"method": method, "kind": "predicted", "budget": 0, "step": 0, "dataset": data.train.name}
    row |= {"episode": data.index, "images": len(data.train), "chance": 100 / data.train.num_classes}
    row |= {
        "seconds": seconds,
        "prediction_seconds": seconds,
        "meta_training_seconds": meta,
        "joules": meter.joules / 4,
    }
    return pd.DataFrame([row | network.seconds | {"value": accuracy(network, data.test)}])


def _trained(
    method: str, start: Start, optimiser: Optimiser, epochs: int, data: Dataset, config: Config, starts: StartConfig
) -> pd.DataFrame:
    kind: Literal["full"] = "full"
    plain = ScratchConfig(epochs=epochs, batch_size=config.batch_size, evaluations=config.evaluations)
    fit = training(optimiser, kind, RATES.get((start, optimiser, kind), 0.0), plain)
    name = starts.shared if start == "shared network" else starts.predictor
    model, meta = load_predictor(name, starts.accelerator)
    with EnergyMeter(model.device) as meter:
        result, before = train_from(start, data, starts, fit)
    rows = curve_rows(start, data, result, before, method=method, kind="trained", budget=epochs)
    steps = int(rows["step"].max())
    meta = 0.0 if start == "random" else meta
    return rows.drop(columns="start").assign(budget=steps, meta_training_seconds=meta, joules=meter.joules)
