"""ImageDataset: the one currency in which images travel through the kit.

The paper writes a dataset as D_i = {(x, y)} (Section 3, method). Our choice: images stay uint8 in RAM (or in a memory
map) and are turned into floats a batch at a time, on the device that computes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pudnet_lib.core.hooks import hook
from pudnet_lib.errors import PudNetError

# One fixed normalisation for every source (our choice): a dataset's own mean and spread are evidence of what kind of
# images it holds, so they must reach the dataset encoder.
PIXEL_MEAN, PIXEL_STD = 0.5, 0.25


def normalise(images: Tensor) -> Tensor:
    """Turn images into what every network of the kit reads."""
    if images.dtype == torch.uint8:
        floats = images.float().mul_(1 / (255 * PIXEL_STD)).sub_(PIXEL_MEAN / PIXEL_STD)
    else:
        if not images.is_floating_point():
            check_pixels(images)
        floats = (images - PIXEL_MEAN) / PIXEL_STD
    return floats.contiguous(memory_format=torch.channels_last)


def check_pixels(images: Tensor, name: str = "images") -> None:
    """Refuse pixels of another range than every network reads: integers other than uint8, floats outside [0, 1]."""
    recording = images.is_cuda and torch.cuda.is_current_stream_capturing()
    if recording or images.is_meta or torch.compiler.is_compiling():
        return  # a recorded program can't look at pixels
    if images.is_floating_point():
        low, high = (float(v) for v in torch.aminmax(images)) if images.numel() else (0.0, 0.0)
        if not (low >= 0 and high <= 1):  # also false for NaN
            fix = "Map -1..1 by (x + 1) / 2" if high <= 1 else "Rescale"
            fix = "Divide by 255" if 1 < high <= 255 and low >= 0 else fix
            found = f"range over [{low:g}, {high:g}]" if low == low else "hold NaN or infinite values"
            raise PudNetError(f"{name}: pixels {found}; expected [0, 1] or uint8. {fix}, and leave no NaN.")
    elif images.dtype != torch.uint8:
        raise PudNetError(
            f"{name}: images have dtype {str(images.dtype)[6:]}; expected uint8 or floats in [0, 1]. "
            "If they lie in 0..255, convert them: images.astype('uint8'), or images.to(torch.uint8)."
        )


def _as_images(images: Any, name: str) -> Tensor:
    """(N, C, H, W) uint8 of arrays (N, H, W, C), (N, C, H, W) or (N, H, W), uint8 or floats in [0, 1]."""
    if not isinstance(images, Tensor):
        try:
            array = np.asarray(images)
            images = torch.from_numpy(array if array.flags.writeable else array.copy())
        except (TypeError, ValueError) as error:
            raise PudNetError(
                f"{name}: images are no array ({error}); expected N of one size (others as Pillow pictures)."
            ) from error
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim != 4:
        raise PudNetError(f"{name}: images have shape {tuple(images.shape)}; expected (N, C, H, W) or (N, H, W, C).")
    if len(images) == 0:
        raise PudNetError(f"{name}: there are no images; expected at least one.")
    if images.shape[1] > 5 and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2).contiguous()
    if images.shape[1] not in (1, 3):
        raise PudNetError(
            f"{name}: images have {images.shape[1]} channels; expected 1 (gray) or 3 (RGB). "
            "Pick or merge channels before building the dataset."
        )
    check_pixels(images, name)
    pixels: Tensor = (images * 255).round().to(torch.uint8) if images.is_floating_point() else images
    return pixels


def _as_labels(labels: Any, class_names: Sequence[str] | None, count: int, name: str) -> tuple[Tensor, tuple[str, ...]]:
    """(N,) int64 and the K names, of numbers or of names."""
    if not isinstance(labels, Tensor):
        found = np.asarray(labels)
        if found.dtype.kind in "USO":
            texts = [str(label) for label in found.tolist()]
            class_names = sorted(set(texts)) if class_names is None else class_names
            if unknown := set(texts) - set(class_names):
                raise PudNetError(
                    f"{name}: the label {min(unknown)!r} is not among the class names {list(class_names)}."
                )
            found = np.array([list(class_names).index(text) for text in texts], dtype=np.int64)
        labels = torch.from_numpy(found.astype(np.int64) if found.dtype.kind in "iub" else found)
    if labels.shape != (count,) or labels.is_floating_point():
        raise PudNetError(
            f"{name}: labels have shape {tuple(labels.shape)} and dtype {labels.dtype}; expected ({count},) int64 or "
            "names, one label per image."
        )
    labels = labels.long()
    low, high = int(labels.min()), int(labels.max())
    names = tuple(map(str, range(high + 1))) if class_names is None else tuple(map(str, class_names))
    if low < 0 or high >= len(names):
        wrong = low if low < 0 else high
        raise PudNetError(
            f"{name}: label {wrong} is out of range; expected 0..{len(names) - 1} for {len(names)} class names."
        )
    plain = [unicodedata.normalize("NFC", n) for n in names]
    if len(set(plain)) < len(plain):
        twice = next(n for n in plain if plain.count(n) > 1)
        raise PudNetError(f"{name}: two classes are called {twice!r}; give them names of their own.")
    return labels, names


def _drawing(per_class: int, seed: int) -> np.random.Generator:
    if per_class < 1 or seed < 0:
        raise PudNetError(f"{per_class} images per class with seed {seed} were asked for; expected at least 1 and 0.")
    return np.random.default_rng(seed)


@dataclass(frozen=True, repr=False)
class ImageDataset:
    """Labelled images of one source; immutable. Arrays, lists and names of classes become what is stated here.

    Attributes:
        images: (N, C, H, W) uint8, C in {1, 3}; may be backed by a read-only memory map. Given as such, as (N, H, W, C)
            or (N, H, W), an array or a tensor, uint8 or floats in [0, 1].
        labels: (N,) int64 in 0..K-1; given as N numbers or names.
        class_names: The K distinct names; by default the names among the labels, or the numbers.
        name: The source's name, for messages and tables.
        items: (N,) int64, the thing that an image shows; images of one item (the same emoji drawn by two vendors) stay
            on one side of every split. Default: each image is its own item.
        licence: The terms under which the images came, for tables and model cards.
        report: What their loader noticed, if it was a folder: see ``pudnet_lib.images.FolderReport``.

    Raises:
        PudNetError: If a shape, the pixels' type or range, a label or a name is not as stated.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = None  # type: ignore[assignment]
    name: str = "images"
    items: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    licence: str = "unknown"
    report: Any = field(default=None, compare=False)

    def __post_init__(self) -> None:
        images = _as_images(self.images, self.name)
        labels, names = _as_labels(self.labels, self.class_names, len(images), self.name)
        items = self.items if len(self.items) else torch.arange(len(images))
        if items.shape != labels.shape:
            raise PudNetError(f"{self.name}: items have shape {tuple(items.shape)}; expected ({len(images)},).")
        for key, value in {"images": images, "labels": labels, "class_names": names, "items": items}.items():
            object.__setattr__(self, key, value)

    @classmethod
    def from_float(
        cls, images: Tensor, labels: Tensor, class_names: Sequence[str], name: str = "images"
    ) -> ImageDataset:
        """Build a dataset from images (N, C, H, W) in [0, 1], rounded to uint8; a NaN or another range is an error."""
        return cls(images, labels, tuple(class_names), name)

    def __repr__(self) -> str:
        some = ", ".join(self.class_names[:3]) + (", …" if self.num_classes > 3 else "")
        size = "×".join(map(str, self.images.shape[1:]))
        return f"ImageDataset {self.name!r}: {len(self):,} images of {size}, {self.num_classes} classes ({some})"

    def _repr_html_(self) -> str:
        return str(hook("mosaic", repr)(self))

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
        images, labels, items = self.images[indices], self.labels[indices], self.items[indices]
        return replace(self, images=images, labels=labels, name=name or self.name, items=items)

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
        names = tuple(self.class_names[c] for c in wanted)
        return replace(self.subset(keep, name), labels=new_label[self.labels[keep]], class_names=names)

    def at_most(self, per_class: int, seed: int = 0) -> ImageDataset:
        """Keep at most so many images per class, drawn at random; a class with fewer keeps all."""
        rng = _drawing(per_class, seed)
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
        return replace(self, images=images)

    def at_size(self, size: int) -> ImageDataset:
        """Resize square images, antialiased."""
        if self.size == size:
            return self
        parts = self.images.split(500)  # as floats they are four times as large
        small = [F.interpolate(part.float(), (size, size), mode="bilinear", antialias=True) for part in parts]
        return replace(self, images=torch.cat(small).round().clamp(0, 255).to(torch.uint8))

    def sketch_with_labels(self, per_class: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Draw the sketch: the few images that the hypernetwork looks at (paper, Section 3; 10 per class in the code).

        Args:
            per_class: Images per class; a class with fewer gives all it has.
            seed: Seed of the draw; the global generator is not touched.

        Returns:
            (S, C, H, W) uint8 images and their labels (S,), classes in order.
        """
        rng = _drawing(per_class, seed)
        picks = [rng.permutation(ids.numpy())[:per_class] for ids in self.indices_by_class()]
        chosen = torch.from_numpy(np.concatenate(picks))
        return self.images[chosen], self.labels[chosen]

    def sketch(self, per_class: int, seed: int = 0) -> Tensor:
        """Draw the sketch's images only; see ``sketch_with_labels``."""
        return self.sketch_with_labels(per_class, seed)[0]
