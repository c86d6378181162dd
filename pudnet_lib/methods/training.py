"""Meta-training of any registered method: one specification, one cache, one loop over a dict of recipes.

Our choice. A run's folder is named by a hash of all that it depends on, so that it is trained once, found again, and
resumed if it was cut off. Every method gets the same images, episodes and number of steps.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import pudnet_lib.runs  # noqa: F401  (its hooks register themselves)
from pudnet_lib.core import ParameterModel, PudNet, PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaConfig, MetaStep, ScaleConfig, is_first_rank
from pudnet_lib.core.meta import meta_train as meta_train_model
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.export.models import load_state, save
from pudnet_lib.files import load_tensors, lock, save_tensors, sweep
from pudnet_lib.images.cache import cache_folder
from pudnet_lib.images.named import manifest
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods.registry import Recipe, method
from pudnet_lib.parallel import parallel

#: Raised when meta-training changes so that older runs in the cache are no longer its own.
VERSION = 3
#: Added to the seed of the episodes after a base, which has those of a shared network of the same seed.
AFTER_BASE = 500_009


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a meta-training run depends on.

    Attributes:
        method: Name in the registry: ``"pudnet"``, ``"shared"`` for the control without a hypernetwork, or a rival.
        model: The model's config; of the registry's class for this method.
        pool: The images.
        episodes: What an episode holds.
        meta: The trainer, with its rates and losses.
        episode_seed: Seed of the episodes.
        base_steps: Of a residual PudNet: first meta-train its learned base as a shared network for so many steps (our
            choice), so that the hypernetwork has only to learn what differs between datasets; 0 for none.
        base_learning_rate: Peak learning rate of that stage.
    """

    method: str = "pudnet"
    model: Any = field(default_factory=PudNetConfig)
    pool: Any = field(default_factory=PoolConfig)
    episodes: Any = field(default_factory=EpisodeConfig)
    meta: MetaConfig = field(default_factory=MetaConfig)
    episode_seed: int = 0
    base_steps: int = 0
    base_learning_rate: float = 2e-2

    def __post_init__(self) -> None:
        if self.base_steps and not getattr(self.model, "residual", False):
            raise PudNetError("TrainConfig.base_steps needs a PudNet with residual=True: only that has a learned base.")


class Task(NamedTuple):
    """What is learned: by default to classify."""

    episodes: Callable[[int], Any]  # seed to a sampler of meta-training episodes
    step: Callable[[ParameterModel, Any, LossWeights, int], MetaStep]  # model, sampler, losses, seed
    validation: Any = None  # episodes to validate on


class TrainOutcome(NamedTuple):
    """What a run gives: the model, in evaluation mode on the CPU, and what it cost, its base included."""

    model: ParameterModel
    model_path: Path | None
    steps: int
    seconds: float  # validation excluded
    validation: float | None  # last accuracy on held-out training classes, in 0..1


def build_model(config: TrainConfig) -> ParameterModel:
    """Build the untrained model of a run."""
    kind = method(config.method)
    if kind.model is None:
        raise PudNetError(f"The method {config.method!r} is not meta-trained; nothing to build.")
    own = config.model
    if kind.config is SharedConfig and isinstance(own, PudNetConfig):  # the command line's: its target and seed count
        own = SharedConfig(own.target, own.seed)
    return kind.model(own)


def classify(config: TrainConfig, pool: Pool | None = None) -> Task:
    """The task of a run: to classify episodes of its pool."""
    images = pool or Pool(config.pool)
    validate = config.pool.hold_out and config.meta.validate_every
    return Task(
        lambda seed: images.training_episodes(config.episodes, seed),
        lambda model, sampler, weights, seed: MetaStep(model, sampler.num_classes, weights, seed),
        images.validation_episodes(config.episodes) if validate else None,
    )


def train(
    config: TrainConfig, run_dir: Path | None = None, progress: bool = True, pool: Pool | None = None,
    scale: ScaleConfig | None = None, task: Task | None = None,
) -> TrainOutcome:  # fmt: skip
    """Meta-train, or load what a finished run left in its folder; one that was cut off goes on."""
    path, model = run_dir and run_dir / "model.safetensors", build_model(config)
    plain = json.loads(json.dumps(asdict(config)))  # as JSON gives it back: lists for tuples
    with _alone(run_dir):
        if path is not None and path.is_file():
            tensors, description = load_tensors(path)
            notes = description.get("notes", {})
            if notes.get("train") == plain:
                load_state(model, tensors, str(path))
                return TrainOutcome(model.eval(), path, notes["steps"], notes["seconds"], notes["validation"])
        task = task or classify(config, pool)
        seconds, steps, auxiliary, last = 0.0, 0, None, None
        for name, part, meta, seed in _stages(config, model):
            episodes = task.episodes(seed)
            step = task.step(part, episodes, meta.weights, meta.seed)
            if auxiliary is not None and step.auxiliary is not None:
                step.auxiliary = auxiliary
            result = meta_train_model(
                part, episodes, meta, task.validation if part is model else None, run_dir and run_dir / name, progress,
                step_module=step, scale=scale,
            )  # fmt: skip
            if part is not model:
                assert isinstance(model, PudNet)
                model.adopt(part.cpu())
                auxiliary = step.auxiliary
            seconds, steps = seconds + result.seconds, steps + result.steps
            last = next((row["validation"] for row in reversed(result.history) if "validation" in row), last)
        model.to("cpu").eval()
        seconds = round(seconds, 2)
        if path is not None and is_first_rank():
            model.notes = {"train": plain, "steps": steps, "seconds": seconds, "validation": last}
            if config.method in ("pudnet", "shared"):
                save(model, path)
            else:
                save_tensors(path, model.state_dict(), {"notes": model.notes})
    return TrainOutcome(model, path, steps, seconds, last)


@contextmanager
def _alone(run_dir: Path | None) -> Iterator[None]:
    """Let one process at a time train in a folder."""
    if run_dir is None or not is_first_rank() or (run_dir / "model.safetensors").is_file():
        yield
        return
    alone = os.environ.get("WORLD_SIZE", "1") == "1"  # of several ranks only this one waited, and the others timed out
    then = "this one waits for it" if alone else "stop it, or start these ranks when it is done"
    with lock(run_dir / ".lock", f"Another process trains in {run_dir}; {then}.", wait=alone):
        sweep(run_dir)
        yield


def _stages(config: TrainConfig, model: ParameterModel) -> Iterator[tuple[str, ParameterModel, MetaConfig, int]]:
    """Folder, model, trainer and episodes' seed of each part of a run; a base comes first, as a shared network."""
    meta, seed = config.meta, config.episode_seed
    if config.base_steps:
        base = SharedNetwork(SharedConfig(config.model.target, config.model.seed))
        rate = config.base_learning_rate
        yield "base", base, replace(meta, steps=config.base_steps, learning_rate=rate, direct_learning_rate=0.0), seed
        seed += AFTER_BASE
    stages = method(config.method).stages
    if len(stages) < 2 or meta.steps < 2:
        yield ".", model, replace(meta, weights=stages[-1] if stages else meta.weights), seed
        return
    for i, weights in enumerate(stages):
        steps = meta.steps * (i + 1) // len(stages) - meta.steps * i // len(stages)
        yield f"stage-{i}", model, replace(meta, steps=steps, weights=weights), seed


def run_folder(config: TrainConfig) -> Path:
    """The folder of a run; its name depends on the configuration and on the embedded images' checksums."""
    sources = getattr(config.pool, "sources", config.pool)
    images = {name: entry["sha256"] for name, entry in manifest().items() if name in sources}
    identity = json.dumps([VERSION, asdict(config), images], sort_keys=True)
    return cache_folder() / "models" / hashlib.sha256(identity.encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Run:
    """A method with one seed, ready to learn datasets; ``training`` is None where nothing is meta-trained."""

    name: str
    recipe: Recipe
    seed: int  # of its meta-training, or of training on an episode
    target: TargetConfig
    training: TrainConfig | None = None

    def outcome(self, pool: Pool | None = None) -> TrainOutcome | None:
        """The meta-trained model and what it cost, from the cache; ``derive``d from another method's if need be."""
        if self.training is None:
            return None
        found = train(self.training, run_folder(self.training), False, pool)
        derive = self.recipe.kind.derive
        return found if derive is None else found._replace(model=derive(found.model, **self.recipe.options))

    def log(self) -> pd.DataFrame:
        """One row a meta-training step: method, seed, step over all stages, loss, accuracy, and what was logged."""
        tables, done, folder = [], 0, run_folder(self.training) if self.training else None
        logs = [folder / part / "log.csv" for part in ("base", "stage-0", "stage-1", ".")] if folder else []
        for table in (pd.read_csv(path) for path in logs if path.is_file()):
            tables.append(table.assign(step=table["step"] + done))
            done += len(table)
        table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        return table.assign(method=self.name, seed=self.seed)


class Runs(tuple[Run, ...]):
    """All methods of an experiment, each with its seeds; ``runs["PudNet (kit)", 0]`` is one of them."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return Runs(run for run in self if run.name == key)
        if not isinstance(key, tuple):
            return super().__getitem__(key)
        found = {(run.name, run.seed): run for run in self}
        if key not in found:
            raise unknown_name("run", str(key), map(str, found))
        return found[key]

    def log(self) -> pd.DataFrame:
        """The logs of all of them, below one another."""
        return pd.concat([run.log() for run in self], ignore_index=True)


def plan(
    methods: Mapping[str, Recipe], pool: Pool | PoolConfig, steps: int, seeds: Sequence[int] = (0,),
    target: TargetConfig | None = None, episodes: EpisodeConfig | None = None, **trainer: Any,
) -> Runs:  # fmt: skip
    """What ``meta_train`` would train, untrained; for studies whose runs differ in more than the recipe."""
    target, config = target or TargetConfig(), pool if isinstance(pool, PoolConfig) else pool.config
    runs: list[Run] = []
    for name, recipe in methods.items():
        first = recipe
        while first.start:
            if first.start not in methods:
                raise unknown_name(f"method that {name!r} starts from", first.start, methods)
            first = methods[first.start]
        base = min(steps - 1, round(first.base * steps))
        numbers = base, first.base_lr if base else TrainConfig.base_learning_rate
        plain: dict[str, Any] = {"steps": max(1, steps - base), "weights": first.losses, "validate_every": 0}
        plain |= {"learning_rate": first.lr, "direct_learning_rate": first.target_lr, "accelerator": "cpu"}
        for seed in seeds if first.kind.model else seeds[:1]:
            training = None
            if first.kind.model:
                own, meta = first.config(target, seed), MetaConfig(**(plain | {"seed": seed} | trainer))
                training = TrainConfig(first.method, own, config, episodes or EpisodeConfig(), meta, seed, *numbers)
            runs.append(Run(name, recipe, seed, target, training))
    return Runs(runs)


def train_runs(runs: Sequence[Run], jobs: int = 1, progress: bool = True, pool: Pool | None = None) -> Runs:
    """Train what the cache lacks, behind one bar."""
    missing: dict[TrainConfig, str] = {}
    for run in runs:
        if run.training and not (run_folder(run.training) / "model.safetensors").is_file():
            missing.setdefault(run.training, f"{run.name}, seed {run.seed}")
    one = partial(_train_one, pool=None if jobs > 1 else pool)
    parallel(one, list(missing), jobs, "meta-training" if progress else "", list(missing.values()))
    return Runs(runs)


def meta_train(
    methods: Mapping[str, Recipe], pool: Pool | PoolConfig, steps: int, seeds: Sequence[int] = (0,),
    target: TargetConfig | None = None, episodes: EpisodeConfig | None = None, jobs: int = 1, progress: bool = True,
    **trainer: Any,
) -> Runs:  # fmt: skip
    """Meta-train a dict of recipes on the same episodes; what the cache has is not trained again.

    Args:
        methods: Name to recipe. What needs no meta-training is carried along, with the first seed.
        pool: The images.
        steps: Steps of each run, the base's included.
        seeds: Seeds, one run each.
        target: The target network.
        episodes: What an episode of meta-training holds.
        jobs: Runs side by side.
        progress: Show one bar for all.
        **trainer: Further fields of ``MetaConfig``.

    Returns:
        The runs; ``run.outcome()`` has the trained model.
    """
    runs = plan(methods, pool, steps, seeds, target, episodes, **trainer)
    return train_runs(runs, jobs, progress, pool if isinstance(pool, Pool) else None)


_pool = lru_cache(maxsize=2)(Pool)  # of a worker


def _train_one(training: TrainConfig, pool: Pool | None) -> None:
    train(training, run_folder(training), False, pool or _pool(training.pool))
