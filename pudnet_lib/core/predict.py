"""Prediction: a dataset in, a ready network out.

Paper, Section 3.2 and 4.1 [rec]: sketch of the dataset → parameters → class means of its features → nearest mean by
cosine. Deviation: batch norm's running statistics are recalibrated on the dataset's own images in a named, timed step
(the released code uses statistics collected under other weights).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pudnet_lib import speed as cuda_graph
from pudnet_lib.core.dataset import ImageDataset, normalise
from pudnet_lib.core.heads import class_means
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predicted_network import PredictedNetwork
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


def recalibrate(backbone: nn.Module, images: Tensor, batch_size: int = 256, seed: int = 0) -> None:
    """Collect batch norm's running statistics on images, in place, each batch with the same weight.

    Args:
        backbone: A network of one's own making; left in evaluation mode.
        images: (N, C, H, W) uint8, or floating point in [0, 1].
        batch_size: Images a pass; the last batch is dropped if it is smaller than half of it.
        seed: Seed of the shuffle, so that no batch holds one class alone.
    """
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    if not norms:  # a denoising U-Net has none
        backbone.eval()
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    backbone.eval()
    for norm in norms:
        norm.train()  # the batch norms alone: dropout stays off
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        for index, part in enumerate(order.split(batch_size)):
            if index == 0 or 2 * len(part) >= batch_size:
                backbone(normalise(images[part.to(images.device)].to(_device(backbone))))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def extract_features(backbone: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    """Run a backbone over images.

    Args:
        backbone: Normalised images to features; used in the mode in which it is.
        images: (N, C, H, W) uint8, or floating point in [0, 1].
        batch_size: Images a pass.

    Returns:
        (N, F) features, on the backbone's device.
    """
    device = _device(backbone)
    with torch.no_grad():
        return torch.cat([backbone(normalise(part.to(device))) for part in images.split(batch_size)])


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


class _Clock:
    """Seconds of named parts; waits for the GPU, so that each part gets what it used."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._cuda = device.type == "cuda"

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        if self._cuda:
            torch.cuda.synchronize()
        self.seconds[name] = time.perf_counter() - began


def predict(
    model: ParameterModel,
    dataset: ImageDataset,
    config: PredictConfig | None = None,
    sketch: tuple[Tensor, Tensor | None] | None = None,
) -> PredictedNetwork:
    """Predict a network for a dataset. Neither the model nor the global generators change.

    Args:
        model: PudNet (or a shared network, for comparison), on the device that shall compute.
        dataset: The dataset's training images.
        config: How.
        sketch: Sketch images (S, C, H, W) and their labels (S,) or None, to use instead of a draw from ``dataset``
            (the swap controls do).

    Returns:
        The network, on the model's device, with ``seconds`` of each part: sketch, generate, assemble, recalibrate,
        class_means.

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
    channels = dataset.channels if model.own_target else model.config.target.channels
    if dataset.channels != channels:
        raise PudNetError(
            f"{dataset.name} has {dataset.channels} channels and the network {channels}; use "
            f"dataset.with_channels({channels})."
        )
    clock, was_training = _Clock(model.device), model.training
    with clock.part("sketch"):
        per_class = config.sketch_per_class + config.support(model)
        drawn = dataset.sketch_with_labels(per_class, config.seed) if sketch is None else sketch
        labels, images = drawn[1], drawn[0].to(model.device)
        labels = None if labels is None else labels.to(model.device)
    model.eval()
    try:
        with clock.part("generate"), torch.no_grad():
            given = (images, labels)
            parameters = cuda_graph.forward(model, *given) if config.cuda_graph else model(*given)
    finally:
        model.train(was_training)
    with clock.part("assemble"):
        # What is generated is new already; what the model itself holds must be copied.
        own = {n: t.detach().clone() if isinstance(t, nn.Parameter) else t for n, t in parameters.items()}
        backbone = model.materialise(own)
    with clock.part("recalibrate"):
        if config.recalibrate:  # else batch norm keeps mean 0 and variance 1, which are no dataset's
            recalibrate(backbone, _some(dataset, config), config.batch_size, config.seed)
    with clock.part("class_means"):
        features = extract_features(backbone, dataset.images, config.batch_size)
        means = class_means(features, dataset.labels.to(features.device), dataset.num_classes)
    origin: dict[str, Any] = {
        "dataset": dataset.name,
        "images": len(dataset),
        "model": type(model).__name__,
        "looked_at": len(images),
        "refinement_steps": model.refinement_steps,
    }
    return PredictedNetwork(
        backbone,
        means,
        float(model.scale.detach()),
        dataset.class_names,
        image_size=dataset.size,
        channels=dataset.channels,
        target=None if model.own_target else model.config.target,
        origin=origin,
        seconds=clock.seconds,
    )


def _some(dataset: ImageDataset, config: PredictConfig) -> Tensor:
    """At most ``recalibration_images`` images, drawn at random."""
    if len(dataset) <= config.recalibration_images:
        return dataset.images
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(config.seed))
    return dataset.images[order[: config.recalibration_images]]
