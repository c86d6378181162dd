"""How far a dataset's embedding is from those of the meta-training pool.

Our choice; the paper has no counterpart. Episodes of the pool's training classes are embedded once and kept; a
dataset's distance is the mean Euclidean distance to its nearest pool episodes (each dimension scaled by the pool's
spread), over what a pool episode has to the others of the pool. 1 is an ordinary member of the pool.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig
from pudnet_lib.core.pudnet import PudNet
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.packs import pack_names
from pudnet_lib.images.sources import load_images
from pudnet_lib.images.splits import default_class_split

#: Nearest pool episodes over which a distance is averaged.
NEIGHBOURS = 5
#: Episodes that are embedded a source.
EPISODES = 32
_CACHE: weakref.WeakKeyDictionary[PudNet, dict[Any, PoolEmbeddings]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class PoolEmbeddings:
    """Embeddings of the pool's episodes.

    Attributes:
        vectors: (M, G·D), standardised.
        centre: (G·D,) the pool's mean.
        spread: (G·D,) the pool's standard deviation.
        sources: M names.
        usual: Median of the pool episodes' own distances.
    """

    vectors: Tensor
    centre: Tensor
    spread: Tensor
    sources: tuple[str, ...]
    usual: float


@dataclass(frozen=True)
class PoolDistance:
    """A dataset's place.

    Attributes:
        ratio: Its distance over the usual one.
        nearest: The source of the nearest episode.
        share: Share of the pool's episodes that are as far or farther from the others.
    """

    ratio: float
    nearest: str
    share: float


def _embed(model: PudNet, sketch: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return model.embed(sketch.to(model.device), labels.to(model.device)).flatten().cpu()  # (G·D,)


def _nearest(distances: Tensor) -> Tensor:
    """Mean of the smallest few of each row."""
    return distances.topk(min(NEIGHBOURS, distances.shape[-1]), largest=False).values.mean(-1)


def default_pool(size: int = 32, channels: int = 3, names: tuple[str, ...] = ()) -> tuple[ImageDataset, ...]:
    """The training classes of the embedded packs (by default of all), from which the shipped predictor learned."""
    pool = []
    for name in names or pack_names():
        data = load_images(name, split="train", size=size, channels=channels)
        pool.append(data.select_classes(default_class_split(name, data.num_classes).train))
    return tuple(pool)


def pool_embeddings(
    model: PudNet, pool: tuple[ImageDataset, ...], episodes: int = EPISODES, per_class: int = 10
) -> PoolEmbeddings:
    """Embed episodes of each source.

    Args:
        model: The hypernetwork.
        pool: The sources' training classes.
        episodes: Episodes a source.
        per_class: Sketch images a class.

    Returns:
        The embeddings; kept until the model's weights change or the model goes.

    Raises:
        PudNetError: If there are fewer than two episodes.
    """
    if episodes * len(pool) < 2:
        raise PudNetError("A distance to the pool needs at least two episodes; give more episodes or sources.")
    weights = tuple(p._version for p in model.parameters())
    key = (tuple((d.name, len(d), d.class_names) for d in pool), episodes, per_class, weights)
    kept = _CACHE.setdefault(model, {})
    if key not in kept:
        sampler = EpisodeSampler(
            pool, EpisodeConfig(sketch_per_class=per_class, support_per_class=1, query_per_class=1)
        )
        drawn = [sampler.episode(i, source=s) for s in range(len(pool)) for i in range(episodes)]
        raw = torch.stack([_embed(model, g.sketch, g.sketch_labels) for g in drawn])  # (M, G·D)
        centre = raw.mean(0)
        spread = raw.std(0).clamp_min(1e-6)
        vectors = (raw - centre) / spread
        distances = torch.cdist(vectors, vectors).fill_diagonal_(float("inf"))  # (M, M)
        sources = tuple(pool[g.source_index].name for g in drawn)
        kept.clear()  # a model that is still being trained would fill the memory
        kept[key] = PoolEmbeddings(vectors, centre, spread, sources, float(_nearest(distances).median()))
    return kept[key]


def pool_distance(
    model: ParameterModel,
    dataset: ImageDataset,
    config: PredictConfig | None = None,
    pool: tuple[ImageDataset, ...] | None = None,
) -> PoolDistance | None:
    """Measure how far a dataset is from the pool.

    Args:
        model: The predictor.
        dataset: The images; their sketch is embedded.
        config: Size and seed of the sketch.
        pool: The sources' training classes; by default the embedded packs'.

    Returns:
        The distance; None if the model does not look at images (a shared network, a constant embedding).
    """
    if not isinstance(model, PudNet) or model.config.embedding == "constant":
        return None
    config = config or PredictConfig()
    pool = default_pool(dataset.size, dataset.channels) if pool is None else pool
    known = pool_embeddings(model, pool, per_class=config.sketch_per_class)
    raw = _embed(model, *dataset.sketch_with_labels(config.sketch_per_class, config.seed))
    distances = torch.cdist(((raw - known.centre) / known.spread)[None], known.vectors)[0]  # (M,)
    own = torch.cdist(known.vectors, known.vectors).fill_diagonal_(float("inf"))
    here = float(_nearest(distances))
    return PoolDistance(
        here / max(known.usual, 1e-6),
        known.sources[int(distances.argmin())],
        float((_nearest(own) >= here).float().mean()),
    )
