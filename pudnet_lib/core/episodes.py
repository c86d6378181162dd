"""Class splits and episodes: which images a meta-training or evaluation step sees.

The paper meta-trains on episodes of K classes drawn from the training classes and tests on unseen classes (Section 3.3
and 4.1). An episode holds a sketch (what the hypernetwork sees), a support set (class means) and a query set (the
loss).
Deviation: the three never share an image, nor an *item* between query and the rest (the same emoji by two vendors).
Episodes are a pure function of (seed, index), so that an interrupted run resumes exactly and every rank draws its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import getitem
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.hooks import hook
from pudnet_lib.errors import PudNetError


@dataclass(frozen=True)
class ClassSplit:
    """Class indices of one source: training, validation (held-out *training* classes) and unseen."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    unseen: tuple[int, ...]


def split_classes(num_classes: int, unseen: int, validation: int, seed: int = 0) -> ClassSplit:
    """Split K classes at random into training, validation and unseen ones: disjoint, sorted, all of them."""
    train = num_classes - unseen - validation
    if train < 2 or unseen == 1 or validation == 1 or min(unseen, validation) < 0:
        raise PudNetError(
            f"{num_classes} classes cannot be split into {train} training, {validation} validation and {unseen} "
            "unseen ones; every part needs at least two classes (validation and unseen may be empty)."
        )
    order = np.random.default_rng(seed).permutation(num_classes).tolist()
    parts = order[:train], order[train : train + validation], order[train + validation :]
    return ClassSplit(*(tuple(sorted(int(c) for c in part)) for part in parts))


@dataclass(frozen=True)
class EpisodeConfig:
    """What an episode holds.

    Attributes:
        ways: K, classes an episode; fewer where the source has fewer.
        sketch_per_class: Sketch images a class (10 in the authors' code).
        support_per_class: Support images a class, for the class means.
        query_per_class: Query images a class, for the loss or the accuracy.
    """

    ways: int = 5
    sketch_per_class: int = 10
    support_per_class: int = 10
    query_per_class: int = 10

    def __post_init__(self) -> None:
        if self.ways < 2:
            raise PudNetError(f"EpisodeConfig.ways is {self.ways}; an episode needs at least 2 classes.")
        if min(self.sketch_per_class, self.support_per_class, self.query_per_class) < 1:
            raise PudNetError(f"{self}: each of sketch, support and query needs at least one image a class.")


class Episode(NamedTuple):
    """One episode of K classes; a named tuple, so that Lightning Fabric can look inside.

    Attributes:
        source: Name of the source.
        source_index: Its place in the pool.
        classes: (K,) int64 class indices within the source.
        pool_classes: (K,) int64 class indices over the whole pool, for the auxiliary classifier.
        sketch: (S, C, H, W) uint8.
        sketch_labels: (S,) int64 in 0..K-1.
        support: (M, C, H, W) uint8.
        support_labels: (M,) int64 in 0..K-1.
        query: (Q, C, H, W) uint8.
        query_labels: (Q,) int64 in 0..K-1.
    """

    source: str
    source_index: int
    classes: Tensor
    pool_classes: Tensor
    sketch: Tensor
    sketch_labels: Tensor
    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor

    @property
    def images(self) -> Tensor:
        """Support and query, (M + Q, C, H, W): what goes through the target in one batch."""
        return torch.cat([self.support, self.query])

    @property
    def n_support(self) -> int:
        """M, the number of support images."""
        return len(self.support)

    @property
    def n_query(self) -> int:
        """Q, the number of query images."""
        return len(self.query)

    def given(self, support: int = 0) -> tuple[Tensor, Tensor]:
        """What a predictor looks at: the sketch, and at most so many support images per class, with their labels."""
        labels = self.support_labels
        first = torch.searchsorted(labels, labels)  # where each image's class begins: the labels are sorted
        kept = torch.arange(len(labels), device=labels.device) - first < support
        return torch.cat([self.sketch, self.support[kept]]), torch.cat([self.sketch_labels, labels[kept]])

    def to(self, device: torch.device | str) -> Episode:
        """Copy every tensor to a device."""
        tensors = {name: value for name, value in self._asdict().items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        return self._replace(**moved)


def _parts(sizes: Sequence[int], available: int) -> list[int]:
    """Shrink image counts to the images there are, in proportion, each at least one."""
    total = sum(sizes)
    if available >= total:
        return list(sizes)
    shrunk = [max(1, size * available // total) for size in sizes]
    while sum(shrunk) > available:
        shrunk[int(np.argmax(shrunk))] -= 1
    return shrunk


class EpisodeSampler:
    """Draws episodes from a pool of sources; each episode comes from one source.

    Args:
        pool: The sources. Sketch and support come from here.
        config: What an episode holds.
        seed: Episode ``i`` depends on ``(seed, i)`` alone.
        query_pool: The same sources' other images (a test split) for the query sets; by default those of ``pool``.
        weights: Probability of each source; by default equal.
        classes: Of each source, the classes that episodes are drawn from; by default all. Nothing is copied, so that a
            memory-mapped source of any size stays on disk but for the episodes' images.

    Raises:
        PudNetError: If a source has fewer than two usable classes, or the two pools do not match.
    """

    def __init__(
        self, pool: Sequence[ImageDataset], config: EpisodeConfig | None = None, seed: int = 0,
        query_pool: Sequence[ImageDataset] | None = None, weights: Sequence[float] | None = None,
        classes: Sequence[Sequence[int]] | None = None,
    ) -> None:  # fmt: skip
        if not pool:
            raise PudNetError("The pool of sources is empty; expected at least one dataset.")
        if query_pool is not None and [d.class_names for d in query_pool] != [d.class_names for d in pool]:
            raise PudNetError("query_pool must hold the same sources with the same class names as pool, in order.")
        self.pool, self.query_pool = tuple(pool), None if query_pool is None else tuple(query_pool)
        self.config, self.seed = config or EpisodeConfig(), seed
        raw = np.ones(len(pool)) if weights is None else np.asarray(weights, dtype=float)
        if raw.shape != (len(pool),) or raw.min() < 0 or raw.sum() <= 0:
            raise PudNetError(f"weights {raw.tolist()} must be {len(pool)} non-negative numbers, one a source.")
        self.weights = raw / raw.sum()
        drawn = [range(d.num_classes) for d in pool] if classes is None else classes
        self.classes = [np.asarray(part, dtype=np.int64) for part in drawn]
        self.offsets = np.cumsum([0] + [len(part) for part in self.classes])
        self._by_class = self._indices(self.pool)
        self._query_by_class = self._indices(self.query_pool or ())
        # Copies: torch.multiprocessing moves a tensor that it sends, and leaves a view of its memory dangling.
        self._items = [d.items.numpy().copy() for d in self.pool]
        self.usable = [self._usable_classes(s) for s in range(len(self.pool))]

    def _indices(self, pool: Sequence[ImageDataset]) -> list[list[np.ndarray]]:
        found = [(data.indices_by_class(), classes) for data, classes in zip(pool, self.classes, strict=False)]
        return [[ids[c].numpy() for c in classes] for ids, classes in found]

    def images_and_classes(self) -> dict[str, list[object]]:
        """Each source's number of images and its classes, as far as episodes are drawn from them."""
        return {
            data.name: [sum(map(len, self._by_class[s])), *(data.class_names[c] for c in self.classes[s])]
            for s, data in enumerate(self.pool)
        }

    def _usable_classes(self, s: int) -> np.ndarray:
        need = 2 if self.query_pool is not None else 3
        enough = []
        for c, ids in enumerate(self._by_class[s]):
            if self.query_pool is not None:
                enough.append(len(ids) >= need and len(self._query_by_class[s][c]) > 0)
            else:  # some item must be left for the query when sketch and support have an image each
                _, counts = np.unique(self._items[s][ids], return_counts=True)
                enough.append(len(ids) >= need and len(ids) - counts.min() >= 2)
        usable = np.flatnonzero(enough)
        if len(usable) < 2:
            name = self.pool[s].name
            raise PudNetError(
                f"{name}: {len(usable)} of {len(enough)} classes have the {need} images that an episode needs "
                "(one each for sketch, support and query); expected at least 2 such classes. Add images or drop it."
            )
        return usable

    @property
    def num_classes(self) -> int:
        """Number of classes over the whole pool that episodes are drawn from, for the auxiliary classifier."""
        return int(self.offsets[-1])

    def _shuffled(self, rng: np.random.Generator, ids: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Shuffle images so that those of one item stand together: a cut between items then separates them."""
        unique, inverse = np.unique(items, return_inverse=True)
        if len(unique) == len(ids):
            return rng.permutation(ids)
        rank = rng.permutation(len(unique))
        return ids[np.lexsort((rng.random(len(ids)), rank[inverse]))]

    def _split_class(self, rng: np.random.Generator, s: int, c: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        cfg, items = self.config, self._items[s]
        ids = self._shuffled(rng, self._by_class[s][c], items[self._by_class[s][c]])
        if self.query_pool is not None:
            n_sketch, n_support = _parts((cfg.sketch_per_class, cfg.support_per_class), len(ids))
            query = rng.permutation(self._query_by_class[s][c])[: cfg.query_per_class]
            return ids[:n_sketch], ids[n_sketch : n_sketch + n_support], query
        sizes = _parts((cfg.sketch_per_class, cfg.support_per_class, cfg.query_per_class), len(ids))
        query = ids[-sizes[2] :]
        rest = ids[~np.isin(items[ids], items[query])]
        if len(rest) < 2:  # so few items that the query took them all: give it the smallest one alone
            values, counts = np.unique(items[ids], return_counts=True)
            alone = items[ids] == values[np.argmin(counts)]
            query, rest = ids[alone][: sizes[2]], ids[~alone]
        n_sketch, n_support = _parts(sizes[:2], len(rest))
        return rest[:n_sketch], rest[n_sketch : n_sketch + n_support], query

    def episode(self, index: int, source: int | None = None) -> Episode:
        """Draw episode number ``index``; of one source of the pool where its place is given, else of a drawn one."""
        rng = np.random.default_rng((self.seed, index))
        drawn = int(rng.choice(len(self.pool), p=self.weights))
        s = drawn if source is None else source
        ways = min(self.config.ways, len(self.usable[s]))
        places = rng.choice(self.usable[s], size=ways, replace=False)
        splits = [self._split_class(rng, s, int(c)) for c in places]
        query_images = (self.query_pool or self.pool)[s].images
        gathered: dict[str, Tensor] = {}
        for part, name in enumerate(("sketch", "support", "query")):
            picks = [split[part] for split in splits]
            images = query_images if name == "query" else self.pool[s].images
            gathered[name] = hook("take", getitem)(images, torch.from_numpy(np.concatenate(picks)))
            gathered[f"{name}_labels"] = torch.from_numpy(np.repeat(np.arange(ways), [len(p) for p in picks]))
        return Episode(
            source=self.pool[s].name,
            source_index=s,
            classes=torch.from_numpy(self.classes[s][places]),
            pool_classes=torch.from_numpy((places + self.offsets[s]).astype(np.int64)),
            **gathered,
        )
