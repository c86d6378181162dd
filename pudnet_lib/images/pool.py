"""The pool: several sources, their classes split, and the episodes of each stage of an experiment.

Paper, Section 4.1 [rec]: meta-train on the training classes, test on unseen ones; Fashion 6/4, CIFAR-100 80/20,
ImageNet-100 80/20, ImageNet-1K 800/200 [code]. Our choice: the draw of the classes; validation classes, held out of
the training classes; support and query of an unseen episode from the source's training and test images.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import ClassSplit, EpisodeConfig, EpisodeSampler, split_classes
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.images.sources import load_images

Variation = Literal["turned 90°", "turned 180°", "turned 270°", "inverted"]
_CHANGES: dict[str, Callable[[Tensor], Tensor]] = {"inverted": lambda images: 255 - images}
_CHANGES |= {f"turned {90 * quarters}°": partial(torch.rot90, k=quarters, dims=(2, 3)) for quarters in (1, 2, 3)}
#: What a source's name begins with: its classes, the unseen ones, those for validation.
_KNOWN = {
    "made-up-imagenet": (12, 6, 2), "tiny-imagenet": (200, 40, 32), "imagenet": (1000, 200, 80),
    "cifar100": (100, 20, 16), "fashion": (10, 4, 2), "glyphs": (36, 10, 6), "emoji": (80, 16, 12),
}  # fmt: skip


@cache
def imagenet_classes() -> dict[str, str]:
    """ImageNet-1K's WordNet ids in their usual order → "train", "validation" or "unseen", as the list says."""
    lines = Path(__file__).with_name("imagenet_split.txt").read_text(encoding="utf-8").splitlines()
    return dict((line.split()[0], line.split()[1]) for line in lines if not line.startswith("#"))


def default_class_split(name: str, num_classes: int) -> ClassSplit:
    """Give the split of a source's classes; the same on every call."""
    if num_classes < 4:
        raise PudNetError(f"{name} has {num_classes} classes; a split into training and unseen ones needs at least 4.")
    if name == "imagenet" and num_classes == len(imagenet_classes()):
        parts = np.array(list(imagenet_classes().values()))
        return ClassSplit(*(tuple(np.flatnonzero(parts == p).tolist()) for p in ("train", "validation", "unseen")))
    for known, (classes, unseen, validation) in _KNOWN.items():
        if name.startswith(known) and num_classes == classes:
            return split_classes(num_classes, unseen, validation, zlib.crc32(known.encode()))
    unseen = max(2, round(0.2 * num_classes))
    validation = round(0.2 * (num_classes - unseen))
    validation = validation if validation >= 2 and num_classes - unseen - validation >= 2 else 0
    return split_classes(num_classes, unseen, validation, zlib.crc32(name.encode()))


@dataclass(frozen=True)
class PoolConfig:
    """Which images meta-training and its evaluation see."""

    sources: tuple[str, ...] = ("fashion", "emoji", "glyphs")  # names or image folders
    size: int = 32  # pixels, height and width
    channels: int = 3
    max_per_class: int = 0  # training images; 0 for all
    hold_out: bool = True  # validation classes are held out of the training classes; without, all are trained on
    #: Meta-training alone sees each source once more in each of these, as a source with classes of its own.
    variations: tuple[Variation, ...] = ()

    def __post_init__(self) -> None:
        for name in self.variations:
            if name not in _CHANGES:
                raise unknown_name("variation", name, get_args(Variation))


class Pool:
    """The sources of a ``PoolConfig``, loaded: training images, test images and class split of each."""

    def __init__(self, config: PoolConfig | None = None) -> None:
        self.config = config or PoolConfig()
        names = self.config.sources
        if not names or len(set(names)) != len(names):
            raise PudNetError(f"PoolConfig.sources is {names}; expected at least one source, each named once.")
        limit, size, channels = self.config.max_per_class, self.config.size, self.config.channels
        loaded = [load_images(name, "train", size, channels) for name in names]
        self.train = tuple(data.at_most(limit) if limit else data for data in loaded)
        self.test = tuple(load_images(name, "test", size, channels) for name in names)
        self.splits = tuple(default_class_split(data.name, data.num_classes) for data in self.train)
        if not self.config.hold_out:
            train = [tuple(sorted((*split.train, *split.validation))) for split in self.splits]
            self.splits = tuple(replace(s, train=t, validation=()) for s, t in zip(self.splits, train, strict=True))

    def training_episodes(self, episodes: EpisodeConfig, seed: int = 0) -> EpisodeSampler:
        """Episodes of the training classes, for meta-training; variations' sources follow the sources."""
        classes = [split.train for split in self.splits]
        pool = [*self.train, *(varied(d, name) for name in self.config.variations for d in self.train)]
        return EpisodeSampler(pool, episodes, seed, classes=classes * (1 + len(self.config.variations)))

    def validation_episodes(self, episodes: EpisodeConfig, seed: int = 0) -> EpisodeSampler:
        """Episodes of the held-out training classes, to select models on."""
        if not self.config.hold_out:
            raise PudNetError("This pool trains on its validation classes (hold_out=False); nothing to validate on.")
        kept = [i for i, split in enumerate(self.splits) if len(split.validation) >= 2]
        classes = [self.splits[i].validation for i in kept]
        return EpisodeSampler([self.train[i] for i in kept], episodes, seed + 1_000_003, classes=classes)

    def unseen_episodes(self, episodes: EpisodeConfig, seed: int = 0) -> EpisodeSampler:
        """Episodes of the unseen classes: support from training images, query from test images."""
        classes = [split.unseen for split in self.splits]
        return EpisodeSampler(self.train, episodes, seed + 2_000_003, query_pool=self.test, classes=classes)


def varied(data: ImageDataset, variation: Variation) -> ImageDataset:
    """Copy a source with all images changed in one way, under the name "source, variation"."""
    return replace(data, images=_CHANGES[variation](data.images).contiguous(), name=f"{data.name}, {variation}")
