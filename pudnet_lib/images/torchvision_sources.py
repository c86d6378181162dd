"""Datasets by torchvision's names: a local copy if there is one, else torchvision downloads it, with progress.

The paper uses CIFAR-10, CIFAR-100 and DTD [code]; the other names are our choice. Where torchvision has separate
validation images they join the training images (DTD's 80 + 40 images a class are the paper's counts [code]).
"""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import socket
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

_CONNECTION_SECONDS = 30.0
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


class Known(NamedTuple):
    """What is known of a dataset by name: a row of sources.csv."""

    name: str
    kind: str  # "torchvision" or "published": to be fetched by hand
    folders: str  # where its files may be, below the data folder
    classes: str
    images: str  # training and test
    size: str
    licence: str
    class_name: str  # torchvision's
    parts: str  # its splits for training and for testing; empty where the files are listed instead
    labels: str  # its attribute that holds them
    root: str  # its constructor's, below the data folder
    how_to_get: str

    @property
    def folder(self) -> str:
        """The first folder."""
        return self.folders.split(";")[0]

    def arguments(self) -> list[list[dict[str, Any]]]:
        """The constructor's arguments for the training and for the test images."""
        if self.parts == "flag":
            return [[{"train": True}], [{"train": False}]]
        return [[{"split": name} for name in part.split("+")] for part in self.parts.split("/")]


with Path(__file__).with_name("sources.csv").open(encoding="utf-8", newline="") as _file:
    _ROWS = [Known(*row) for row in list(csv.reader(_file))[1:]]
TORCHVISION = {row.name: row for row in _ROWS if row.kind == "torchvision"}
PUBLISHED = {row.name: row for row in _ROWS if row.kind == "published"}


def load_torchvision(name: str, split: Split, how: Reading) -> ImageDataset:
    """Load one of ``TORCHVISION`` by name, from a local copy or downloaded."""
    source = TORCHVISION[name]
    folder = unpacked_copy(name) or data_folder() / source.folder
    if unpacked_copy(name) is None and not source.parts and not (folder.is_dir() and any(folder.iterdir())):
        for arguments in ({"background": False}, {"background": True}) if name == "omniglot" else ({},):
            _construct(name, arguments, folder)
    if unpacked_copy(name) is not None or not source.parts:
        listed = replace(scan_any(folder, name), licence=source.licence, published=True)
        return read_folder(folder, split, how, lambda: listed, name)
    path = cache_path(name, folder, how)
    return read_source(path, fingerprint(folder, _files(folder)), lambda: _open(name, folder, how), split, how)


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _open(name: str, folder: Path, how: Reading) -> Source:
    """Open all parts of a dataset, downloading what is missing."""
    source = TORCHVISION[name]
    parts = [[_construct(name, arguments, folder) for arguments in part] for part in source.arguments()]
    records = [(dataset, i) for part in parts for dataset in part for i in range(len(dataset))]

    def read(i: int) -> Pixels:
        dataset, record = records[i]
        try:
            return to_square(dataset[record][0], how.size, how.channels)
        except Exception as error:  # whatever a reader makes of a damaged file
            raise PictureError(f"{name}: image {record}", f"damaged ({error})", "Download it anew.") from error

    labels = np.concatenate([np.asarray(getattr(d, source.labels), dtype=np.int64) for part in parts for d in part])
    names = tuple(str(c) for c in getattr(parts[0][0], "classes", range(int(source.classes))))
    tests = np.arange(len(labels)) >= sum(len(dataset) for dataset in parts[0])
    files, stamp = tuple(f"image {i}" for i in range(len(labels))), fingerprint(folder, _files(folder))
    about = (name, folder, str(folder), files, labels, tests, names, (), (), stamp, source.licence, True)
    return Source(Listing(*about), read, lambda i: stamp.encode())


def _construct(name: str, arguments: dict[str, Any], folder: Path) -> Any:
    """Make the torchvision dataset from its local copy, else download it."""
    import torchvision.datasets

    source = TORCHVISION[name]
    kind, root = getattr(torchvision.datasets, source.class_name), data_folder() / source.root
    try:
        return kind(root, **arguments)
    except (RuntimeError, OSError, EOFError, ValueError):  # not there, or only in part
        _adopt_debian_copy(name, folder)
    before = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(_CONNECTION_SECONDS)  # a blocked connection hangs for minutes else
        return kind(root, **arguments, download=True)
    except Exception as error:  # URLError, RuntimeError, HTTPException, a bad archive, …
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"  # torchvision's go over several lines
        raise PudNetError(
            f"{name} is not in {folder} and could not be downloaded ({reason}). Connect to the internet once, or put "
            f"its files (torchvision's {source.class_name}) there; the environment variable PUDNET_DATA names another "
            "folder to look in."
        ) from error
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
    there = unpacked_copy(name) is not None or (folder.is_dir() and any(folder.iterdir()))
    return there or (name == "fashion-mnist" and _DEBIAN_FASHION.is_dir())
