"""Intra-dataset prediction: unseen classes of the sources that meta-training has seen, against every rival.

Paper, Section 4.2 [rec]: Fashion-set 6/4, CIFAR-100-set 80/20; ConvNet-3 and ResNet-18. Our choice: emoji and glyphs,
episodes of several sizes, the swap controls, the shared network, the constant embedding, and one meta-training step
budget for all. Meta-trained models are kept in the cache, so that a second run only evaluates.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import pandas as pd

from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.evaluate import Swap, Swapper
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods.contenders import CONDITIONED, PREDICTORS, SPECIALIST, TARGETS, Contest, train
from pudnet_lib.methods.from_scratch import Optimiser
from pudnet_lib.methods.measuring import META_TRAINED, TUNED, Protocol, Scene, measure, training_of
from pudnet_lib.methods.rivals import RivalConfig
from pudnet_lib.methods.run import TrainConfig
from pudnet_lib.parallel import parallel
from pudnet_lib.studies.diagnostics import diagnose
from pudnet_lib.studies.intra_tables import answer, gains, headline, summary

__all__ = [
    "PROFILES", "QUESTION", "STUDIES", "TITLE", "Config", "answer", "diagnostics", "gains", "headline", "run", "study",
    "summary",
]  # fmt: skip

TITLE = "Unseen classes of the same source"
QUESTION = "Do parameters predicted for these classes beat one good network for all of them, and training from scratch?"


@dataclass(frozen=True)
class Config:
    """The comparison's configuration.

    Attributes:
        sources: The pool: embedded packs, names of datasets, or image folders (Tiny-ImageNet, say).
        targets: Names of ``TARGETS``.
        methods: Which of the predictors, rivals and tuned networks take part.
        ways: Sizes K of the unseen episodes; a source takes part where it has that many unseen classes.
        seeds: Seeds of meta-training, for all meta-trained methods.
        steps: Meta-training steps.
        episodes: Unseen episodes a source, for methods that take no gradient step on them.
        fit_episodes: The first so many of them, for methods that are trained on each episode.
        diagnosed_episodes: The first so many episodes a source, for the diagnostics.
        optimisers: Trained from scratch with these.
        scratch_epochs: For so many epochs each.
        tuned_epochs: Epochs of the pretrained network's head and of fine-tuning.
        training_episodes: What an episode of meta-training holds.
        unseen_episodes: What an unseen episode holds; its ``ways`` is not used.
        accelerator: Lightning Fabric's.
        jobs: Runs side by side.
        seed: Seed of the unseen episodes and of training from scratch.
    """

    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs")
    targets: tuple[str, ...] = ("ConvNet-3, width 8",)
    methods: tuple[str, ...] = (*META_TRAINED, *TUNED)
    ways: tuple[int, ...] = (4,)
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 240
    episodes: int = 34
    fit_episodes: int = 6
    diagnosed_episodes: int = 3
    optimisers: tuple[Optimiser, ...] = ("GC", "Adam", "SGD")
    scratch_epochs: tuple[int, ...] = (1, 10, 30, 50)
    tuned_epochs: int = 30
    training_episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    unseen_episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    jobs: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("target", self.targets, TARGETS),
            ("method", self.methods, (*META_TRAINED, *TUNED)),
        ):
            for name in given:
                if name not in known:
                    raise unknown_name(kind, name, known)
        if min(self.episodes, self.fit_episodes) < 2:
            raise PudNetError("Config.episodes and fit_episodes must be at least 2; an interval needs two episodes.")

    def contest(self, target: str) -> Contest:
        """What all meta-trained methods have in common."""
        return Contest(self.sources, TARGETS[target], self.training_episodes, self.steps, self.accelerator)

    def protocol(self) -> Protocol:
        """How all methods are measured."""
        return Protocol(
            self.episodes, self.fit_episodes, self.optimisers, self.scratch_epochs, self.tuned_epochs, self.accelerator,
            self.seed,
        )  # fmt: skip


_SMALL = EpisodeConfig(4, 3, 3, 5)
PROFILES = {
    "smoke": Config(
        targets=("ConvNet-3, width 4",), ways=(4,), steps=4, episodes=2, fit_episodes=2, scratch_epochs=(1, 2),
        optimisers=("GC",), tuned_epochs=1, training_episodes=_SMALL, unseen_episodes=_SMALL, jobs=1,
    ),
    "laptop": Config(),
    "paper": Config(
        targets=("ConvNet-3, width 8", "ConvNet-3, width 16", "ConvNet-3, width 64", "ResNet-18"),
        ways=(4, 5, 10, 20), seeds=(0, 1, 2), steps=10_000, episodes=200, fit_episodes=100, tuned_epochs=30,
        accelerator="auto", jobs=1,
    ),
}  # fmt: skip

_LONG: dict[str, Any] = {
    "targets": ("ConvNet-3, width 16",),
    "steps": 3500,
    "ways": (4, 5, 10),
    "methods": (*PREDICTORS, "shared network, refined", "ProtoNet", "Meta-DeepBDC", "pretrained", "fine-tuned"),
    "optimisers": ("GC",),
}
#: Studies beside the profiles' own: name → fields of the config. "long" meta-trains until rates and designs can be told
#: apart (some fifteen times the laptop's steps; an hour on 2 cores), with the rivals that were best in the short one;
#: "photographs" does so with Tiny-ImageNet as a fourth source, which the user must have.
STUDIES: dict[str, dict[str, Any]] = {
    "short": {},
    "long": _LONG,
    "photographs": _LONG
    | {
        "sources": ("fashion", "emoji", "glyphs", "tiny-imagenet"),
        "ways": (4,),
        "methods": (*PREDICTORS, "shared network, refined", "fine-tuned"),
        "scratch_epochs": (30,),
    },
}


def study(name: str, **given: Any) -> dict[str, Any]:
    """Give a study's fields for ``configure``.

    Args:
        name: One of ``STUDIES``.
        **given: Fields that go before the study's own; None keeps those.

    Returns:
        Field → value.

    Raises:
        PudNetError: If there is no such study.
    """
    if name not in STUDIES:
        raise unknown_name("study", name, STUDIES)
    return STUDIES[name] | {field: value for field, value in given.items() if value is not None}


@dataclass(frozen=True)
class Job:
    """One evaluation: a method with a seed on all episodes of one size."""

    config: Config
    target: str
    method: str
    seed: int
    ways: int


def run(config: Config) -> pd.DataFrame:
    """Meta-train what the cache lacks, then let every method classify the same unseen episodes.

    Args:
        config: What to run.

    Returns:
        Long form: target, ways, method (with ", far swap" and ", near swap"), dataset, seed, episode, metric, value
        (accuracy in %), chance in %, prediction_seconds (of a trained network: its training), meta_training_seconds.
    """
    trainings: list[TrainConfig | RivalConfig] = []
    jobs: list[Job] = []
    for target in config.targets:
        for method in config.methods:
            for seed in config.seeds:
                trainings += _trainings(config, target, method, seed)
                jobs += [Job(config, target, method, seed, ways) for ways in config.ways]
        fits = config.protocol().scratch_fits(TARGETS[target])
        jobs += [Job(config, target, method, config.seed, ways) for method in fits for ways in config.ways]
    parallel(train, list(dict.fromkeys(trainings)), config.jobs, "meta-training")
    return pd.concat(parallel(evaluate, jobs, config.jobs, "evaluating"), ignore_index=True)


def _trainings(config: Config, target: str, method: str, seed: int) -> list[TrainConfig | RivalConfig]:
    sources = config.sources if method == SPECIALIST else ("",)
    return [training_of(config.contest(target), method, seed, source) for source in sources]


@lru_cache(maxsize=2)
def _pool(sources: tuple[str, ...]) -> Pool:
    return Pool(PoolConfig(sources))


def evaluate(job: Job) -> pd.DataFrame:
    """Evaluate one method on the unseen episodes of one size.

    Args:
        job: Which.

    Returns:
        Rows of ``run``'s table.
    """
    config, scene = job.config, _scene(job.config, job.ways)
    if not scene.sources:
        raise PudNetError(f"No source has {job.ways} unseen classes; lower Config.ways.")
    run_of = (config.contest(job.target), config.protocol(), job.method, job.seed)
    if job.method == SPECIALIST:  # one network a source
        parts = [measure(*run_of, replace(scene, sources=(s,)), config.sources[s]) for s in scene.sources]
        table = pd.concat(parts, ignore_index=True)
    else:
        table = measure(*run_of, scene)
    return table.assign(target=job.target, ways=job.ways)


def _scene(config: Config, ways: int) -> Scene:
    pool = _pool(config.sources)
    sampler = pool.unseen_episodes(replace(config.unseen_episodes, ways=ways), config.seed)
    swaps: tuple[Swap, ...] = ("own", "far", "near") if len(config.sources) > 1 else ("own", "near")
    return Scene(
        sampler,
        Swapper(pool.train, config.unseen_episodes.sketch_per_class, config.seed),
        swaps,
        tuple(s for s, usable in enumerate(sampler.usable) if len(usable) >= ways),
    )


def diagnostics(config: Config) -> pd.DataFrame:
    """Diagnose the PudNets of the first target on the first episode size's unseen episodes.

    Args:
        config: As given to ``run``, whose meta-trained models are taken from the cache.

    Returns:
        What ``diagnose`` gives; empty if no PudNet takes part.
    """
    scene, target, device = _scene(config, config.ways[0]), config.targets[0], config.protocol().device
    models = {
        method: [train(_trainings(config, target, method, seed)[0]).model.to(device) for seed in config.seeds]
        for method in CONDITIONED
        if method in config.methods
    }
    episodes = min(config.episodes, config.diagnosed_episodes)
    return diagnose(models, scene.sampler, scene.swapper, episodes, list(scene.sources))
