"""A whole meta-training run: pool, model, trainer, model file. What ``pudnet train`` and the experiments call.

Paper, Section 3.3 and 4.1. Our choice: one config for everything, stored in the model file's notes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pudnet_lib.runs  # noqa: F401  (its hooks register themselves)
from pudnet_lib.core import ParameterModel, PudNet, PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.meta import MetaConfig, MetaStep, ScaleConfig, is_first_rank, meta_train
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.models import load_model, save_model
from pudnet_lib.images.pool import Pool, PoolConfig


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a meta-training run depends on.

    Attributes:
        kind: ``"pudnet"``, or ``"shared"`` for the control without a hypernetwork.
        pudnet: The hypernetwork; of a shared network, its ``target`` and ``seed`` count.
        pool: The images.
        episodes: What an episode holds.
        meta: The trainer.
        episode_seed: Seed of the episodes.
        base_steps: Of a residual PudNet: first meta-train its learned base as a shared network for so many steps (our
            choice), so that the hypernetwork has only to learn what differs between datasets; 0 for none.
        base_learning_rate: Peak learning rate of that stage.
    """

    kind: Literal["pudnet", "shared"] = "pudnet"
    pudnet: PudNetConfig = field(default_factory=PudNetConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    meta: MetaConfig = field(default_factory=MetaConfig)
    episode_seed: int = 0
    base_steps: int = 0
    base_learning_rate: float = 2e-2

    def __post_init__(self) -> None:
        if self.base_steps and (self.kind != "pudnet" or not self.pudnet.residual):
            raise PudNetError("TrainConfig.base_steps needs a PudNet with residual=True: only that has a learned base.")


@dataclass(frozen=True)
class TrainOutcome:
    """What a run gives.

    Attributes:
        model: The trained model, in evaluation mode, on the CPU.
        model_path: Its file; None if no folder was given.
        steps: Steps done, the base's included.
        seconds: Meta-training seconds, the base's included, validation excluded.
        validation: Last accuracy on held-out training classes, in 0..1; None if never measured.
    """

    model: ParameterModel
    model_path: Path | None
    steps: int
    seconds: float
    validation: float | None


def build_model(config: TrainConfig) -> ParameterModel:
    """Build the untrained model of a run."""
    if config.kind == "shared":
        return SharedNetwork(SharedConfig(config.pudnet.target, config.pudnet.seed))
    return PudNet(config.pudnet)


def train_run(
    config: TrainConfig,
    run_dir: Path | None = None,
    progress: bool = True,
    pool: Pool | None = None,
    scale: ScaleConfig | None = None,
) -> TrainOutcome:
    """Meta-train, or load what a finished run left in its folder.

    Args:
        config: Everything.
        run_dir: The run's folder; None keeps nothing.
        progress: Show a progress bar.
        pool: ``config.pool``, if it is loaded already.
        scale: How the work is compiled and spread, when to stop early.

    Returns:
        The model and what it cost.

    Raises:
        PudNetError: If the folder holds a run of another configuration, or an input is bad.
    """
    path = None if run_dir is None else run_dir / "model.safetensors"
    if path is not None and path.is_file():
        model, notes = load_model(path)
        if notes["train"] == _plain(config):
            return TrainOutcome(model, path, notes["steps"], notes["seconds"], notes["validation"])
    model = build_model(config)
    pool = pool or Pool(config.pool)
    validation = (
        pool.validation_episodes(config.episodes) if config.pool.hold_out and config.meta.validate_every else None
    )
    # A base is trained on the episodes that a shared network of this seed sees, what comes after it on others.
    episodes = pool.training_episodes(config.episodes, config.episode_seed + (500_009 if config.base_steps else 0))
    base_seconds, step = _train_base(config, model, pool, run_dir, progress, scale)
    result = meta_train(model, episodes, config.meta, validation, run_dir, progress, step_module=step, scale=scale)
    steps, seconds = result.steps + config.base_steps, round(result.seconds + base_seconds, 2)
    last = next((row["validation"] for row in reversed(result.history) if "validation" in row), None)
    model.to("cpu").eval()
    if path is not None and is_first_rank():
        save_model(model, path, train=_plain(config), steps=steps, seconds=seconds, validation=last)
    return TrainOutcome(model, path, steps, seconds, last)


def _train_base(
    config: TrainConfig,
    model: ParameterModel,
    pool: Pool,
    run_dir: Path | None,
    progress: bool,
    scale: ScaleConfig | None,
) -> tuple[float, MetaStep | None]:
    """Meta-train the base of a residual PudNet on other episodes, and hand it over with its auxiliary classifier."""
    if not config.base_steps:
        return 0.0, None
    assert isinstance(model, PudNet)
    episodes = pool.training_episodes(config.episodes, config.episode_seed)
    meta = base_meta(config.meta, config.base_steps, config.base_learning_rate)

    def step_of(trained: ParameterModel) -> MetaStep:
        return MetaStep(trained, episodes.num_classes, meta.weights, meta.seed)

    seconds, base_step = train_base(model, episodes, meta, step_of, run_dir, progress, scale)
    step = step_of(model)
    step.auxiliary = base_step.auxiliary
    return seconds, step


def base_meta(meta: MetaConfig, steps: int, learning_rate: float) -> MetaConfig:
    """The trainer's configuration for a base."""
    return replace(meta, steps=steps, learning_rate=learning_rate, direct_learning_rate=0.0)


def train_base(
    model: PudNet,
    episodes: EpisodeSampler,
    meta: MetaConfig,
    step_of: Callable[[ParameterModel], MetaStep],
    run_dir: Path | None = None,
    progress: bool = True,
    scale: ScaleConfig | None = None,
) -> tuple[float, MetaStep]:
    """Meta-train a shared network and hand its weights to a residual PudNet as the learned base; any task.

    Args:
        model: The PudNet; changed in place.
        episodes: Episodes for the base.
        meta: The trainer, with the base's steps and rate (``base_meta``).
        step_of: What turns an episode into losses, for a given model.
        run_dir: The run's folder; the base's state goes into its ``base``.
        progress: Show a progress bar.
        scale: How the work is compiled and spread.

    Returns:
        Seconds, and the step module that was trained, with its auxiliary classifier if it has one.
    """
    base = SharedNetwork(SharedConfig(model.config.target, model.config.seed))
    step = step_of(base)
    folder = None if run_dir is None else run_dir / "base"
    result = meta_train(base, episodes, meta, None, folder, progress, step_module=step, scale=scale)
    model.adopt(base.cpu())
    return result.seconds, step


def _plain(config: TrainConfig) -> dict[str, Any]:
    """The config as JSON gives it back: lists for tuples."""
    import json

    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain
