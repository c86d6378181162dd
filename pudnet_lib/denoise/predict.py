"""Predict a denoiser from noisy images alone.

Paper [code]: sketch → parameters → U-Net. Deviation: the sketch is a draw from the dataset's noisy images, not the
test batch. A U-Net has no batch norm here, so nothing is recalibrated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pudnet_lib.core.dataset import PIXEL_MEAN, PIXEL_STD, normalise
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import Stopwatch, predict_backbone
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.denoise.episodes import to_unit
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import config_from_dict, load_tensors, save_tensors, shapes_only


@dataclass(frozen=True)
class DenoiserConfig:
    """How a denoiser is predicted."""

    sketch_images: int = 50  # noisy images that the hypernetwork looks at ([code]: 50)
    patch: int = 32  # side in pixels of the patches that are cut from larger images
    seed: int = 0  # of the draw

    def __post_init__(self) -> None:
        if self.sketch_images < 1 or self.patch < 8:
            raise PudNetError(f"{self}: sketch_images must be at least 1 and patch at least 8.")


@dataclass(frozen=True)
class DenoiserFacts:
    """What a denoiser's file says of it."""

    target: TargetConfig
    origin: dict[str, Any]
    seconds: dict[str, float]


class Denoiser(nn.Module):
    """A predicted image-to-image network, ready to use; ``backbone`` maps normalised images to normalised images."""

    def __init__(
        self, backbone: nn.Module, target: TargetConfig | None = None, origin: Mapping[str, Any] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone, self.target = backbone, target
        self.origin, self.seconds = dict(origin or {}), dict(seconds or {})
        self.eval()

    def forward(self, images: Tensor, batch_size: int = 128) -> Tensor:
        """Denoise images; no gradient."""
        with torch.no_grad():
            parts = [self.backbone(normalise(to_unit(part, noisy=True))) for part in images.split(batch_size)]
        return (torch.cat(parts).contiguous() * PIXEL_STD + PIXEL_MEAN).clamp_(0, 1)

    def save(self, path: Path | str) -> None:
        """Save as one safetensors file with its JSON description inside."""
        about = {"target": self.target and asdict(self.target), "origin": self.origin, "seconds": self.seconds}
        save_tensors(path, self.state_dict(), {"denoiser": about})

    @classmethod
    def load(cls, path: Path | str) -> Denoiser:
        """Load what ``save`` wrote."""
        from pudnet_lib.export.models import compare_shapes, load_state

        tensors, description = load_tensors(path)
        about = description.get("denoiser")
        if not isinstance(about, dict) or about.get("target") is None:
            raise PudNetError(f"{path} holds no denoiser that can be built; expected a file that Denoiser.save wrote.")
        facts: DenoiserFacts = config_from_dict(DenoiserFacts, about, f"{path}: denoiser.")
        with shapes_only():
            sketch = cls(build_target(facts.target))
        compare_shapes(sketch, tensors, str(path))
        denoiser = cls(build_target(facts.target), facts.target, facts.origin, facts.seconds)
        load_state(denoiser, tensors, str(path))
        return denoiser.eval()


def patches(noisy: Tensor | Sequence[Tensor], count: int, patch: int, generator: torch.Generator) -> Tensor:
    """Draw (count, C, patch, patch) at random places; images of the patch's size are taken whole, each once at most."""
    small = [tuple(image.shape[-2:]) for image in noisy if min(image.shape[-2:]) < patch]
    if small:
        raise PudNetError(f"{len(small)} images are smaller than {patch}×{patch} pixels, the first {small[0]}.")
    if isinstance(noisy, Tensor) and noisy.shape[-2:] == (patch, patch):
        return noisy[torch.randperm(len(noisy), generator=generator)[:count]]
    chosen = [noisy[i] for i in torch.randint(len(noisy), (count,), generator=generator).tolist()]
    cut = []
    for image, (v, u) in zip(chosen, torch.rand(count, 2, generator=generator).tolist(), strict=True):
        top, left = int(v * (image.shape[1] - patch + 1)), int(u * (image.shape[2] - patch + 1))
        cut.append(image[:, top : top + patch, left : left + patch])
    return torch.stack(cut)


def predict_denoiser(
    model: ParameterModel, noisy: Tensor | Sequence[Tensor], config: DenoiserConfig | None = None,
    sketch: Tensor | None = None,
) -> Denoiser:  # fmt: skip
    """Predict a denoiser for a dataset of noisy images. Neither the model nor the global generators change."""
    config = config or DenoiserConfig()
    target: TargetConfig | None = None if getattr(model, "own_target", False) else model.config.target
    if len(noisy) == 0:
        raise PudNetError("There are no noisy images; expected at least one.")
    if target is not None and target.name != "unet":
        raise PudNetError(f"This model predicts a {target.name}, which cleans no images; expected one for a 'unet'.")
    if noisy[0].shape[0] != model.feature_dim:
        raise PudNetError(f"The images have {noisy[0].shape[0]} channels; this denoiser reads {model.feature_dim}.")
    watch = Stopwatch(model.device)
    with watch.part("sketch"):
        if sketch is None:
            sketch = patches(noisy, config.sketch_images, config.patch, torch.Generator().manual_seed(config.seed))
        sketch = to_unit(sketch, noisy=True)
    backbone, *_ = predict_backbone(model, sketch, None, None, watch=watch)
    return Denoiser(backbone, target, {"images": len(noisy), "model": type(model).__name__}, watch.seconds)
