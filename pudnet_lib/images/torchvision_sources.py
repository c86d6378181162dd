"""Datasets by name: torchvision's, from a local copy or downloaded with progress, and those to be fetched by hand.

The paper uses CIFAR-10, CIFAR-100 and DTD [code]; the other names are our choice. Where torchvision has separate
validation images they join the training images (DTD's 80 + 40 images a class are the paper's counts [code]).
"""

from __future__ import annotations

import csv
import gzip
import os
import shutil
import socket
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.cache import data_folder
from pudnet_lib.images.decode import PictureError, Pixels, to_square
from pudnet_lib.images.folder import Listing, fingerprint
from pudnet_lib.images.reading import Reading, Source, Split, cache_path, read_source

_CONNECTION_SECONDS = 30.0
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist


class SourceInfo(NamedTuple):
    """What is known of a dataset by name, as ``pudnet datasets`` shows it: a pack, or a row of sources.csv."""

    name: str
    kind: str  # "embedded", "torchvision" or "published": to be fetched by hand
    classes: int
    images: int  # training and test
    size: str
    licence: str
    how_to_get: str
    folders: str = ""  # where its files may be, below the data folder
    class_name: str = ""  # torchvision's
    parts: str = ""  # its splits for training and for testing; empty where the files are listed instead
    labels: str = ""  # its attribute that holds them
    root: str = ""  # its constructor's, below the data folder

    @property
    def unpacked(self) -> Path | None:
        """Its files as images: unpacked in a folder of its name that has ``train/``, or as published."""
        if (data_folder() / self.name / "train").is_dir():
            return data_folder() / self.name
        places = [] if self.parts else [data_folder() / folder for folder in self.folders.split(";")]
        return next((p for p in places if p.is_dir() and (self.kind == "published" or any(p.iterdir()))), None)

    @property
    def place(self) -> str:
        """Where its files are, or would be."""
        return str(self.unpacked or data_folder() / self.folders.split(";")[0]) if self.folders else "in the package"

    @property
    def available(self) -> bool:
        """Whether its files are there."""
        here = Path(self.place)
        there = here.is_dir() and (self.kind == "published" or any(here.iterdir()))
        return not self.folders or there or (self.name == "fashion-mnist" and _DEBIAN_FASHION.is_dir())


with Path(__file__).with_name("sources.csv").open(encoding="utf-8", newline="") as _file:
    _ROWS = [SourceInfo(*row[:2], int(row[2]), int(row[3]), *row[4:]) for row in list(csv.reader(_file))[1:]]
SOURCES = {row.name: row for row in _ROWS}


def download_images(source: SourceInfo) -> Path:
    """Have torchvision unpack a dataset whose files are then listed."""
    for arguments in ({"background": False}, {"background": True}) if source.name == "omniglot" else ({},):
        _construct(source, arguments)
    return Path(source.place)


def load_torchvision(source: SourceInfo, split: Split, how: Reading) -> ImageDataset:
    """Load one of torchvision's datasets through its own class."""
    folder = Path(source.place)
    path = cache_path(source.name, folder, how)
    return read_source(path, _stamp(folder), lambda: _open(source, folder, how), split, how)


def _stamp(folder: Path) -> str:
    return fingerprint(folder, sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()))


def _open(source: SourceInfo, folder: Path, how: Reading) -> Source:
    """Open all parts of a dataset, downloading what is missing."""
    parts: list[list[dict[str, Any]]] = [[{"train": True}], [{"train": False}]]
    if source.parts != "flag":
        parts = [[{"split": name} for name in part.split("+")] for part in source.parts.split("/")]
    train, test = ([_construct(source, arguments) for arguments in part] for part in parts)
    records = [(dataset, i) for dataset in (*train, *test) for i in range(len(dataset))]

    def read(i: int) -> Pixels:
        dataset, record = records[i]
        try:
            return to_square(dataset[record][0], how.size, how.channels)
        except Exception as error:  # whatever a reader makes of a damaged file
            raise PictureError(f"{source.name}: image {record}", f"damaged ({error})", "Download it anew.") from error

    labels = np.concatenate([np.asarray(getattr(d, source.labels), dtype=np.int64) for d in (*train, *test)])
    tests = np.arange(len(labels)) >= sum(map(len, train))
    names = tuple(str(c) for c in getattr(train[0], "classes", range(source.classes)))
    files = tuple(f"image {i}" for i in range(len(labels)))
    stamp = _stamp(folder)
    about = (source.name, folder, str(folder), files, labels, tests, names, (), (), stamp, source.licence, True)
    return Source(Listing(*about), read, lambda i: stamp.encode())


def _construct(source: SourceInfo, arguments: dict[str, Any]) -> Any:
    """Make the torchvision dataset from its local copy, else download it."""
    import torchvision.datasets

    kind, root = getattr(torchvision.datasets, source.class_name), data_folder() / source.root
    try:
        return kind(root, **arguments)
    except (RuntimeError, OSError, EOFError, ValueError):  # not there, or only in part
        _adopt_debian_copy(source)
    before = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(_CONNECTION_SECONDS)  # a blocked connection hangs for minutes else
        return kind(root, **arguments, download=True)
    except Exception as error:  # URLError, RuntimeError, HTTPException, a bad archive, …
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"  # torchvision's go over several lines
        raise PudNetError(
            f"{source.name} is not in {source.place} and could not be downloaded ({reason}). Connect to the internet "
            f"once, or put its files (torchvision's {source.class_name}) there; the environment variable PUDNET_DATA "
            "names another folder to look in."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def _adopt_debian_copy(source: SourceInfo) -> None:
    """Unpack Fashion-MNIST from Debian's package, where it is installed, instead of downloading it."""
    for packed in _DEBIAN_FASHION.glob("*-ubyte.gz") if source.name == "fashion-mnist" else ():
        target = Path(source.place) / packed.stem
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        with gzip.open(packed) as file, partial.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        os.replace(partial, target)
