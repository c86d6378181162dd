"""Meta-training of a denoiser's predictor, through the kit's one meta-trainer.

Paper [code]: U-Net, Noise2Void loss, one Adam step a group. Our choice: the loss in units of the noise's variance, so
that strong noise does not drown the weak; the supervised loss as an option; the shared U-Net as a control.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from pudnet_lib.datasets.image_dataset import PIXEL_STD, normalise
from pudnet_lib.denoising.blind_spot import blind_spot_loss
from pudnet_lib.denoising.groups import NoisyGroup, NoisyGroupConfig, NoisyGroupSampler
from pudnet_lib.denoising.sources import PHOTOGRAPHS, TEXTURES, load_source
from pudnet_lib.hypernetwork import ParameterModel, PudNetConfig
from pudnet_lib.targets import TargetConfig
from pudnet_lib.training.losses import LossWeights
from pudnet_lib.training.meta import MetaConfig, MetaStep, meta_train
from pudnet_lib.training.models import load_model, save_model
from pudnet_lib.training.run import TrainConfig, TrainOutcome, build_model


class DenoisingLosses(NamedTuple):
    """What a step gives: the loss, in units of the noise's variance."""

    total: Tensor


class DenoisingStep(MetaStep):
    """A parameter model that denoises: noisy group in, loss out.

    Args:
        model: PudNet or shared network whose target maps images to images; trained in place.
    """

    def __init__(self, model: ParameterModel) -> None:
        super().__init__(model, 0, LossWeights(1, 0, 0))

    def forward(self, group: NoisyGroup) -> DenoisingLosses:  # type: ignore[override]
        """Predict from the noisy sketch, denoise, compare where the mask is set."""
        estimate = self.model.features(self.model(group.sketch), group.seen)  # (N, C, H, W), normalised
        variance = (group.sigma / 255 / PIXEL_STD) ** 2
        return DenoisingLosses(blind_spot_loss(estimate, normalise(group.goal), group.mask) / variance)


@dataclass(frozen=True)
class DenoiserTrainConfig:
    """Everything that a denoiser's meta-training depends on.

    Attributes:
        kind: ``"pudnet"``, or ``"shared"`` for the control without a hypernetwork.
        pudnet: The hypernetwork; of a shared network, its ``target`` and ``seed`` count.
        sources: Names or image folders; their training classes are used.
        groups: What a group holds.
        meta: The trainer; its loss weights do not matter here.
        group_seed: Seed of the groups.
    """

    kind: Literal["pudnet", "shared"] = "pudnet"
    pudnet: PudNetConfig = field(
        default_factory=lambda: PudNetConfig(TargetConfig("unet", 12), dim=64, residual=True, pooling="mean_std")
    )
    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs", PHOTOGRAPHS, TEXTURES)
    groups: NoisyGroupConfig = field(default_factory=NoisyGroupConfig)
    meta: MetaConfig = field(
        default_factory=lambda: MetaConfig(steps=4000, validate_every=0, clip_norm=1.0, accelerator="cpu")
    )
    group_seed: int = 0


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
    sampler = NoisyGroupSampler(pool, config.groups, config.group_seed)
    result = meta_train(model, sampler, config.meta, None, run_dir, progress, step_module=DenoisingStep(model))
    model.to("cpu").eval()
    if path is not None:
        save_model(model, path, train=plain, steps=result.steps, seconds=round(result.seconds, 2))
    return TrainOutcome(model, path, result.steps, result.seconds, None)
