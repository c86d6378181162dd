"""PredictedNetwork: what ``predict`` returns, an ordinary module that classifies images.

Paper, Section 3.2: no classifier is predicted; a class is the cosine to its mean feature, times τ. Our choice: images
go in as they come from a file (0..255 or 0..1), so that nobody has to know the normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.heads import cosine_logits
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.hub import HubMixin
from pudnet_lib.files import load_tensors, save_tensors

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from pudnet_lib.core.dataset import ImageDataset
    from pudnet_lib.core.model import ParameterModel
    from pudnet_lib.trust import TrustReport


@dataclass(frozen=True)
class Classification:
    """One picture's class.

    Attributes:
        label: The most probable class.
        probabilities: Class name to probability, most probable first.
    """

    label: str
    probabilities: dict[str, float]


class PredictedNetwork(HubMixin, nn.Module):
    """A target network with predicted parameters and a head of class means.

    Args:
        backbone: Normalised images to features.
        means: (K, F) class means of the features.
        scale: τ.
        class_names: The K names.
        image_size: Pixels to which ``classify`` brings a picture.
        channels: C.
        target: How to build the backbone anew when loading; None for a user's own module.
        origin: Where it came from, for its card.
        seconds: Seconds of each part of the prediction.
    """

    means: Tensor
    scale: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        means: Tensor,
        scale: float,
        class_names: Sequence[str],
        image_size: int,
        channels: int,
        target: TargetConfig | None = None,
        origin: Mapping[str, Any] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("means", means.detach())
        self.register_buffer("scale", torch.tensor(scale, device=means.device))
        self.class_names, self.image_size, self.channels = tuple(class_names), image_size, channels
        self.target, self.origin, self.seconds = target, dict(origin or {}), dict(seconds or {})
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images.

        Args:
            images: (N, C, H, W) uint8 in 0..255, or floating point in [0, 1].

        Returns:
            (N, K) logits.

        Raises:
            PudNetError: If the channels are wrong.
        """
        if images.shape[1] != self.channels:
            raise PudNetError(f"The images have {images.shape[1]} channels; this network reads {self.channels}.")
        return cosine_logits(self.backbone(normalise(images)), self.means, self.scale)

    def classify(self, image: Image.Image | Path | str | Tensor) -> Classification:
        """Classify one picture of any size.

        Args:
            image: A Pillow image, a file, or a (C, H, W) uint8 or [0, 1] tensor.

        Returns:
            Its class and all probabilities.

        Raises:
            PudNetError: If the file can't be read, or the tensor holds NaN or has other channels.
        """
        from pudnet_lib.images.decode import decode_image, to_square  # Pillow's decoding rules live there

        if isinstance(image, Tensor):
            if image.ndim != 3:
                raise PudNetError(f"The image has shape {tuple(image.shape)}; expected (C, H, W).")
            if image.is_floating_point() and not bool(torch.isfinite(image).all()):
                raise PudNetError("The image holds NaN or infinite pixels; expected [0, 1].")
            pixels = image[None]
        else:
            array = (
                to_square(image, self.image_size, self.channels)
                if isinstance(image, Image.Image)
                else decode_image(Path(image), self.image_size, self.channels)
            )
            pixels = torch.from_numpy(np.ascontiguousarray(array))[None]
        with torch.no_grad():
            probabilities = self(pixels.to(self.means.device)).softmax(1)[0].cpu()
        order = probabilities.argsort(descending=True).tolist()
        ranked = {self.class_names[i]: float(probabilities[i]) for i in order}
        return Classification(self.class_names[order[0]], ranked)

    def save(self, path: Path | str) -> None:
        """Save as one safetensors file with its JSON description inside.

        Args:
            path: The file.

        Raises:
            PudNetError: If it can't be written.
        """
        description = {
            "network": {
                "class_names": list(self.class_names),
                "image_size": self.image_size,
                "channels": self.channels,
                "target": None if self.target is None else asdict(self.target),
                "origin": self.origin,
                "seconds": self.seconds,
            }
        }
        save_tensors(path, self.state_dict(), description)

    @classmethod
    def load(cls, path: Path | str, backbone: nn.Module | None = None) -> PredictedNetwork:
        """Load what ``save`` wrote.

        Args:
            path: The file.
            backbone: For a network of the user's own: a module of that architecture; it is copied.

        Returns:
            The network, which gives the same output as before it was saved.

        Raises:
            PudNetError: If the file is no such network, or the backbone is missing or does not fit.
        """
        import copy

        from pudnet_lib.export.models import load_state

        tensors, description = load_tensors(path)
        if "network" not in description:
            raise PudNetError(f"{path} holds no predicted network; expected a file that PredictedNetwork.save wrote.")
        about = description["network"]
        target = None if about["target"] is None else TargetConfig(**about["target"])
        if target is None and backbone is None:
            raise PudNetError(f"{path} holds a network of your own; pass that module as backbone=....")
        module = build_target(target) if target is not None else copy.deepcopy(backbone)
        assert module is not None
        network = cls(
            module,
            torch.empty_like(tensors["means"]),
            0.0,
            about["class_names"],
            about["image_size"],
            about["channels"],
            target,
            about["origin"],
            about["seconds"],
        )
        load_state(network, tensors, str(path))
        return network.eval()

    def write_file(self, path: Path) -> None:
        """Save as one file, for ``save_pretrained``; the same as ``save``."""
        self.save(path)

    @classmethod
    def read_file(cls, path: Path, **build: Any) -> PredictedNetwork:
        """Load what ``write_file`` wrote, for ``from_pretrained``; the same as ``load``."""
        return cls.load(path, **build)

    def card_text(self) -> str:
        """The model card, for ``save_pretrained``."""
        return self.model_card()

    def to_torch_export(self, path: Path | str | None = None) -> ExportedProgram:
        """Export with ``torch.export``; see ``pudnet_lib.export.to_torch_export``."""
        from pudnet_lib.export import to_torch_export

        return to_torch_export(self, path)

    def to_onnx(self, path: Path | str, images: Tensor | None = None) -> float:
        """Write an ONNX file, checked with onnxruntime; see ``pudnet_lib.export.to_onnx``."""
        from pudnet_lib.export import to_onnx

        return to_onnx(self, path, images)

    def model_card(self, report: TrustReport | None = None) -> str:
        """Write a model card in Markdown; see ``pudnet_lib.export.model_card``."""
        from pudnet_lib.export import model_card

        return model_card(self, report)

    def report(self, dataset: ImageDataset, model: ParameterModel | None = None) -> TrustReport:
        """Estimate how far to trust this network on its dataset; see ``pudnet_lib.trust.trust_report``."""
        from pudnet_lib.trust import trust_report

        return trust_report(model, self, dataset)
