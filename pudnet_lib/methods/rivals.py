"""Meta-training of the rivals: the same pool, episodes, steps and trainer as PudNet, found again in the same cache.

Our choice. A rival trains with its own loss alone (episodic), or in two stages if its method has a first one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pudnet_lib.runs  # noqa: F401  (its hooks register themselves)
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaConfig, ScaleConfig, is_first_rank, meta_train
from pudnet_lib.core.model import ParameterModel, SharedConfig
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import unknown_name
from pudnet_lib.export.models import load_state
from pudnet_lib.files import load_tensors, save_tensors
from pudnet_lib.images.packs import manifest
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods.cache import cache_folder
from pudnet_lib.methods.deepbdc import DeepBDC
from pudnet_lib.methods.matchingnet import MatchingNet
from pudnet_lib.methods.meta_baseline import MetaBaseline
from pudnet_lib.methods.musml import MUSML, MusmlConfig
from pudnet_lib.methods.protonet import ProtoNet
from pudnet_lib.methods.run import TrainOutcome

#: Method → its module and that module's config.
RIVALS: dict[str, tuple[type[Any], type[Any]]] = {
    "ProtoNet": (ProtoNet, SharedConfig),
    "MatchingNet": (MatchingNet, SharedConfig),
    "Meta-Baseline": (MetaBaseline, SharedConfig),
    "Meta-DeepBDC": (DeepBDC, SharedConfig),
    "MUSML": (MUSML, MusmlConfig),
}


@dataclass(frozen=True)
class RivalConfig:
    """A rival's meta-training run.

    Attributes:
        method: One of ``RIVALS``.
        target: The backbone.
        seed: Seed of the initial weights.
        pool: The images.
        episodes: What an episode holds.
        meta: The trainer; the method sets the losses' weights, two stages share the steps.
        episode_seed: Seed of the episodes.
    """

    method: str = "ProtoNet"
    target: TargetConfig = field(default_factory=TargetConfig)
    seed: int = 0
    pool: PoolConfig = field(default_factory=PoolConfig)
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    meta: MetaConfig = field(default_factory=MetaConfig)
    episode_seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in RIVALS:
            raise unknown_name("rival", self.method, RIVALS)


def build_rival(config: RivalConfig) -> ParameterModel:
    """Build the untrained rival."""
    kind, kind_config = RIVALS[config.method]
    model: ParameterModel = kind(kind_config(target=config.target, seed=config.seed))
    return model


def stages(config: RivalConfig) -> list[MetaConfig]:
    """The trainer's configurations, one a stage: classification over all classes, then episodes; or episodes alone."""
    meta, episodes = config.meta, LossWeights(1, 0, 0)
    if config.method not in ("Meta-Baseline", "Meta-DeepBDC") or meta.steps < 2:
        return [replace(meta, weights=episodes)]
    first = meta.steps // 2
    classify = replace(meta, steps=first, weights=LossWeights(0, 1, 0))
    return [classify, replace(meta, steps=meta.steps - first, weights=episodes)]


def trained_rival(
    config: RivalConfig, progress: bool = False, pool: Pool | None = None, scale: ScaleConfig | None = None
) -> TrainOutcome:
    """Give a meta-trained rival, from the cache if it was trained before; a cut-off run resumes.

    Args:
        config: Everything that the run depends on.
        progress: Show progress bars.
        pool: ``config.pool``, if it is loaded already.
        scale: How the work is compiled and spread.

    Returns:
        The model in evaluation mode on the CPU, and what it cost.
    """
    images = {name: entry["sha256"] for name, entry in manifest().items() if name in config.pool.sources}
    identity = json.dumps([asdict(config), images], sort_keys=True)
    folder = cache_folder() / f"rival-{hashlib.sha256(identity.encode()).hexdigest()[:20]}"
    path, model = folder / "rival.safetensors", build_rival(config)
    if path.is_file():
        tensors, notes = load_tensors(path)
        load_state(model, tensors, str(path))
        return TrainOutcome(model.eval(), path, notes["steps"], notes["seconds"], None)
    episodes = (pool or Pool(config.pool)).training_episodes(config.episodes, config.episode_seed)
    results = [
        meta_train(model, episodes, replace(meta, validate_every=0), None, folder / f"stage-{i}", progress, scale=scale)
        for i, meta in enumerate(stages(config))
    ]
    steps, seconds = sum(r.steps for r in results), round(sum(r.seconds for r in results), 2)
    model.to("cpu").eval()
    if is_first_rank():
        save_tensors(path, model.state_dict(), {"rival": asdict(config), "steps": steps, "seconds": seconds})
    return TrainOutcome(model, path, steps, seconds, None)
