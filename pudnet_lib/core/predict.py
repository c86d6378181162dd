"""Prediction: a dataset in, a ready network out.

Paper, Section 3.2 and 4.1 [rec]: sketch of the dataset → parameters → class means of its features → nearest mean by
cosine. Deviation: batch norm's running statistics are recalibrated on the dataset's own images in a named, timed step
(the released code uses statistics collected under other weights).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from pudnet_lib.core.dataset import ImageDataset, check_pixels, normalise
from pudnet_lib.core.heads import class_means, cosine_logits
from pudnet_lib.core.hooks import hook
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.norms import precise_statistics
from pudnet_lib.core.refine import refine
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError


@dataclass(frozen=True)
class PredictConfig:
    """How a network is predicted.

    Attributes:
        sketch_per_class: Images a class that the hypernetwork looks at ([code]: 10).
        support_per_class: Further images a class, for a hypernetwork that refines on labelled images.
        recalibrate: Collect batch norm's statistics on the dataset's own images.
        recalibration_images: At most so many images for that.
        batch_size: Images a forward pass.
        seed: Seed of the sketch and of the order of images.
        cuda_graph: Replay the hypernetwork's forward pass as a recorded CUDA graph; for many predictions of one shape.
    """

    sketch_per_class: int = 10
    support_per_class: int = 10
    recalibrate: bool = True
    recalibration_images: int = 2000
    batch_size: int = 256
    seed: int = 0
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if min(self.sketch_per_class, self.recalibration_images, self.batch_size) < 1:
            raise PudNetError(f"{self}: sketch_per_class, recalibration_images and batch_size must be at least 1.")

    def support(self, model: ParameterModel) -> int:
        """Images a class that a model looks at beside the sketch's."""
        return self.support_per_class if model.sees_support else 0


@dataclass(frozen=True)
class Classification:
    """One picture's class: the most probable one, and class name to probability, most probable first."""

    label: str
    probabilities: dict[str, float]


class PredictedNetwork(nn.Module):
    """A target network with predicted parameters and a head of class means; reads images as they come from a file.

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
        self, backbone: nn.Module, means: Tensor, scale: float, class_names: Sequence[str], image_size: int,
        channels: int, target: TargetConfig | None = None, origin: Mapping[str, Any] | None = None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = backbone
        self.register_buffer("means", means.detach())
        self.register_buffer("scale", torch.tensor(scale, device=means.device, dtype=means.dtype))
        self.class_names, self.image_size, self.channels = tuple(class_names), image_size, channels
        self.target, self.origin, self.seconds = target, dict(origin or {}), dict(seconds or {})
        self.eval()

    def __repr__(self) -> str:
        of = type(self.backbone).__name__ if self.target is None else self.target.title
        some = ", ".join(self.class_names[:3]) + (", …" if len(self.class_names) > 3 else "")
        own = sum(p.numel() for p in self.backbone.parameters())
        return f"{type(self).__name__}: {of}, {own:,} parameters, tells {len(self.class_names)} classes apart ({some})"

    def _repr_html_(self) -> str:
        about = {"classes": ", ".join(self.class_names), "images": (self.channels, self.image_size, self.image_size)}
        rows = "\n".join(f"{key}: {value}" for key, value in (about | self.origin).items())
        return f"<details><summary>{escape(repr(self))}</summary><pre>{escape(rows)}</pre></details>"

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W), uint8 or in [0, 1]."""
        return cosine_logits(self.features(images), self.means, self.scale)

    def features(self, images: Tensor) -> Tensor:
        """Refuse images that it does not read; give the features (N, F) of the others."""
        if images.shape[1] != self.channels:
            raise PudNetError(f"The images have {images.shape[1]} channels; this network reads {self.channels}.")
        check_pixels(images)
        features: Tensor = self.backbone(normalise(images).to(self.means.dtype))
        return features

    def classify(self, image: Any) -> Classification:
        """Classify one picture of any size: a (C, H, W) uint8 or [0, 1] tensor, a Pillow image or a file.

        Raises:
            PudNetError: If it can't be read (files need ``pudnet_lib.images``), holds NaN or has other channels.
        """
        if not isinstance(image, Tensor):
            to_pixels = hook("to_pixels")
            if to_pixels is None:
                raise PudNetError("Reading pictures and files needs pudnet_lib.images; import it, or give a tensor.")
            image = torch.from_numpy(to_pixels(image, self.image_size, self.channels))
        if image.ndim != 3:
            raise PudNetError(f"The image has shape {tuple(image.shape)}; expected (C, H, W).")
        with torch.no_grad():
            logits = self(image[None].to(self.means.device))[0].cpu()
        if not bool(torch.isfinite(logits).all()):
            raise PudNetError("The network's logits are not finite: its weights are damaged. Predict or copy it anew.")
        probabilities = logits.softmax(0)
        order = probabilities.argsort(descending=True).tolist()
        ranked = {self.class_names[i]: float(probabilities[i]) for i in order}
        return Classification(self.class_names[order[0]], ranked)


def recalibrate(backbone: nn.Module, images: Tensor, batch_size: int = 256, seed: int = 0) -> None:
    """Collect batch norm's running statistics on images (N, C, H, W), in place, each batch with the same weight."""
    device = next(backbone.parameters()).device
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    with collecting(backbone) as norms:
        for index, part in enumerate(order.split(batch_size) if norms else ()):  # a denoising U-Net has none
            if index == 0 or 2 * len(part) >= batch_size:
                backbone(normalise(images[part.to(images.device)].to(device)))


@contextmanager
def collecting(backbone: nn.Module) -> Iterator[list[nn.BatchNorm2d]]:
    """Let a network's batch norms, the rest in evaluation mode, average what they read while the block runs."""
    backbone.eval()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()  # the batch norms alone: dropout stays off
    with torch.no_grad(), precise_statistics(backbone):
        yield norms
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def extract_features(backbone: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Run a backbone, in the mode in which it is, over images (N, C, H, W): features (N, F) on its device."""
    device = next(backbone.parameters()).device
    with torch.no_grad():
        return torch.cat([backbone(normalise(part.to(device))) for part in images.split(batch_size)])


class Stopwatch:
    """Seconds of named parts; waits for the GPU, so that each part gets what it used."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._cuda = device.type == "cuda"

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a block."""
        began = time.perf_counter()
        yield
        if self._cuda:
            torch.cuda.synchronize()
        self.seconds[name] = time.perf_counter() - began


def predict_backbone(
    model: ParameterModel, sketch: Tensor, labels: Tensor | None, images: Tensor | None,
    config: PredictConfig | None = None, watch: Stopwatch | None = None,
) -> tuple[nn.Module, int, Tensor | None]:  # fmt: skip
    """Predict a network without a head: what classification and denoising have in common. No side effect.

    Where a model refines on the very ``images`` that batch norm's statistics are collected on (one tensor given as
    both), each is computed once up to the last convolution, and their features (S, F) come with the network.
    """
    config, watch, was_training = config or PredictConfig(), watch or Stopwatch(model.device), model.training
    model.eval()
    try:
        given = sketch.to(model.device), None if labels is None else labels.to(model.device)
        steps, features = 0 if model.refine is None else model.refine.steps, None
        with watch.part("generate"), torch.no_grad():
            first = model if model.refine is None else model.initial
            parameters = hook("recorded_forward")(model, *given) if config.cuda_graph else first(*given)
        with watch.part("assemble"):
            # What is generated is new already; what the model itself holds must be copied.
            own = {n: t.detach().clone() if isinstance(t, nn.Parameter) else t for n, t in parameters.items()}
            backbone = model.materialise(own)
        if model.refine is not None and not config.cuda_graph:
            once = images is sketch
            with watch.part("refine"), collecting(backbone) if once else nullcontext():
                found, steps, read = refine(model, own, *given, model.refine, backbone if once else None)
                backbone.load_state_dict({n: t for n, t in found.items() if t is not own[n]}, strict=False)
                if once and read:  # what comes after the last convolution collects its statistics, too
                    block = backbone.get_submodule(str(model.template.last_convolution).rpartition(".")[0])
                    features = block(*read).mean((2, 3))
    finally:
        model.train(was_training)
    with watch.part("recalibrate"):
        if images is not None and features is None:
            if len(images) > config.recalibration_images:
                order = torch.randperm(len(images), generator=torch.Generator().manual_seed(config.seed))
                images = images[order[: config.recalibration_images]]
            recalibrate(backbone, images, config.batch_size, config.seed)
    return backbone, steps, features


def predict(
    model: ParameterModel, dataset: ImageDataset, config: PredictConfig | None = None,
    sketch: tuple[Tensor, Tensor | None] | None = None,
) -> PredictedNetwork:  # fmt: skip
    """Predict a network for a dataset. Neither the model nor the global generators change.

    Args:
        model: PudNet (or a shared network, for comparison), on the device that shall compute.
        dataset: The dataset's training images.
        config: How.
        sketch: Sketch images (S, C, H, W) and their labels (S,) or None, to use instead of a draw from ``dataset``
            (the swap controls do).

    Returns:
        The network, on the model's device, with ``seconds`` of each part: sketch, generate, assemble, refine where it
        does (with the next, if it refines on all images), recalibrate, class_means.

    Raises:
        PudNetError: If the dataset has one class only, a class without images, or other channels than the target.
    """
    config = config or PredictConfig()
    counts = dataset.class_counts()
    if dataset.num_classes < 2:
        raise PudNetError(f"{dataset.name} has {dataset.num_classes} class; a classifier needs at least two.")
    if int(counts.min()) == 0:
        empty = dataset.class_names[int(counts.argmin())]
        raise PudNetError(f"{dataset.name}: class {empty!r} has no image; drop it or add some.")
    channels = model.channels or dataset.channels
    if dataset.channels != channels:
        raise PudNetError(
            f"{dataset.name} has {dataset.channels} channels and the network {channels}; use "
            f"dataset.with_channels({channels})."
        )
    watch = Stopwatch(model.device)
    with watch.part("sketch"):
        per_class = config.sketch_per_class + config.support(model)
        images, labels = dataset.sketch_with_labels(per_class, config.seed) if sketch is None else sketch
    once = model.refine is not None and len(dataset) <= min(config.batch_size, config.recalibration_images)
    if once:  # the images that it looks at are all that there are
        given = sketch is not None and torch.equal(images, dataset.images.to(images))
        once = given or (sketch is None and int(counts.max()) <= per_class)
    own = (images if once else dataset.images) if config.recalibrate else None
    backbone, steps, features = predict_backbone(model, images, labels, own, config, watch)
    with watch.part("class_means"):
        if features is None or labels is None:
            features, labels = extract_features(backbone, dataset.images, config.batch_size), dataset.labels
        means = class_means(features, labels.to(features.device), dataset.num_classes)
    origin: dict[str, Any] = {
        "dataset": dataset.name,
        "images": len(dataset),
        "model": type(model).__name__,
        "predictor": model.name,
        "looked_at": len(images),
        "refinement_steps": steps,
    }
    target = None if model.own_target else model.config.target
    names, size, scale = dataset.class_names, dataset.size, float(model.scale.detach())
    return PredictedNetwork(backbone, means, scale, names, size, dataset.channels, target, origin, watch.seconds)
