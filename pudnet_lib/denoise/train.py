"""Meta-training of a denoiser's predictor, through the kit's one meta-trainer.

Paper [code]: U-Net, Noise2Void loss, one Adam step an episode. Our choice: the supervised loss as an option, for
meta-training may have clean images even where the dataset to be cleaned has none; a base that is meta-trained as a
shared U-Net first; the shared U-Net as a control.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.meta import MetaConfig, meta_train
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.denoise.episodes import DenoisingStep, NoisyEpisodeConfig, NoisyEpisodeSampler
from pudnet_lib.denoise.sources import PHOTOGRAPHS, TEXTURES, load_source
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.models import load_model, save_model
from pudnet_lib.methods.run import TrainConfig, TrainOutcome, base_meta, build_model, train_base

#: A denoiser's own default: without an auxiliary classifier's validation, momentum as in the literature on denoising.
DENOISER_META = MetaConfig(
    steps=4000, learning_rate=1e-3, direct_learning_rate=2e-3, beta1=0.9, validate_every=0, clip_norm=1.0,
    accelerator="cpu",
)  # fmt: skip


#: Added to the seed of the episodes while a base is trained, so that the hypernetwork gets other ones.
BASE_SEED = 500_009


@dataclass(frozen=True)
class DenoiserTrainConfig:
    """Everything that a denoiser's meta-training depends on.

    Attributes:
        kind: ``"pudnet"``, or ``"shared"`` for the control without a hypernetwork.
        pudnet: The hypernetwork; of a shared network, its ``target`` and ``seed`` count.
        sources: Names or image folders; their training classes are used.
        episodes: What an episode holds.
        meta: The trainer; its loss weights do not matter here.
        episode_seed: Seed of the episodes.
        base_steps: Of a residual PudNet: first meta-train its learned base as a shared U-Net for so many steps.
        base_learning_rate: Peak learning rate of that stage.
    """

    kind: Literal["pudnet", "shared"] = "pudnet"
    pudnet: PudNetConfig = field(
        default_factory=lambda: PudNetConfig(TargetConfig("unet", 12), dim=64, residual=True, pooling="mean_std")
    )
    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs", PHOTOGRAPHS, TEXTURES)
    episodes: NoisyEpisodeConfig = field(default_factory=NoisyEpisodeConfig)
    meta: MetaConfig = field(default_factory=lambda: DENOISER_META)
    episode_seed: int = 0
    base_steps: int = 0
    base_learning_rate: float = 5e-3

    def __post_init__(self) -> None:
        if self.base_steps and (self.kind != "pudnet" or not self.pudnet.residual):
            raise PudNetError("base_steps needs a PudNet with residual=True: only that has a learned base.")


def train_denoiser(config: DenoiserTrainConfig, run_dir: Path | None = None, progress: bool = True) -> TrainOutcome:
    """Meta-train, or load what a finished run left in its folder; an interrupted run goes on.

    Args:
        config: Everything.
        run_dir: The run's folder; None keeps nothing.
        progress: Show a progress bar.

    Returns:
        The model and what it cost.

    Raises:
        PudNetError: If the folder holds a run of another configuration, or an input is bad.
    """
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    path = None if run_dir is None else run_dir / "model.safetensors"
    if path is not None and path.is_file():
        model, notes = load_model(path)
        if notes["train"] == plain:
            return TrainOutcome(model, path, notes["steps"], notes["seconds"], None)
    model = build_model(TrainConfig(config.kind, config.pudnet))
    target = config.pudnet.target
    pool = [load_source(name, channels=target.channels).meta for name in config.sources]
    sampler = NoisyEpisodeSampler(pool, config.episodes, config.episode_seed)
    base_seconds = 0.0
    if config.base_steps:
        assert isinstance(model, PudNet)
        others = NoisyEpisodeSampler(pool, config.episodes, config.episode_seed + BASE_SEED)
        meta = base_meta(config.meta, config.base_steps, config.base_learning_rate)
        base_seconds, _ = train_base(model, others, meta, DenoisingStep, run_dir, progress)
    result = meta_train(model, sampler, config.meta, None, run_dir, progress, step_module=DenoisingStep(model))
    model.to("cpu").eval()
    steps, seconds = result.steps + config.base_steps, round(result.seconds + base_seconds, 2)
    if path is not None:
        save_model(model, path, train=plain, steps=steps, seconds=seconds)
    return TrainOutcome(model, path, steps, seconds, None)
