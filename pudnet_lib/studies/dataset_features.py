"""The dataset's side of the correlation: one vector an episode, from its training images alone.

HOG is what the paper uses [rec], from scikit-image; pixel statistics, PudNet's own embedding, and the embedding of an
untrained PudNet (its control) are ours. Labels play no part, but in a predictor whose encoder reads them.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from skimage.feature import hog
from torch import Tensor
from tqdm.auto import tqdm

from pudnet_lib.core import PudNet
from pudnet_lib.errors import unknown_name
from pudnet_lib.images.cache import cache_folder
from pudnet_lib.shipped import load_pudnet
from pudnet_lib.studies.zoo_episodes import Part, ZooEpisodes, source_images

DatasetFeature = Literal["HOG", "pixel statistics", "PudNet's embedding", "untrained embedding"]
DATASET_FEATURES: tuple[DatasetFeature, ...] = get_args(DatasetFeature)


def dataset_features(
    feature: DatasetFeature, source: str, episodes: ZooEpisodes, part: Part, rows: np.ndarray
) -> np.ndarray:
    """Describe episodes by their training images.

    Args:
        feature: Which description.
        source: The episodes' source, by which descriptions of single images are kept.
        episodes: The sampler.
        part: Training or held-out episodes.
        rows: (G,) numbers of the episodes.

    Returns:
        (G, p) float64.

    Raises:
        PudNetError: If the feature is unknown.
    """
    if feature not in DATASET_FEATURES:
        raise unknown_name("dataset feature", feature, DATASET_FEATURES)
    ids = episodes.image_ids(part, rows)  # (G, M)
    if feature not in ("HOG", "pixel statistics"):
        model = _predictor(trained=feature == "PudNet's embedding")
        with torch.no_grad():
            images = (episodes.train.images[torch.from_numpy(row)] for row in ids)
            return np.stack([model.embed(i, episodes.labels).flatten().numpy() for i in images]).astype(float)
    codes = _of_images(feature, source, episodes, np.unique(ids))[ids]  # (G, M, p)
    return np.concatenate([codes.mean(1), codes.std(1)], 1).astype(float)


@lru_cache(maxsize=2)
def _predictor(trained: bool) -> PudNet:
    model = load_pudnet()
    return model if trained else PudNet(model.config).eval()


def image_hog(images: Tensor) -> np.ndarray:
    """Histogram of oriented gradients of gray images: 8 orientations in cells of a quarter of the side.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N, 128) float32 at any image size that four divides.
    """
    cell = images.shape[2] // 4
    gray = images.float().mean(1).div(255).numpy()
    rows = [  # scikit-image takes one picture at a time
        hog(picture, orientations=8, pixels_per_cell=(cell, cell), cells_per_block=(1, 1))
        for picture in tqdm(gray, desc="HOG", unit="image", disable=len(gray) < 500, leave=False)
    ]
    return np.stack(rows).astype(np.float32)


_tables: dict[str, np.ndarray] = {}


def _of_images(feature: str, source: str, episodes: ZooEpisodes, ids: np.ndarray) -> np.ndarray:
    """Descriptions of a source's images, NaN where not yet asked for; kept in memory and in the cache folder."""
    describe, columns = (image_hog, 128) if feature == "HOG" else (pixel_statistics, 16)
    key = f"{feature}-{source_images(source)[2]}".replace(" ", "-")
    path = cache_folder() / "features" / f"{key}.safetensors"
    if key not in _tables:
        known = load_file(path)["rows"] if path.is_file() else np.empty(0)
        fits = known.shape == (len(episodes.train), columns)
        _tables[key] = known if fits else np.full((len(episodes.train), columns), np.nan, np.float32)
    table = _tables[key]
    missing = ids[np.isnan(table[ids, 0])]
    if len(missing):
        table[missing] = describe(episodes.train.images[torch.from_numpy(missing)])
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        save_file({"rows": table}, temporary)
        os.replace(temporary, path)
    return table


def pixel_statistics(images: Tensor) -> np.ndarray:
    """Describe each image by brightness, contrast, edges and a histogram.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N, 2·C + 2 + 8): mean and spread of each channel, mean size of horizontal and vertical steps between
        neighbouring pixels, shares of 8 gray levels; all on the scale of [0, 1].
    """
    pixels = images.float().div(255)
    gray = pixels.mean(1)  # (N, H, W)
    edges = torch.stack([gray.diff(dim=d).abs().mean((1, 2)) for d in (1, 2)], 1)
    level = (gray * 8).long().clamp_max(7)
    shares = torch.nn.functional.one_hot(level.flatten(1), 8).float().mean(1)  # (N, 8)
    return torch.cat([pixels.mean((2, 3)), pixels.std((2, 3)), edges, shares], 1).numpy()
