"""Datasets by torchvision's names: a local copy if there is one, else torchvision downloads it, with progress.

The paper uses CIFAR-10, CIFAR-100 and DTD [code]; the other names are our choice. Where torchvision has separate
validation images they join the training images (DTD's 80 + 40 images a class are the paper's counts [code]).
"""

from __future__ import annotations

import gzip
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.cache import data_folder
from pudnet_lib.images.decode import Pixels, to_square
from pudnet_lib.images.folder import files_below, fingerprint, scan_folder
from pudnet_lib.images.published import scan_omniglot
from pudnet_lib.images.reading import IndexedSource, Reading, Split, cache_path, read_listing, read_source

_Arguments = dict[str, Any]
_BY_FLAG: tuple[tuple[_Arguments, ...], tuple[_Arguments, ...]] = (({"train": True},), ({"train": False},))
_TRAIN_TEST: tuple[tuple[_Arguments, ...], tuple[_Arguments, ...]] = (({"split": "train"},), ({"split": "test"},))
_TRAIN_VAL_TEST: tuple[tuple[_Arguments, ...], tuple[_Arguments, ...]] = (
    ({"split": "train"}, {"split": "val"}),
    ({"split": "test"},),
)
_TRAINVAL_TEST: tuple[tuple[_Arguments, ...], tuple[_Arguments, ...]] = (({"split": "trainval"},), ({"split": "test"},))
_CONNECTION_SECONDS = 30.0
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


@dataclass(frozen=True)
class TorchvisionSource:
    """What is known of one of torchvision's datasets.

    Attributes:
        class_name: torchvision's class.
        folder: Where its files are, below the data folder.
        classes: K.
        images: All images, training and test.
        size: Pixels, as text: some have many sizes.
        licence: The terms.
        parts: Arguments for the training and for the test images; empty where the files are listed instead, because
            torchvision has no split or other classes in each.
        labels: torchvision's attribute that holds the labels.
        root: The constructor's root, below the data folder.
    """

    class_name: str
    folder: str
    classes: int
    images: int
    size: str
    licence: str
    parts: tuple[tuple[_Arguments, ...], tuple[_Arguments, ...]] = ((), ())
    labels: str = "targets"
    root: str = "."


TORCHVISION = {
    "mnist": TorchvisionSource("MNIST", "MNIST/raw", 10, 70_000, "28 gray", "CC BY-SA 3.0", _BY_FLAG),
    "fashion-mnist": TorchvisionSource("FashionMNIST", "FashionMNIST/raw", 10, 70_000, "28 gray", "MIT", _BY_FLAG),
    "kmnist": TorchvisionSource("KMNIST", "KMNIST/raw", 10, 70_000, "28 gray", "CC BY-SA 4.0", _BY_FLAG),
    "cifar10": TorchvisionSource(
        "CIFAR10", "cifar-10-batches-py", 10, 60_000, "32 RGB", "cite Krizhevsky 2009", _BY_FLAG
    ),
    "cifar100": TorchvisionSource(
        "CIFAR100", "cifar-100-python", 100, 60_000, "32 RGB", "cite Krizhevsky 2009", _BY_FLAG
    ),
    "svhn": TorchvisionSource(
        "SVHN", "svhn", 10, 99_289, "32 RGB", "non-commercial", _TRAIN_TEST, labels="labels", root="svhn"
    ),
    "stl10": TorchvisionSource(
        "STL10", "stl10_binary", 10, 13_000, "96 RGB", "research only", _TRAIN_TEST, labels="labels"
    ),
    "dtd": TorchvisionSource("DTD", "dtd/dtd", 47, 5_640, "mixed RGB", "research only", _TRAIN_VAL_TEST, "_labels"),
    "flowers102": TorchvisionSource(
        "Flowers102", "flowers-102", 102, 8_189, "mixed RGB", "unknown", _TRAIN_VAL_TEST, "_labels"
    ),
    "food101": TorchvisionSource(
        "Food101", "food-101", 101, 101_000, "mixed RGB", "research only", _TRAIN_TEST, "_labels"
    ),
    "oxford-pets": TorchvisionSource(
        "OxfordIIITPet", "oxford-iiit-pet", 37, 7_349, "mixed RGB", "CC BY-SA 4.0", _TRAINVAL_TEST, "_labels"
    ),
    "fgvc-aircraft": TorchvisionSource(
        "FGVCAircraft", "fgvc-aircraft-2013b", 100, 10_000, "mixed RGB", "research only", _TRAINVAL_TEST, "_labels"
    ),
    "eurosat": TorchvisionSource("EuroSAT", "eurosat/2750", 10, 27_000, "64 RGB", "MIT"),
    "omniglot": TorchvisionSource("Omniglot", "omniglot-py", 1_623, 32_460, "105 gray", "MIT"),
}


def load_torchvision(name: str, split: Split, how: Reading) -> ImageDataset:
    """Load one of ``TORCHVISION`` by name.

    Args:
        name: Its name.
        split: Which images.
        how: Size, channels and the rest.

    Returns:
        The images, memory-mapped.

    Raises:
        PudNetError: If there is no local copy and it can't be downloaded.
    """
    source = TORCHVISION[name]
    if (unpacked := unpacked_copy(name)) is not None:
        return read_listing(scan_folder(unpacked, name), unpacked, split, how, source.licence)
    folder = data_folder() / source.folder
    if not source.parts[0]:
        if not (folder.is_dir() and any(folder.iterdir())):
            _construct(name, {"background": False} if name == "omniglot" else {}, folder)
            if name == "omniglot":
                _construct(name, {"background": True}, folder)
        listing = scan_omniglot(folder, name) if name == "omniglot" else scan_folder(folder, name)
        return read_listing(listing, folder, split, how, source.licence)
    files = files_below(folder) if folder.is_dir() else []
    path = cache_path(name, str(folder.resolve()), how)
    return read_source(path, fingerprint(files), lambda: _open(name, folder, how), split, how)


def _open(name: str, folder: Path, how: Reading) -> IndexedSource:
    """Open all parts of a dataset, downloading what is missing."""
    source = TORCHVISION[name]
    parts = [[_construct(name, arguments, folder) for arguments in part] for part in source.parts]
    records = [(dataset, i) for part in parts for dataset in part for i in range(len(dataset))]

    def read(i: int) -> Pixels:
        dataset, record = records[i]
        try:
            return to_square(dataset[record][0], how.size, how.channels)
        except Exception as error:  # whatever a reader makes of a damaged file
            raise PudNetError(
                f"{name}: image {record} of {folder} can't be read ({error}). Download it anew."
            ) from error

    labels = np.concatenate([np.asarray(getattr(d, source.labels), dtype=np.int64) for part in parts for d in part])
    names = tuple(str(c) for c in getattr(parts[0][0], "classes", range(source.classes)))
    train_count = sum(len(dataset) for dataset in parts[0])
    return IndexedSource(
        name,
        str(folder.resolve()),
        fingerprint(files_below(folder)),
        read,
        labels.tolist(),
        train_count,
        names,
        source.licence,
    )


def _construct(name: str, arguments: _Arguments, folder: Path) -> Any:
    """Make the torchvision dataset from its local copy, else download it."""
    import torchvision.datasets

    source = TORCHVISION[name]
    kind, root = getattr(torchvision.datasets, source.class_name), data_folder() / source.root
    try:
        return kind(root, **arguments)
    except (RuntimeError, OSError, EOFError, ValueError):  # not there, or only in part
        _adopt_debian_copy(name, folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _connection_timeout():
            return kind(root, **arguments, download=True)
    except Exception as error:  # URLError, RuntimeError, HTTPException, a bad archive, …
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"  # torchvision's go over several lines
        raise PudNetError(
            f"{name} is not in {folder} and could not be downloaded ({reason}). Connect to the internet once, or put "
            f"its files (torchvision's {source.class_name}) there; the environment variable PUDNET_DATA names another "
            "folder to look in."
        ) from error


@contextmanager
def _connection_timeout() -> Iterator[None]:
    """Give up on a silent server; without this a blocked connection hangs for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_CONNECTION_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _adopt_debian_copy(name: str, folder: Path) -> None:
    """Unpack Fashion-MNIST from Debian's package, where it is installed, instead of downloading it."""
    if name != "fashion-mnist" or not _DEBIAN_FASHION.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for packed in _DEBIAN_FASHION.glob("*-ubyte.gz"):
        target = folder / packed.stem
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        with gzip.open(packed) as source, partial.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        os.replace(partial, target)


def unpacked_copy(name: str) -> Path | None:
    """Find a dataset that somebody unpacked as an image folder of its name, with ``train/`` and a test folder."""
    folder = data_folder() / name
    return folder if (folder / "train").is_dir() else None


def has_local_copy(name: str) -> bool:
    """Tell whether a dataset's files are in the data folder."""
    folder = data_folder() / TORCHVISION[name].folder
    return (
        unpacked_copy(name) is not None
        or (folder.is_dir() and any(folder.iterdir()))
        or (name == "fashion-mnist" and _DEBIAN_FASHION.is_dir())
    )
