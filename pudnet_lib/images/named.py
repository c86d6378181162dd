"""Datasets by name: the packs that ship with the kit, torchvision's, and those to be fetched by hand.

The paper uses CIFAR-10, CIFAR-100 and DTD [code]; the other names are our choice. ``scripts/build_packs.py`` makes the
packs, ``embedded/`` holds them with their notices and checksums. torchvision's come from a local copy or are
downloaded; its separate validation images join the training images (DTD's 80 + 40 a class, as in the paper [code]).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.images.cache import data_folder
from pudnet_lib.images.decode import PictureError, Pixels, to_square
from pudnet_lib.images.folder import Listing, fingerprint
from pudnet_lib.images.reading import FolderReport, Reading, Source, Split, cache_path, read_source

_FOLDER = resources.files("pudnet_lib.images") / "embedded"
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
    _ROWS: list[dict[str, Any]] = list(csv.DictReader(_file))
SOURCES = {r["name"]: SourceInfo(**r | {"classes": int(r["classes"]), "images": int(r["images"])}) for r in _ROWS}


@cache
def manifest() -> dict[str, dict[str, Any]]:
    """Read the packs' manifest: checksum, counts, licence, what was changed."""
    return dict(json.loads((_FOLDER / "manifest.json").read_text(encoding="utf-8")))


def pack_names() -> list[str]:
    """List the packs' names."""
    return sorted(manifest())


@cache
def _arrays(name: str) -> dict[str, np.ndarray]:
    content = (_FOLDER / f"{name}.npz").read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest()[name]["sha256"]:
        raise PudNetError(f"The embedded pack {name!r} is damaged (wrong checksum). Install the package anew.")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def load_pack(name: str, split: str = "train") -> ImageDataset:
    """Load the training part, the test part or ``"all"`` of a pack, at its own size and channels."""
    if name not in manifest():
        raise unknown_name("pack", name, pack_names())
    arrays = _arrays(name)
    test = arrays["test"].astype(bool)
    keep = {"train": ~test, "test": test, "all": np.ones_like(test)}[split]
    images, labels, items = (torch.from_numpy(arrays[key][keep]) for key in ("images", "labels", "items"))
    names, counts = tuple(map(str, arrays["class_names"])), np.bincount(arrays["labels"]).tolist()
    own = {"source": "own", "train": int((~test).sum()), "test": int(test.sum())}
    copies = {"within_class": 0, "across_classes": 0, "across_split": 0}
    report = FolderReport(
        name, dict(zip(names, counts, strict=True)), own, copies, 0, int(np.ptp(arrays["images"])) + 1
    )
    return ImageDataset(images, labels, names, name, items.long(), manifest()[name]["licence"], report)


def list_sources() -> list[SourceInfo]:
    """List every source that ``load_images`` knows by name; nothing is downloaded or decoded."""
    packs = []
    for name, p in manifest().items():
        size, count = f"{p['size']} {'gray' if p['channels'] == 1 else 'RGB'}", p["train"] + p["test"]
        packs.append(SourceInfo(name, "embedded", p["classes"], count, size, p["licence"], "comes with the kit"))
    return [*packs, *SOURCES.values()]


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
