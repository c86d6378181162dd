"""ImageDataset: the one currency in which images travel through the kit.

The paper writes a dataset as D_i = {(x, y)} (Section 3, method). Our choice: images stay uint8 in RAM (or in a memory
map) and are turned into floats a batch at a time, on the device that computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pudnet_lib.errors import PudNetError

# One fixed normalisation for every source (our choice): a dataset's own mean and spread are evidence of what kind of
# images it holds, so they must reach the dataset encoder.
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25


def normalise(images: Tensor) -> Tensor:
    """Turn images into what every network of the kit reads.

    Args:
        images: (N, C, H, W) uint8 in 0..255, or floating point in [0, 1].

    Returns:
        (N, C, H, W) floating point, (pixel in [0, 1] - 0.5) / 0.25, on the same device, channels last in memory
        (convolutions are 1.3 to 1.6 times faster on it on a CPU).
    """
    if images.dtype == torch.uint8:
        floats = images.float().mul_(1 / (255 * PIXEL_STD)).sub_(PIXEL_MEAN / PIXEL_STD)
    else:
        floats = (images - PIXEL_MEAN) / PIXEL_STD
    return floats.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ImageDataset:
    """Labelled images of one source; immutable.

    Attributes:
        images: (N, C, H, W) uint8, C in {1, 3}; may be backed by a read-only memory map.
        labels: (N,) int64 in 0..K-1.
        class_names: The K names.
        name: The source's name, for messages and tables.
        items: (N,) int64, the thing that an image shows; images of one item (the same emoji drawn by two vendors) stay
            on one side of every split. Default: each image is its own item.
        licence: The terms under which the images came, for tables and model cards.
        report: What their loader noticed, if it was a folder: see ``pudnet_lib.images.FolderReport``.

    Raises:
        PudNetError: If a shape, a dtype or a label is not as stated.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    name: str = "images"
    items: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    licence: str = "unknown"
    report: Any = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4:
            raise PudNetError(f"{self.name}: images have shape {tuple(images.shape)}; expected (N, C, H, W).")
        if images.dtype != torch.uint8:
            raise PudNetError(
                f"{self.name}: images have dtype {images.dtype}; expected uint8. "
                "Use ImageDataset.from_float for floating-point images in [0, 1]."
            )
        if images.shape[1] not in (1, 3):
            raise PudNetError(
                f"{self.name}: images have {images.shape[1]} channels; expected 1 (gray) or 3 (RGB). "
                "Pick or merge channels before building the dataset."
            )
        if len(images) == 0:
            raise PudNetError(f"{self.name}: there are no images; expected at least one.")
        if labels.shape != (len(images),) or labels.dtype != torch.int64:
            raise PudNetError(
                f"{self.name}: labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; "
                f"expected ({len(images)},) int64, one label per image."
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(self.class_names):
            wrong = low if low < 0 else high
            raise PudNetError(
                f"{self.name}: label {wrong} is out of range; expected 0..{len(self.class_names) - 1} "
                f"for {len(self.class_names)} class names."
            )
        if len(self.items) == 0:
            object.__setattr__(self, "items", torch.arange(len(images)))
        elif self.items.shape != labels.shape:
            raise PudNetError(f"{self.name}: items have shape {tuple(self.items.shape)}; expected ({len(images)},).")

    @classmethod
    def from_float(
        cls, images: Tensor, labels: Tensor, class_names: Sequence[str], name: str = "images"
    ) -> ImageDataset:
        """Build a dataset from images (N, C, H, W) in [0, 1], rounded to uint8; a NaN or another range is an error."""
        if images.numel() == 0:
            raise PudNetError(f"{name}: there are no images (shape {tuple(images.shape)}); expected at least one.")
        if not bool(torch.isfinite(images).all()):
            bad = int((~torch.isfinite(images.flatten(1)).all(1)).sum())
            raise PudNetError(f"{name}: {bad} of {len(images)} images hold NaN or infinite pixels; expected [0, 1].")
        low, high = float(images.min()), float(images.max())
        if low < 0 or high > 1:
            raise PudNetError(f"{name}: pixels range over [{low:g}, {high:g}]; expected [0, 1]. Divide by 255?")
        return cls((images * 255).round().to(torch.uint8), labels.long(), tuple(class_names), name)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return int(self.images.shape[1])

    @property
    def size(self) -> int:
        """H, the height in pixels (the kit's loaders make square images)."""
        return int(self.images.shape[2])

    def class_counts(self) -> Tensor:
        """Count the images of each class, (K,) int64."""
        return torch.bincount(self.labels, minlength=self.num_classes)

    def indices_by_class(self) -> list[Tensor]:
        """List, for each of the K classes, the indices of its images in ascending order."""
        order = torch.argsort(self.labels, stable=True)
        return list(torch.split(order, self.class_counts().tolist()))

    def subset(self, indices: Tensor, name: str | None = None) -> ImageDataset:
        """Take the images of ``indices`` (M,), in that order, and keep all class names."""
        return ImageDataset(
            self.images[indices],
            self.labels[indices],
            self.class_names,
            name or self.name,
            self.items[indices],
            self.licence,
        )

    def select_classes(self, classes: Sequence[int], name: str | None = None) -> ImageDataset:
        """Keep the images of some distinct classes, relabelled 0..len(classes)-1 in the given order."""
        wanted = [int(c) for c in classes]
        if len(set(wanted)) != len(wanted) or any(not 0 <= c < self.num_classes for c in wanted):
            raise PudNetError(f"{self.name}: classes {wanted} must be distinct and in 0..{self.num_classes - 1}.")
        new_label = torch.full((self.num_classes,), -1)
        new_label[wanted] = torch.arange(len(wanted))
        keep = torch.nonzero(new_label[self.labels] >= 0).flatten()
        if len(keep) == 0:
            raise PudNetError(f"{self.name}: none of the classes {wanted} has an image.")
        return ImageDataset(
            self.images[keep],
            new_label[self.labels[keep]],
            tuple(self.class_names[c] for c in wanted),
            name or self.name,
            self.items[keep],
            self.licence,
        )

    def at_most(self, per_class: int, seed: int = 0) -> ImageDataset:
        """Keep at most so many images per class, drawn at random; a class with fewer keeps all."""
        rng = np.random.default_rng(seed)
        kept = [rng.permutation(ids.numpy())[:per_class] for ids in self.indices_by_class()]
        return self.subset(torch.from_numpy(np.sort(np.concatenate(kept))))

    def with_channels(self, channels: int) -> ImageDataset:
        """Repeat gray to RGB, or average RGB to gray."""
        if channels not in (1, 3):
            raise PudNetError(f"{self.name}: {channels} channels were asked for; expected 1 or 3.")
        if channels == self.channels:
            return self
        if channels == 3:
            images = self.images.expand(-1, 3, -1, -1)  # a view: no memory until a batch is taken
        else:
            images = self.images.float().mean(1, keepdim=True).round().to(torch.uint8)
        return ImageDataset(images, self.labels, self.class_names, self.name, self.items, self.licence)

    def sketch_with_labels(self, per_class: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Draw the sketch: the few images that the hypernetwork looks at (paper, Section 3; 10 per class in the code).

        Args:
            per_class: Images per class; a class with fewer gives all it has.
            seed: Seed of the draw; the global generator is not touched.

        Returns:
            (S, C, H, W) uint8 images and their labels (S,), classes in order.
        """
        rng = np.random.default_rng(seed)
        picks = [rng.permutation(ids.numpy())[:per_class] for ids in self.indices_by_class()]
        chosen = torch.from_numpy(np.concatenate(picks))
        return self.images[chosen], self.labels[chosen]

    def sketch(self, per_class: int, seed: int = 0) -> Tensor:
        """Draw the sketch's images only; see ``sketch_with_labels``."""
        return self.sketch_with_labels(per_class, seed)[0]
