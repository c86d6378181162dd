"""Who takes part in a comparison, within a source or between sources, and how each is meta-trained.

Our choice: every meta-trained method gets the same images, episodes and number of steps. The learning rates of the
plain PudNet, the shared network and the constant embedding were the best of three each on held-out training classes
(width 8, 600 steps, 3 seeds), by margins within the seeds' spread, in a search that is no command of this repository;
the kit's base has the shared network's rate, and the metric rivals' rates were not searched. Long schedules have the
rates that were best at 3,000 steps (``LONG_FACTORS``); twice its rate is 0.2 points better there for the shared
network, within the interval, and is not taken, for the kit's base has the same. For a ResNet-18 all were searched
anew, on Tiny-ImageNet (``RATE_FACTORS``). Two designs of PudNet are compared: ``paper`` is the plain one [code] with
standardised filters and wider generators, and the paper's three losses; ``kit`` generates a residual on a base that
was meta-trained as a shared network, and refines the prediction on the labelled images. The steps of the refinement
and the losses of the kit and of both blind controls (``LOSSES``) were chosen on held-out training classes by
``scripts/search_conditioning.py``, the steps for a ResNet-18 by ``scripts/search_refinement.py``; a ResNet-18 keeps
all losses, with which its rates were searched.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pudnet_lib.core import PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaConfig, Precision, ScaleConfig
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import unknown_name
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods.cache import trained
from pudnet_lib.methods.rivals import RIVALS, RivalConfig, trained_rival
from pudnet_lib.methods.run import TrainConfig, TrainOutcome
from pudnet_lib.profiles import replace_fields

#: Target's name → its config; the number is the width.
TARGETS = {
    "ConvNet-3, width 4": TargetConfig(width=4),
    "ConvNet-3, width 8": TargetConfig(width=8),
    "ConvNet-3, width 16": TargetConfig(width=16),
    "ConvNet-3, width 64": TargetConfig(width=64),
    "ResNet-18": TargetConfig("resnet18", 64),
}
#: The kit's refinement: ten gradient steps on all labelled images, shorter and shorter, at prediction only.
REFINED: dict[str, Any] = {
    "pudnet.refine": LastBlock(steps=10, rate=0.1, decay=0.85),
}
#: Neither the auxiliary classifier nor the consistency with it.
CLASS_LOSS_ALONE = LossWeights(auxiliary=0.0, consistency=0.0)
#: Target's architecture → losses of the kit, its base and both blind controls, where fewer than the paper's three were
#: better on held-out training classes (``scripts/search_conditioning.py``). The plain design keeps the paper's losses.
LOSSES: dict[str, LossWeights] = {"convnet3": CLASS_LOSS_ALONE}
#: The plain design.
PAPER = "PudNet (paper)"
#: Predictor → what differs from ``TrainConfig``'s defaults.
PREDICTORS: dict[str, dict[str, Any]] = {
    PAPER: {
        "pudnet.generator_width": 32,
        "pudnet.filter_norm": "standardise",
        "meta.learning_rate": 1e-3,
    },
    "PudNet (kit)": {
        "pudnet.generator_width": 32,
        "pudnet.residual": True,
        **REFINED,
        "meta.learning_rate": 1e-3,
        "meta.direct_learning_rate": 2e-3,
        "base_learning_rate": 2e-2,
    },
    "shared network": {"kind": "shared", "meta.learning_rate": 2e-2},
    "constant embedding": {
        "pudnet.embedding": "constant",
        "pudnet.generator_width": 32,
        "pudnet.filter_norm": "standardise",
        "meta.learning_rate": 1e-2,
    },
}
#: A control: the shared network with the kit's refinement, without a hypernetwork.
REFINED_SHARED = "shared network, refined"
#: Target's architecture → method → factor on all its rates where another one than the above was better on held-out
#: training classes (``scripts/search_rates.py``).
RATE_FACTORS: dict[str, dict[str, float]] = {
    "resnet18": {
        PAPER: 0.3,
        "PudNet (kit)": 0.1,
        "shared network": 0.03,
        "constant embedding": 0.03,
        "ProtoNet": 0.3,
        "MatchingNet": 0.1,
        "Meta-Baseline": 0.1,
        "Meta-DeepBDC": 0.1,
        "MUSML": 0.03,
    }
}
#: From so many steps on, a ConvNet-3's contenders have the rates that ``scripts/search_conditioning.py`` found at 3,000
#: steps; method → factor.
LONG_STEPS = 2000
LONG_FACTORS: dict[str, float] = {PAPER: 20.0}
#: Target's architecture → factor on the length of the kit's refinement steps (``scripts/search_refinement.py``).
REFINE_FACTORS: dict[str, float] = {"resnet18": 0.1}
#: The share of a residual design's steps that comes after its base.
OWN_SHARE = 1 / 6
#: Those that look at the dataset, for which the swapped sketches are measured.
CONDITIONED = (PAPER, "PudNet (kit)")
#: The rivals' own modules (LSTMs, coordinates) want a smaller rate than a backbone's weights.
RIVAL_RATES = {"learning_rate": 3e-3, "direct_learning_rate": 2e-2}
#: One shared network for each source alone: the ceiling of what knowing the kind of images can give.
SPECIALIST = "specialist"


@dataclass(frozen=True)
class Contest:
    """What all contenders have in common.

    Attributes:
        sources: The pool.
        target: The target network.
        episodes: What a training episode holds.
        steps: Meta-training steps.
        accelerator: Lightning Fabric's.
        max_per_class: At most so many training images a class of the pool; 0 for all.
        size: Pixels, height and width.
        episodes_per_step: Episodes whose gradients are averaged in a step.
        precision: Lightning Fabric's.
    """

    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs")
    target: TargetConfig = field(default_factory=TargetConfig)
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    steps: int = 1000
    accelerator: str = "cpu"
    max_per_class: int = 0
    size: int = 32
    episodes_per_step: int = 1
    precision: Precision = "32-true"

    def pool(self, source: str = "") -> PoolConfig:
        """The images: the one source of a specialist, or all."""
        return PoolConfig((source,) if source else self.sources, size=self.size, max_per_class=self.max_per_class)


def train_config(contest: Contest, method: str, seed: int, source: str = "") -> TrainConfig | RivalConfig:
    """Build a contender's meta-training run, with the learning rates that suit the target; see ``unscaled_config``."""
    factors = RATE_FACTORS.get(contest.target.name, LONG_FACTORS if contest.steps >= LONG_STEPS else {})
    name = "shared network" if method == SPECIALIST else method
    config = with_rates(unscaled_config(contest, method, seed, source), factors.get(name, 1.0))
    return config


def with_rates(config: TrainConfig | RivalConfig, factor: float) -> TrainConfig | RivalConfig:
    """Multiply all learning rates of a run, the base's too, by one factor."""
    rate, direct = config.meta.learning_rate * factor, config.meta.direct_learning_rate * factor
    changed = replace(config, meta=replace(config.meta, learning_rate=rate, direct_learning_rate=direct))
    if isinstance(changed, TrainConfig) and changed.base_steps:
        changed = replace(changed, base_learning_rate=changed.base_learning_rate * factor)
    return changed


def unscaled_config(contest: Contest, method: str, seed: int, source: str = "") -> TrainConfig | RivalConfig:
    """Build a contender's meta-training run with the rates that were found for a ConvNet-3.

    Args:
        contest: What all have in common.
        method: One of ``PREDICTORS``, ``RIVALS`` or ``"specialist"``.
        seed: Seed of weights and episodes.
        source: The one source of a specialist.

    Returns:
        The run's configuration.

    Raises:
        PudNetError: If there is no such method.
    """
    meta = MetaConfig(
        steps=contest.steps,
        seed=seed,
        validate_every=0,
        accelerator=contest.accelerator,
        episodes_per_step=contest.episodes_per_step,
        precision=contest.precision,
    )
    pool = contest.pool(source if method == SPECIALIST else "")
    if method in RIVALS:
        meta = replace(meta, **RIVAL_RATES)  # type: ignore[arg-type]
        return RivalConfig(method, contest.target, seed, pool, contest.episodes, meta, seed)
    name = "shared network" if method == SPECIALIST else method
    if name not in PREDICTORS:
        raise unknown_name("method", method, (*PREDICTORS, *RIVALS, SPECIALIST))
    base = TrainConfig("pudnet", PudNetConfig(contest.target, seed=seed), pool, contest.episodes, meta, seed)
    if name != PAPER and contest.target.name in LOSSES:
        base = replace(base, meta=replace(meta, weights=LOSSES[contest.target.name]))
    changed = replace_fields(base, PREDICTORS[name])
    if not changed.pudnet.residual:
        return changed
    own = max(1, round(OWN_SHARE * contest.steps))  # the base's steps count: the same episodes for everybody
    return replace(changed, meta=replace(changed.meta, steps=own), base_steps=max(1, contest.steps - own))


def kit_config(target: TargetConfig) -> PudNetConfig:
    """The kit's design for a target."""
    return replace_fields(TrainConfig(pudnet=PudNetConfig(target)), PREDICTORS["PudNet (kit)"]).pudnet


def train(
    config: TrainConfig | RivalConfig, pool: Pool | None = None, scale: ScaleConfig | None = None
) -> TrainOutcome:
    """Give the run's model, from the cache if it was trained before; ``pool`` is its pool, if loaded already."""
    if isinstance(config, RivalConfig):
        return trained_rival(config, pool=pool, scale=scale)
    return trained(config, progress=False, pool=pool, scale=scale)
