"""Inter-dataset prediction: a source that meta-training has never seen, in episodes of its classes and as a whole.

Paper, Section 4.3 [rec]: meta-train on one source, predict for CIFAR-10, CIFAR-100, Animals-10, DTD, CUB-200 [code].
Our choice: leave one source out. Every source of the pool in turn is the unseen one, with all of its classes; the rest
is meta-trained on. The rivals, controls and budgets are those of the intra-dataset comparison; ``trust_calibration``
asks on the same runs whether the trust report's estimate can be believed. Sources that the user does not have are left
out, and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pandas as pd

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.evaluate import Swap, Swapper
from pudnet_lib.images import load_images
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.images.sources import list_sources
from pudnet_lib.methods.contenders import SPECIALIST, TARGETS, Contest, train
from pudnet_lib.methods.from_scratch import Optimiser
from pudnet_lib.methods.measuring import META_TRAINED, TUNED, Protocol, Scene, measure, training_of
from pudnet_lib.parallel import parallel
from pudnet_lib.studies.inter_tables import answer, gains, headline
from pudnet_lib.studies.intra_tables import summary
from pudnet_lib.studies.trust_calibration import DESIGNS, TrustStudy, calibrate

__all__ = ["PROFILES", "QUESTION", "TITLE", "Config", "answer", "gains", "headline", "left_out", "run", "summary"]

TITLE = "Another source altogether"
QUESTION = "Do parameters predicted for a source that meta-training never saw work there, and can one tell beforehand?"

METHODS = (*(m for m in META_TRAINED if m != SPECIALIST), *TUNED)
EMBEDDED = ("fashion", "emoji", "glyphs")
#: Episode number of a whole dataset in the tables: all classes at once.
WHOLE = "all"


@dataclass(frozen=True)
class Config:
    """The comparison's configuration.

    Attributes:
        sources: The pool, each in turn the unseen one: embedded packs, names of datasets, or image folders. Names of
            datasets that are not there are left out.
        others: Datasets that are in no pool; predicted for by what was meta-trained on all sources.
        target: One of ``TARGETS``.
        methods: Which of the predictors, rivals and tuned networks take part.
        ways: K, classes of an unseen episode.
        seeds: Seeds of meta-training of the PudNets and of the controls.
        rival_seeds: Those of the metric rivals and of the networks tuned on each episode.
        steps: Meta-training steps.
        episodes: Unseen episodes a source, for methods that take no gradient step on them.
        fit_episodes: The first so many of them, for methods that are trained on each episode.
        whole_draws: Draws of training and test images of each whole dataset.
        optimisers: Trained from scratch with these.
        scratch_epochs: For so many epochs each.
        tuned_epochs: Epochs of the pretrained network's head and of fine-tuning.
        max_per_class: At most so many images a class of each source; 0 for all.
        training_episodes: What an episode of meta-training holds.
        unseen_episodes: What an unseen episode holds; its ``ways`` is not used.
        whole: What the draw of a whole dataset holds; its ``ways`` is not used.
        trust: How the trust report is calibrated.
        accelerator: Lightning Fabric's.
        jobs: Runs side by side.
        seed: Seed of the unseen episodes and of training from scratch.
    """

    sources: tuple[str, ...] = (*EMBEDDED, "cifar10", "omniglot", "tiny-imagenet")
    others: tuple[str, ...] = ()
    target: str = "ConvNet-3, width 8"
    methods: tuple[str, ...] = METHODS
    ways: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    rival_seeds: tuple[int, ...] = (0,)
    steps: int = 60
    episodes: int = 12
    fit_episodes: int = 3
    whole_draws: int = 3
    optimisers: tuple[Optimiser, ...] = ("GC",)
    scratch_epochs: tuple[int, ...] = (10, 30)
    tuned_epochs: int = 10
    max_per_class: int = 200
    training_episodes: EpisodeConfig = field(default_factory=lambda: EpisodeConfig(5, 5, 5, 5))
    unseen_episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    whole: EpisodeConfig = field(default_factory=lambda: EpisodeConfig(5, 2, 2, 2))
    trust: TrustStudy = field(default_factory=TrustStudy)
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    jobs: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise unknown_name("target", self.target, TARGETS)
        for name in self.methods:
            if name not in METHODS:
                raise unknown_name("method", name, METHODS)
        if min(self.episodes, self.fit_episodes, self.whole_draws) < 2:
            raise PudNetError(
                "Config.episodes, fit_episodes and whole_draws must be at least 2; an interval needs two."
            )

    def contest(self, pool: tuple[str, ...]) -> Contest:
        """What all methods that are meta-trained on a pool have in common."""
        target, episodes = TARGETS[self.target], self.training_episodes
        return Contest(pool, target, episodes, self.steps, self.accelerator, self.max_per_class)

    def protocol(self, whole: bool = False) -> Protocol:
        """How all methods are measured, on episodes or on whole datasets."""
        counts = (self.whole_draws, self.whole_draws) if whole else (self.episodes, self.fit_episodes)
        epochs = self.scratch_epochs[:1] if whole else self.scratch_epochs
        return Protocol(*counts, self.optimisers, epochs, self.tuned_epochs, self.accelerator, self.seed)

    def seeds_of(self, method: str) -> tuple[int, ...]:
        """The seeds of meta-training with which a method is measured."""
        return self.seeds if method in META_TRAINED[:4] else self.rival_seeds


_SMALL = EpisodeConfig(4, 3, 3, 5)
PROFILES = {
    "smoke": Config(
        sources=EMBEDDED, target="ConvNet-3, width 4", methods=("PudNet (kit)", "PudNet (paper)", "shared network",
        "constant embedding", "ProtoNet", "fine-tuned"), seeds=(0,), steps=4, episodes=2, fit_episodes=2, whole_draws=2,
        scratch_epochs=(1,), tuned_epochs=1, max_per_class=20, training_episodes=_SMALL, unseen_episodes=_SMALL,
        whole=EpisodeConfig(5, 2, 2, 2), trust=TrustStudy(sizes=(6,), episodes=2, fit_episodes=1, fit_epochs=1), jobs=1,
    ),
    "laptop": Config(),
    "paper": Config(
        sources=(*EMBEDDED, "cifar10", "omniglot", "tiny-imagenet", "imagenet"),
        others=("mnist", "cifar100", "dtd", "animals10", "cub200"), target="ResNet-18", rival_seeds=(0, 1, 2),
        steps=10_000, episodes=200, fit_episodes=50, whole_draws=3, optimisers=("GC", "Adam", "SGD"),
        scratch_epochs=(30, 100), tuned_epochs=30, max_per_class=0, training_episodes=EpisodeConfig(),
        whole=EpisodeConfig(5, 10, 70, 100), trust=TrustStudy(episodes=40, fit_episodes=10, fit_epochs=30),
        accelerator="auto", jobs=1,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Split:
    """An unseen source, and the pool that is meta-trained on."""

    unseen: str
    pool: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """One method with a seed on one split; ``whole`` for all classes of the unseen source at once."""

    config: Config
    split: Split
    method: str
    seed: int
    whole: bool = False


def left_out(config: Config) -> dict[str, str]:
    """Name the sources that are not there, with what to do to get each; nothing is downloaded."""
    known = {source.name: source for source in list_sources()}
    wanted = [n for n in (*config.sources, *config.others) if n in known and not known[n].available]
    return {name: known[name].how_to_get for name in wanted}


def splits(config: Config) -> list[Split]:
    """Leave each source out in turn; other datasets are predicted for by what was trained on all sources.

    Raises:
        PudNetError: If a folder does not exist, or fewer than two sources are there.
    """
    missing, known = left_out(config), {source.name for source in list_sources()}
    for name in (*config.sources, *config.others):
        if name not in known and not Path(name).expanduser().is_dir():
            raise unknown_name("dataset", name, known, "Or give the path of an image folder.")
    pool = tuple(name for name in config.sources if name not in missing)
    if len(pool) < 2:
        raise PudNetError(f"Leaving one source out needs at least two; there is {pool}. Missing: {list(missing)}.")
    one_out = [Split(unseen, tuple(n for n in pool if n != unseen)) for unseen in pool]
    return [*one_out, *(Split(name, pool) for name in config.others if name not in missing)]


def run(config: Config) -> pd.DataFrame:
    """Meta-train what the cache lacks, then let every method classify the same episodes of every unseen source.

    Args:
        config: What to run.

    Returns:
        Long form: target, ways (K as text, or "all": the whole dataset), method (with ", far swap", ", near swap"),
        dataset, seed, episode, metric, value (accuracy in %), chance in %, prediction_seconds (of a trained network:
        its training), meta_training_seconds.
    """
    trainings, jobs = [], []
    for split in splits(config):
        for method in config.methods:
            for seed in config.seeds_of(method):
                trainings.append((config, split, TUNED.get(method, method), seed))
                jobs += [Job(config, split, method, seed, whole) for whole in (False, True)]
        for whole in (False, True):
            fits = config.protocol(whole).scratch_fits(TARGETS[config.target])
            jobs += [Job(config, split, method, config.seed, whole) for method in fits]
    parallel(_train, list(dict.fromkeys(trainings)), config.jobs, "meta-training")
    return pd.concat(parallel(evaluate, jobs, config.jobs, "evaluating"), ignore_index=True)


def _train(run_of: tuple[Config, Split, str, int]) -> None:
    config, split, method, seed = run_of
    train(training_of(config.contest(split.pool), method, seed), _pool(config.contest(split.pool).pool()))


@lru_cache(maxsize=2)
def _pool(config: PoolConfig) -> Pool:
    return Pool(config)


@lru_cache(maxsize=4)
def _images(name: str, split: Literal["train", "test"], per_class: int, channels: int) -> ImageDataset:
    data = load_images(name, split, channels=channels, progress=False)
    return data.at_most(per_class) if per_class else data


def evaluate(job: Job) -> pd.DataFrame:
    """Let one method classify the episodes of one unseen source.

    Args:
        job: Which.

    Returns:
        Rows of ``run``'s table.
    """
    config, contest = job.config, job.config.contest(job.split.pool)
    train_images, test_images = unseen_images(config, job.split)
    pool = _pool(contest.pool())
    ways = train_images.num_classes if job.whole else config.ways
    episodes = config.whole if job.whole else config.unseen_episodes
    drawn = EpisodeConfig(ways, episodes.sketch_per_class, episodes.support_per_class, episodes.query_per_class)
    sampler = EpisodeSampler([train_images], drawn, config.seed + 3_000_003, query_pool=[test_images])
    swaps: tuple[Swap, ...] = ("own", "far") if job.whole else ("own", "far", "near")  # no class is left for a near one
    scene = Scene(sampler, Swapper([train_images, *pool.train], episodes.sketch_per_class, config.seed), swaps, (0,))
    table = measure(contest, config.protocol(job.whole), job.method, job.seed, scene, pool=pool)
    return table.assign(target=config.target, ways=WHOLE if job.whole else str(config.ways))


def unseen_images(config: Config, split: Split) -> tuple[ImageDataset, ImageDataset]:
    """Load the unseen source: training and test images, all classes."""
    channels = TARGETS[config.target].channels
    parts: Sequence[Literal["train", "test"]] = ("train", "test")
    found = [_images(split.unseen, part, config.max_per_class, channels) for part in parts]
    return found[0], found[1]


def trust(config: Config) -> pd.DataFrame:
    """Report how far to trust each PudNet on episodes of its unseen source, beside the truth.

    Args:
        config: As given to ``run``, whose meta-trained models are taken from the cache.

    Returns:
        What ``trust_calibration.calibrate`` gives, for all splits, designs and seeds; empty if no PudNet takes part.
    """
    designs = [d for d in DESIGNS if d in config.methods]
    jobs = [Job(config, split, d, seed) for split in splits(config) for d in designs for seed in config.seeds]
    return pd.concat([pd.DataFrame(), *parallel(_calibrate, jobs, config.jobs, "trust reports")], ignore_index=True)


def _calibrate(job: Job) -> pd.DataFrame:
    config, contest = job.config, job.config.contest(job.split.pool)
    pool = _pool(contest.pool())
    model = train(training_of(contest, job.method, job.seed), pool).model.to(config.protocol().device)
    seen = pool.training_episodes(config.training_episodes).pool
    fits = (job.method, job.seed) == (TUNED["fine-tuned"], config.seeds[0])  # training on episodes is what costs
    data = unseen_images(config, job.split)
    table = calibrate(model, *data, seen, config.trust, config.ways, config.seed, config.accelerator, fits)
    return table.assign(method=job.method, seed=job.seed)
