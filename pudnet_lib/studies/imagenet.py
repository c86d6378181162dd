"""The headline at scale: ResNet-18 predicted for all unseen classes of ImageNet at once, against training from scratch.

Abstract [abs]: ImageNet-1K, gradient centralization (GC) from scratch, top-5, 2,305 times faster; 800/200 classes and
episodes of 5 classes × 100 images [code]. Our choice: image sizes, the rest of the set-up, scratch as a curve over its
seconds, all rivals on the same images and steps, the controls, and one code path from a laptop (Tiny-ImageNet, a narrow
ResNet-18) to several GPUs: meta-train with ``torchrun … -m pudnet_lib imagenet-train``, and this experiment finds it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

import pudnet_lib.runs  # noqa: F401  (its hooks register themselves)
from pudnet_lib.core import ParameterModel
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.meta import Precision
from pudnet_lib.core.model import SharedNetwork
from pudnet_lib.core.predict import PredictConfig, predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.methods.contenders import (
    CONDITIONED,
    PREDICTORS,
    REFINED_SHARED,
    Contest,
    kit_config,
    train,
    train_config,
)
from pudnet_lib.methods.from_scratch import Optimiser, ScratchFit
from pudnet_lib.methods.metric import MetricFit
from pudnet_lib.methods.pretrained import PretrainedFit
from pudnet_lib.methods.refined import refined
from pudnet_lib.methods.rivals import RIVALS, RivalConfig
from pudnet_lib.methods.run import TrainConfig
from pudnet_lib.parallel import parallel
from pudnet_lib.studies.imagenet_data import (
    CHUNK,
    MADE_UP,
    UnseenData,
    is_there,
    per_class_accuracy,
    pool_source,
    unseen_data,
)
from pudnet_lib.studies.imagenet_tables import answer, gains, headline, rows_to_publish, summary
from pudnet_lib.supervised import ScratchConfig, finetune

__all__ = [
    "PROFILES", "QUESTION", "TITLE", "Config", "answer", "available", "gains", "headline", "rows_to_publish", "run",
    "summary",
]  # fmt: skip

TITLE = "ImageNet: a ResNet-18 for classes never seen"
QUESTION = (
    "Does a ResNet-18 predicted for all unseen classes of ImageNet at once match one trained from scratch on them?"
)

META_TRAINED = (*PREDICTORS, *RIVALS)
#: Methods that make something else of a meta-trained network; method → that network.
TUNED = {REFINED_SHARED: "shared network", "pretrained": "shared network", "fine-tuned": "PudNet (kit)"}


@dataclass(frozen=True)
class Config:
    """The experiment's configuration.

    Attributes:
        source: A name of ``pudnet datasets``, an image folder, or ``"made-up-imagenet"``.
        stand_in: Embedded pack that takes the source's place where it is not on this machine; the result says so.
        stand_in_steps: Meta-training steps then.
        far_source: Where the far swap's sketch comes from.
        size: Pixels, height and width.
        target: The network whose parameters are predicted.
        methods: Which of the predictors, rivals and tuned networks take part.
        seeds: Seeds of meta-training, for all meta-trained methods.
        steps: Meta-training steps.
        episodes_per_step: Episodes whose gradients are averaged in a step, over all ranks.
        precision: Lightning Fabric's, of meta-training.
        training_episodes: What an episode of meta-training holds.
        sketch_per_class: Images of each unseen class in the sketch ([code]: 10).
        per_class: Images of each unseen class that every method learns from; 0 for all.
        matching_per_class: Of these, how many MatchingNet attends to: its time grows with the square of them.
        scratch_epochs: GC is trained from scratch for so many epochs each, a point of the curve each.
        rival_optimisers: Others from scratch, for the most of these epochs.
        tuned_epochs: Epochs of the pretrained network's head and of fine-tuning.
        batch_size: Images a step from scratch and in fine-tuning.
        accelerator: Lightning Fabric's.
        jobs: Meta-training runs side by side, each in its own process; what is timed on the unseen classes runs alone.
        scheduler: Address of a dask scheduler whose workers do the runs; empty for this process.
        seed: Seed of sketches and of training from scratch.
        stands_in_for: The source that a stand-in replaces; set by ``available``.
    """

    source: str = "tiny-imagenet"
    stand_in: str = "emoji"
    stand_in_steps: int = 15
    far_source: str = "emoji"
    size: int = 64
    target: TargetConfig = field(default_factory=lambda: TargetConfig("resnet18", 16, 3, "imagenet"))
    methods: tuple[str, ...] = (*META_TRAINED, *TUNED)
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 1000
    episodes_per_step: int = 1
    precision: Precision = "32-true"
    training_episodes: EpisodeConfig = field(default_factory=lambda: EpisodeConfig(5, 10, 5, 10))
    sketch_per_class: int = 10
    per_class: int = 0
    matching_per_class: int = 5
    scratch_epochs: tuple[int, ...] = (1, 3, 10)
    rival_optimisers: tuple[Optimiser, ...] = ("Adam", "SGD")
    tuned_epochs: int = 3
    batch_size: int = 64
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    jobs: int = 2
    scheduler: str = ""
    seed: int = 0
    stands_in_for: str = ""

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in (*META_TRAINED, *TUNED):
                raise unknown_name("method", name, (*META_TRAINED, *TUNED))
        if not self.scratch_epochs or not self.seeds:
            raise PudNetError("Config.scratch_epochs and seeds must not be empty.")
        if self.far_source == self.source:
            raise PudNetError(f"Config.far_source is the source itself ({self.source}); a far swap needs another one.")

    @property
    def contest(self) -> Contest:
        """What all meta-trained methods have in common."""
        return Contest(
            (pool_source(self.source),), self.target, self.training_episodes, self.steps, self.accelerator,
            size=self.size, episodes_per_step=self.episodes_per_step, precision=self.precision,
        )  # fmt: skip


PROFILES = {
    "smoke": Config(
        source=MADE_UP, size=32, target=TargetConfig("resnet18", 4, 3, "imagenet"), seeds=(0,), steps=2,
        methods=("PudNet (paper)", "PudNet (kit)", "shared network", "ProtoNet", "fine-tuned"),
        training_episodes=EpisodeConfig(3, 3, 3, 3), sketch_per_class=3, scratch_epochs=(1, 2), rival_optimisers=(),
        tuned_epochs=1, jobs=1,
    ),
    "laptop": Config(),
    "paper": Config(
        source="imagenet", size=84, target=TargetConfig("resnet18", 64, 3, "imagenet"), seeds=(0, 1, 2), steps=2_500,
        episodes_per_step=8, precision="bf16-mixed", training_episodes=EpisodeConfig(5, 10, 45, 45),
        scratch_epochs=(1, 3, 10, 30, 90), tuned_epochs=10, batch_size=256, accelerator="auto", jobs=1,
    ),
}  # fmt: skip


def available(config: Config) -> Config:
    """Replace a source that is not on this machine by its stand-in; the result's name and answer then say so.

    Args:
        config: Any.

    Returns:
        The same config, or one with the stand-in, few steps and epochs.

    Raises:
        PudNetError: If nothing may stand in: ImageNet itself, or a folder that does not exist.
    """
    if config.stands_in_for or is_there(config.source):
        return config
    if not config.stand_in:
        raise PudNetError(f"{config.source} is not on this machine; `pudnet datasets` says how to get it.")
    return replace(
        config, source=config.stand_in, stands_in_for=config.source, far_source="fashion", steps=config.stand_in_steps,
        seeds=config.seeds[:1], per_class=20, scratch_epochs=(1, 3), tuned_epochs=1, jobs=1,
    )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One evaluation: a method, and a seed of its meta-training."""

    config: Config
    method: str
    seed: int


def scratch_methods(config: Config) -> dict[str, tuple[Optimiser, int]]:
    """Name the networks trained from scratch: ``"GC, 3 epochs"`` → optimiser and epochs."""
    wanted: list[tuple[Optimiser, int]] = [("GC", epochs) for epochs in config.scratch_epochs]
    wanted += [(optimiser, max(config.scratch_epochs)) for optimiser in config.rival_optimisers]
    return {f"{optimiser}, {epochs} epoch{'s' * (epochs > 1)}": (optimiser, epochs) for optimiser, epochs in wanted}


def trainings(config: Config) -> list[TrainConfig | RivalConfig]:
    """The meta-training runs that the experiment needs, seed by seed."""
    names = dict.fromkeys(TUNED.get(method, method) for method in config.methods)
    return [train_config(config.contest, name, seed) for seed in config.seeds for name in names]


def run(config: Config) -> pd.DataFrame:
    """Meta-train what the cache lacks, then let every method learn the unseen classes and classify their test images.

    Args:
        config: What to run.

    Returns:
        Long form: target, ways, method (with ", far swap" and ", near swap"), dataset, seed, episode (a class), metric
        ("top-1 accuracy", "top-5 accuracy"), value in %, chance in %, prediction_seconds (of a trained network: its
        training), meta_training_seconds.
    """
    config = available(config)
    parallel(train, trainings(config), config.jobs, "meta-training", config.scheduler)
    jobs = [Job(config, method, seed) for seed in config.seeds for method in config.methods]
    jobs += [Job(config, method, config.seed) for method in scratch_methods(config)]
    return pd.concat(parallel(evaluate, jobs, 1, "evaluating", config.scheduler), ignore_index=True)


def evaluate(job: Job) -> pd.DataFrame:
    """Let one method learn the unseen classes; rows of ``run``'s table."""
    config = job.config
    data = unseen_data(config.source, config.far_source, config.size, config.per_class, config.seed)
    stood_in = f"{data.train.name} (stands in for {config.stands_in_for})" if config.stands_in_for else data.train.name
    tables = []
    for name, network, seconds, meta in _networks(job, data):
        rows = per_class_accuracy(network, data.test)
        tables.append(rows.assign(method=name, prediction_seconds=seconds, meta_training_seconds=meta))
    width = f"{config.target.name.replace('resnet', 'ResNet-')}, width {config.target.width}"
    facts: dict[str, Any] = {"target": width, "ways": data.test.num_classes, "dataset": stood_in, "seed": job.seed}
    return pd.concat(tables, ignore_index=True).assign(**facts)


def _networks(job: Job, data: UnseenData) -> Iterator[tuple[str, nn.Module, float, float]]:
    """Name, network, seconds and meta-training seconds of a method and, where it looks at a sketch, of its swaps."""
    config, method, seed = job.config, job.method, job.seed
    if method in scratch_methods(config):
        optimiser, epochs = scratch_methods(config)[method]
        fit = ScratchFit(config.target, optimiser, epochs, config.batch_size, config.seed, config.accelerator)
        yield method, *_timed(fit, data.train), np.nan
        return
    outcome = train(train_config(config.contest, TUNED.get(method, method), seed))
    model = outcome.model.to(_device(config))
    how = PredictConfig(sketch_per_class=config.sketch_per_class, batch_size=CHUNK, seed=config.seed)
    if method == "pretrained":
        fit_head = PretrainedFit(model, _tuning(config, "probe"), how)
        yield method, *_timed(fit_head, data.train), outcome.seconds
    elif method == "fine-tuned":

        def tuned(train: ImageDataset) -> nn.Module:
            return finetune(predict(model, train, how), train, None, _tuning(config, "full")).network

        yield method, *_timed(tuned, data.train), outcome.seconds
    elif method in RIVALS:
        learned = data.train.at_most(config.matching_per_class) if method == "MatchingNet" else data.train
        yield method, *_timed(MetricFit(model, how), learned), outcome.seconds
    else:
        if method == REFINED_SHARED:
            assert isinstance(model, SharedNetwork)
            model = refined(model, kit_config(config.target)).to(_device(config))
        yield method, *_predicted(model, data.train, how, None), outcome.seconds
        for swap, other in (("far", data.far), ("near", data.near)) if method in CONDITIONED else ():
            sketch = other.sketch_with_labels(how.sketch_per_class + how.support(model), config.seed)
            yield f"{method}, {swap} swap", *_predicted(model, data.train, how, sketch), outcome.seconds


def _predicted(model: ParameterModel, train: ImageDataset, how: PredictConfig, sketch: Any) -> tuple[nn.Module, float]:
    network = predict(model, train, how, sketch)
    return network, sum(network.seconds.values())


def _timed(fit: Any, train: ImageDataset) -> tuple[nn.Module, float]:
    began = time.perf_counter()
    network = fit(train)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return network, time.perf_counter() - began


def _tuning(config: Config, trainable: Literal["full", "probe"]) -> ScratchConfig:
    return ScratchConfig(
        trainable=trainable,
        learning_rate=0.03 if trainable == "probe" else 0.0,  # 0: fine-tuning's own default
        gradient_centralization=False,
        epochs=config.tuned_epochs,
        batch_size=config.batch_size,
        evaluations=1,
        seed=config.seed,
        accelerator=config.accelerator,
    )


def _device(config: Config) -> torch.device:
    return torch.device("cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
