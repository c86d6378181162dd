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
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.cache import data_folder
from pudnet_lib.images.decode import PictureError, Pixels, to_square
from pudnet_lib.images.folder import Listing, fingerprint
from pudnet_lib.images.published import scan_any
from pudnet_lib.images.reading import Reading, Source, Split, cache_path, read_folder, read_source

_Arguments = dict[str, Any]
_Parts = tuple[tuple[_Arguments, ...], tuple[_Arguments, ...]]
_BY_FLAG: _Parts = (({"train": True},), ({"train": False},))
_TEST = ({"split": "test"},)
_TRAIN_TEST: _Parts = (({"split": "train"},), _TEST)
_TRAIN_VAL_TEST: _Parts = (({"split": "train"}, {"split": "val"}), _TEST)
_TRAINVAL_TEST: _Parts = (({"split": "trainval"},), _TEST)
_NO_PARTS: _Parts = ((), ())
_CONNECTION_SECONDS = 30.0
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


class TorchvisionSource(NamedTuple):
    """What is known of one of torchvision's datasets."""

    class_name: str
    folder: str  # where its files are, below the data folder
    classes: int
    images: int  # training and test
    size: str
    licence: str
    parts: _Parts = _NO_PARTS  # arguments for training and test images; empty where the files are listed instead
    labels: str = "targets"  # torchvision's attribute that holds them
    root: str = "."  # the constructor's, below the data folder


_ROWS: dict[str, tuple[Any, ...]] = {
    "mnist": ("MNIST", "MNIST/raw", 10, 70_000, "28 gray", "CC BY-SA 3.0", _BY_FLAG),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw", 10, 70_000, "28 gray", "MIT", _BY_FLAG),
    "kmnist": ("KMNIST", "KMNIST/raw", 10, 70_000, "28 gray", "CC BY-SA 4.0", _BY_FLAG),
    "cifar10": ("CIFAR10", "cifar-10-batches-py", 10, 60_000, "32 RGB", "cite Krizhevsky 2009", _BY_FLAG),
    "cifar100": ("CIFAR100", "cifar-100-python", 100, 60_000, "32 RGB", "cite Krizhevsky 2009", _BY_FLAG),
    "svhn": ("SVHN", "svhn", 10, 99_289, "32 RGB", "non-commercial", _TRAIN_TEST, "labels", "svhn"),
    "stl10": ("STL10", "stl10_binary", 10, 13_000, "96 RGB", "research only", _TRAIN_TEST, "labels"),
    "dtd": ("DTD", "dtd/dtd", 47, 5_640, "mixed RGB", "research only", _TRAIN_VAL_TEST, "_labels"),
    "flowers102": ("Flowers102", "flowers-102", 102, 8_189, "mixed RGB", "unknown", _TRAIN_VAL_TEST, "_labels"),
    "food101": ("Food101", "food-101", 101, 101_000, "mixed RGB", "research only", _TRAIN_TEST, "_labels"),
    "oxford-pets": (
        *("OxfordIIITPet", "oxford-iiit-pet", 37, 7_349, "mixed RGB", "CC BY-SA 4.0", _TRAINVAL_TEST, "_labels"),
    ),
    "fgvc-aircraft": (
        *("FGVCAircraft", "fgvc-aircraft-2013b", 100, 10_000, "mixed RGB", "research only", _TRAINVAL_TEST, "_labels"),
    ),
    "eurosat": ("EuroSAT", "eurosat/2750", 10, 27_000, "64 RGB", "MIT"),
    "omniglot": ("Omniglot", "omniglot-py", 1_623, 32_460, "105 gray", "MIT"),
}
TORCHVISION = {name: TorchvisionSource(*row) for name, row in _ROWS.items()}


def load_torchvision(name: str, split: Split, how: Reading) -> ImageDataset:
    """Load one of ``TORCHVISION`` by name, from a local copy or downloaded."""
    source = TORCHVISION[name]
    folder = unpacked_copy(name) or data_folder() / source.folder
    if unpacked_copy(name) is None and not source.parts[0] and not (folder.is_dir() and any(folder.iterdir())):
        for arguments in ({"background": False}, {"background": True}) if name == "omniglot" else ({},):
            _construct(name, arguments, folder)
    if unpacked_copy(name) is not None or not source.parts[0]:
        listed = replace(scan_any(folder, name), licence=source.licence, published=True)
        return read_folder(folder, split, how, lambda: listed, name)
    path = cache_path(name, folder, how)
    return read_source(path, fingerprint(folder, _files(folder)), lambda: _open(name, folder, how), split, how)


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _open(name: str, folder: Path, how: Reading) -> Source:
    """Open all parts of a dataset, downloading what is missing."""
    source = TORCHVISION[name]
    parts = [[_construct(name, arguments, folder) for arguments in part] for part in source.parts]
    records = [(dataset, i) for part in parts for dataset in part for i in range(len(dataset))]

    def read(i: int) -> Pixels:
        dataset, record = records[i]
        try:
            return to_square(dataset[record][0], how.size, how.channels)
        except Exception as error:  # whatever a reader makes of a damaged file
            raise PictureError(f"{name}: image {record}", f"damaged ({error})", "Download it anew.") from error

    labels = np.concatenate([np.asarray(getattr(d, source.labels), dtype=np.int64) for part in parts for d in part])
    names = tuple(str(c) for c in getattr(parts[0][0], "classes", range(source.classes)))
    tests = np.arange(len(labels)) >= sum(len(dataset) for dataset in parts[0])
    files, stamp = tuple(f"image {i}" for i in range(len(labels))), fingerprint(folder, _files(folder))
    about = (name, folder, str(folder), files, labels, tests, names, (), (), stamp, source.licence, True)
    return Source(Listing(*about), read, lambda i: stamp.encode())


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
