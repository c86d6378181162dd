"""The images of the denoising experiment: embedded packs, scikit-image's and scikit-learn's photographs, a folder.

Paper: CIFAR-10, Animals-10, CIFAR-100, CUB-200, DTD, BSDS500 [code]. Our choice: what a machine has without a download;
the photographs come with the libraries, a class is a photograph, an image a 32-pixel patch of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.images import load_images
from pudnet_lib.images.pool import default_class_split

PHOTOGRAPHS, TEXTURES = "photographs", "gray photographs"
#: Source → (names for meta-training, names held out); those that scikit-image needs no download for.
BUNDLED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    PHOTOGRAPHS: (("astronaut", "coffee", "rocket", "motorcycle", "hubble"), ("cat", "china", "flower")),
    TEXTURES: (("brick", "camera", "coins", "moon", "page", "cell"), ("grass", "gravel")),
}


@dataclass(frozen=True)
class Source:
    """One source's images.

    Attributes:
        meta: Images that meta-training may see (training classes).
        own: The unseen classes' training images: noisy copies give the sketch.
        test: The unseen classes' other images: the metrics.
    """

    name: str
    meta: ImageDataset
    own: ImageDataset
    test: ImageDataset


def load_source(name: str, size: int = 32, channels: int = 3) -> Source:
    """Load a pack, ``"photographs"``, ``"gray photographs"``, another dataset or an image folder, in disjoint parts."""
    if name in BUNDLED:
        # Meta-training sees half-size copies too: at full size these photographs are smoother than most pictures.
        parts = zip(BUNDLED[name], ((1, 2), (1,)), strict=True)
        seen, unseen = (_patches(name, names, size, shrink).with_channels(channels) for names, shrink in parts)
        # Every second patch, as on a chessboard: the test patches are from the same pictures, and none of the own ones.
        even = torch.arange(len(unseen)) % 2 == 0
        return Source(name, seen, unseen.subset(even.nonzero()[:, 0]), unseen.subset((~even).nonzero()[:, 0]))
    train = load_images(name, split="train", size=size, channels=channels)
    test = load_images(name, split="test", size=size, channels=channels)
    split = default_class_split(train.name, train.num_classes)
    meta = train.select_classes((*split.train, *split.validation))
    return Source(train.name, meta, train.select_classes(split.unseen), test.select_classes(split.unseen))


@cache
def photograph(name: str) -> np.ndarray:
    """Read a photograph that comes with scikit-image or scikit-learn: (H, W) or (H, W, 3) uint8."""
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        picture: np.ndarray = load_sample_image(f"{name}.jpg")
        return picture
    from skimage import data

    if name == "motorcycle":
        left: np.ndarray = data.stereo_motorcycle()[0]
        return left
    other: np.ndarray = getattr(data, {"hubble": "hubble_deep_field"}.get(name, name))()
    return other


@cache
def _patches(source: str, names: tuple[str, ...], size: int, shrink: tuple[int, ...] = (1,)) -> ImageDataset:
    """Cut photographs into patches, in reading order, an odd number a row so that even and odd make a chessboard."""
    cut, labels = [], []
    for (label, name), factor in product(enumerate(names), shrink):
        picture = torch.from_numpy(np.atleast_3d(photograph(name)).copy()).permute(2, 0, 1)  # (C, H, W)
        if factor > 1:
            picture = avg_pool2d(picture.float(), factor).round().to(torch.uint8)
        rows, columns = picture.shape[1] // size, (picture.shape[2] // size - 1) // 2 * 2 + 1
        picture = picture[:, : rows * size, : columns * size]
        tiles = picture.unfold(1, size, size).unfold(2, size, size)  # (C, rows, columns, size, size)
        cut.append(tiles.permute(1, 2, 0, 3, 4).flatten(0, 1))
        labels += [label] * (rows * columns)
    licence = "as shipped with scikit-image and scikit-learn; see their documentation"
    return ImageDataset(torch.cat(cut).contiguous(), torch.tensor(labels), names, source, licence=licence)
