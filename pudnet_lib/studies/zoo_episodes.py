"""The episodes of a zoo: which classes and images each network is trained on.

Our choice. Training episodes are drawn from a source's training classes (validation ones included), held-out episodes
from its unseen classes; every episode has the same number of images a class, so that networks can be trained side by
side. Episode number i is a function of the seed and i alone. Classes stand in the source's order within an episode.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from math import comb
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.splits import default_class_split
from pudnet_lib.errors import PudNetError
from pudnet_lib.images import load_images

Part = Literal["train", "held-out"]
PARTS: tuple[Part, Part] = ("train", "held-out")


class ZooEpisodes:
    """Draws the episodes of one source.

    Args:
        train: Training images of the source, all classes.
        test: Its test images, same classes.
        ways: K, classes an episode; 0 takes 5, or 3 where a part has fewer than 10 classes to draw from.
        per_class: Training images a class.
        test_per_class: Test images a class, for the networks' accuracy.
        seed: Episode i depends on (seed, part, i).

    Raises:
        PudNetError: If a part has fewer than K classes with enough images.
    """

    def __init__(
        self, train: ImageDataset, test: ImageDataset, ways: int, per_class: int, test_per_class: int, seed: int
    ) -> None:
        self.train, self.test, self.per_class, self.test_per_class = train, test, per_class, test_per_class
        self.seed = seed
        self.indices = lru_cache(maxsize=1 << 16)(self._indices)
        self._train_ids = [ids.numpy() for ids in train.indices_by_class()]
        self._test_ids = [ids.numpy() for ids in test.indices_by_class()]
        split = default_class_split(train.name, train.num_classes)
        self.classes: dict[Part, np.ndarray] = {
            "train": self._enough((*split.train, *split.validation)),
            "held-out": self._enough(split.unseen),
        }
        fewest = min(len(c) for c in self.classes.values())
        self.ways = ways or (5 if fewest >= 10 else 3)
        if fewest < self.ways or self.ways < 2:
            raise PudNetError(
                f"{train.name}: episodes of {self.ways} classes need that many training and held-out classes with "
                f"{per_class} training and {test_per_class} test images each; there are "
                f"{len(self.classes['train'])} and {len(self.classes['held-out'])}. Take fewer ways or images."
            )
        #: (K · per_class,) labels, the same for every episode.
        self.labels = torch.arange(self.ways).repeat_interleave(per_class)
        self.test_labels = torch.arange(self.ways).repeat_interleave(test_per_class)

    def _enough(self, classes: tuple[int, ...]) -> np.ndarray:
        usable = (
            c
            for c in sorted(classes)
            if len(self._train_ids[c]) >= self.per_class and len(self._test_ids[c]) >= self.test_per_class
        )
        return np.fromiter(usable, dtype=np.int64)

    def distinct(self, part: Part) -> int:
        """How many different sets of K classes there are to draw from."""
        return comb(len(self.classes[part]), self.ways)

    def _indices(self, part: Part, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw an episode's classes (K,), training image ids (M,) and test image ids (N,); cached as ``indices``."""
        rng = np.random.default_rng((self.seed, PARTS.index(part), index))
        classes = np.sort(rng.choice(self.classes[part], self.ways, replace=False))
        train = [rng.choice(self._train_ids[c], self.per_class, replace=False) for c in classes]
        test = [rng.choice(self._test_ids[c], self.test_per_class, replace=False) for c in classes]
        return classes, np.concatenate(train), np.concatenate(test)

    def class_sets(self, part: Part, indices: np.ndarray) -> np.ndarray:
        """Name each episode's set of classes by its indices, (G, K)."""
        return np.stack([self.indices(part, int(i))[0] for i in indices])

    def image_ids(self, part: Part, indices: np.ndarray) -> np.ndarray:
        """Indices of each episode's training images, (G, M)."""
        return np.stack([self.indices(part, int(i))[1] for i in indices])

    def images(self, part: Part, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Gather training images (G, M, C, H, W) and test images (G, N, C, H, W), uint8."""
        drawn = [self.indices(part, int(i)) for i in indices]
        train = self.train.images[torch.from_numpy(np.stack([d[1] for d in drawn]))]
        return train, self.test.images[torch.from_numpy(np.stack([d[2] for d in drawn]))]

    def names(self, part: Part, index: int) -> tuple[str, ...]:
        """Names of an episode's classes."""
        return tuple(self.train.class_names[c] for c in self.indices(part, index)[0])


@lru_cache(maxsize=8)
def source_images(source: str) -> tuple[ImageDataset, ImageDataset, str]:
    """Load a source's training and test images (RGB, 32 pixels) and their fingerprint."""
    train, test = (load_images(source, split=split) for split in ("train", "test"))  # type: ignore[arg-type]
    digest = hashlib.sha256()
    for data in (train, test):
        digest.update(data.images.numpy().tobytes())
        digest.update(data.labels.numpy().tobytes())
    return train, test, digest.hexdigest()[:16]
