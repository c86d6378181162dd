"""The images of the large-scale experiment: found, made up for a smoke test; and who gets how many of them right.

Our choice. The paper's is ImageNet-1K with 800 training and 200 unseen classes [code]; Tiny-ImageNet is its small kin.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from torch import nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.images import load_images
from pudnet_lib.images.cache import cache_folder
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.images.sources import list_sources
from pudnet_lib.images.splits import imagenet_classes

CHUNK = 256  # images a forward pass
#: Source name of the folder that ``made_up_imagenet`` makes.
MADE_UP = "made-up-imagenet"


class UnseenData(NamedTuple):
    """What is predicted for: the unseen classes' training and test images, and where the controls' sketches come from.

    Attributes:
        train: Training images of the unseen classes: what every method learns from.
        test: Their test images.
        near: Training images of as many other classes of the same source.
        far: Training images of as many classes of another source, or all that it has.
    """

    train: ImageDataset
    test: ImageDataset
    near: ImageDataset
    far: ImageDataset


def made_up_imagenet(folder: Path | None = None, classes: int = 12, train: int = 12, test: int = 5) -> Path:
    """Make a folder in ImageNet's standard layout: train/ and val/ with one folder a WordNet id, JPEG files.

    Each class is a shape of one colour on a background of another, at random places and sizes.

    Args:
        folder: Where to; by default in the cache folder. An existing one is taken as it is.
        classes: K.
        train: Training images a class.
        test: Validation images a class.

    Returns:
        The folder.
    """
    folder = folder or cache_folder() / MADE_UP
    if folder.is_dir():
        return folder
    rng = np.random.default_rng(0)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    for number, wnid in enumerate(list(imagenet_classes())[:classes]):
        back, front = (tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(2))
        for part, count in (("train", train), ("val", test)):
            place = partial / part / wnid
            place.mkdir(parents=True)
            for i in range(count):
                width, height = (int(v) for v in rng.integers(70, 100, 2))
                image = Image.new("RGB", (width, height), back)
                left, top, size = (int(v) for v in rng.integers((5, 5, 20), (30, 30, 45)))
                shape = (left, top, left + size, top + size)
                draw = ImageDraw.Draw(image)
                (draw.rectangle, draw.ellipse, draw.line)[number % 3](shape, fill=front, width=7)
                image.save(place / f"{wnid}_{i}.JPEG")
    try:
        partial.rename(folder)
    except OSError:  # another process was faster
        return folder
    return folder


def is_there(source: str) -> bool:
    """Whether a source can be loaded without a download: a known name whose files are there, or a folder."""
    known = {info.name: info.available for info in list_sources()}
    return source == MADE_UP or known.get(source, Path(source).is_dir())


def pool_source(source: str) -> str:
    """What ``PoolConfig`` takes for a source: a name, or the made-up folder's path."""
    return str(made_up_imagenet()) if source == MADE_UP else source


@lru_cache(maxsize=1)
def unseen_data(source: str, far_source: str, size: int, per_class: int, seed: int) -> UnseenData:
    """Load the unseen classes' images and what the controls need.

    Args:
        source: A name or folder.
        far_source: Another one.
        size: Pixels, height and width.
        per_class: At most so many training images a class; 0 for all.
        seed: Of the draws.

    Returns:
        The images.
    """
    pool = Pool(PoolConfig((pool_source(source),), size=size))
    train, test, split = pool.train[0], pool.test[0], pool.splits[0]
    unseen, far = train.select_classes(split.unseen), load_images(far_source, size=size)
    return UnseenData(
        unseen.at_most(per_class, seed) if per_class else unseen,
        test.select_classes(split.unseen),
        _some_of(train, (*split.train, *split.validation), len(split.unseen), seed),
        _some_of(far, range(far.num_classes), len(split.unseen), seed),
    )


def _some_of(data: ImageDataset, classes: Sequence[int], count: int, seed: int) -> ImageDataset:
    """At most ``count`` of the classes, drawn at random; the images of the others are never read."""
    drawn = np.random.default_rng(seed).permutation(classes)[:count]
    return data.select_classes([int(c) for c in drawn])


def per_class_accuracy(network: nn.Module, test: ImageDataset) -> pd.DataFrame:
    """Top-1 and top-5 accuracy on each class of the test images.

    Args:
        network: uint8 images (N, C, H, W) to logits (N, K).
        test: The images.

    Returns:
        One row a class and metric: episode, metric, value and chance in %.
    """
    device = next(network.parameters()).device
    most = min(5, test.num_classes)
    with torch.no_grad():
        parts = [network(part.to(device)).topk(most, dim=1).indices.cpu() for part in test.images.split(CHUNK)]
    hits = torch.cat(parts) == test.labels[:, None]  # (N, 5), best first
    rows = []
    for c, ids in enumerate(test.indices_by_class()):
        for k in (1, most):
            value = 100 * float(hits[ids, :k].any(1).float().mean())
            metric = "top-1 accuracy" if k == 1 else "top-5 accuracy"
            rows.append({"episode": c, "metric": metric, "value": value, "chance": 100 * k / test.num_classes})
    return pd.DataFrame(rows)
