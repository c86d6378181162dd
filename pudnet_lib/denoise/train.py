"""Meta-training of a denoiser's predictor, through the kit's one trainer and cache.

Paper [code]: U-Net, Noise2Void loss, one Adam step an episode. Our choice: the supervised loss as an option, for
meta-training may have clean images even where the dataset to be cleaned has none; a base that is meta-trained as a
shared U-Net first; the shared U-Net as a control.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from pudnet_lib.core import PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.meta import MetaConfig
from pudnet_lib.core.model import SharedConfig
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.denoise.episodes import DenoisingStep, NoisyEpisodeConfig, NoisyEpisodeSampler
from pudnet_lib.denoise.sources import PHOTOGRAPHS, TEXTURES, load_source
from pudnet_lib.methods.training import Task, TrainConfig, TrainOutcome, run_folder, train

#: A denoiser's own default: without an auxiliary classifier's validation, momentum as in the literature on denoising.
DENOISER_META = MetaConfig(
    steps=4000, learning_rate=1e-3, direct_learning_rate=2e-3, beta1=0.9, validate_every=0, clip_norm=1.0,
    accelerator="cpu",
)  # fmt: skip
UNET = PudNetConfig(TargetConfig("unet", 12), dim=64, generator_width=12, residual=True, pooling="mean_std")


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
    pudnet: PudNetConfig = UNET
    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs", PHOTOGRAPHS, TEXTURES)
    episodes: NoisyEpisodeConfig = field(default_factory=NoisyEpisodeConfig)
    meta: MetaConfig = DENOISER_META
    episode_seed: int = 0
    base_steps: int = 0
    base_learning_rate: float = 5e-3

    def run(self) -> TrainConfig:
        """The same as the kit's trainer and cache know it."""
        model = self.pudnet if self.kind == "pudnet" else SharedConfig(self.pudnet.target, self.pudnet.seed)
        numbers = self.meta, self.episode_seed, self.base_steps, self.base_learning_rate
        return TrainConfig(self.kind, model, self.sources, self.episodes, *numbers)


def train_denoiser(config: DenoiserTrainConfig, run_dir: Path | None = None, progress: bool = True) -> TrainOutcome:
    """Meta-train, or load what a finished run left in its folder (by default the cache's); one cut off goes on."""

    @cache
    def pool() -> list[ImageDataset]:
        return [load_source(name, channels=config.pudnet.target.channels).meta for name in config.sources]

    task = Task(lambda seed: NoisyEpisodeSampler(pool(), config.episodes, seed), lambda model, *_: DenoisingStep(model))
    return train(config.run(), run_dir or run_folder(config.run()), progress, task=task)
