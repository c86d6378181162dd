"""Datasets by name: the packs that ship with the kit, torchvision's, and those to be fetched by hand, as published.

The paper uses CIFAR-10, CIFAR-100, DTD, Tiny-ImageNet, Animals-10 and CUB [code]; the other names are our choice.
``scripts/build_packs.py`` makes the packs, ``embedded/`` holds them with notices and checksums. torchvision's come from
a local copy or are downloaded; its validation images join the training images (DTD's 80 + 40 a class [code]).
"""

import csv
import gzip
import hashlib
import io
import json
import socket
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import write_atomically
from pudnet_lib.images.cache import data_folder
from pudnet_lib.images.decode import PictureError, Pixels, is_clutter, to_square
from pudnet_lib.images.folder import Listing, fingerprint, listing, scan_folder, walk
from pudnet_lib.images.reading import FolderReport, Reading, Source, Split, cache_path, read_source

_FOLDER = resources.files("pudnet_lib.images") / "embedded"
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
_ITALIAN = "cane cavallo elefante farfalla gallina gatto mucca pecora ragno scoiattolo"
_ENGLISH = "dog horse elephant butterfly chicken cat cow sheep spider squirrel"
ANIMALS = dict(zip(_ITALIAN.split(), _ENGLISH.split(), strict=True))


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
    _ROWS = [SourceInfo(r[0], r[1], int(r[2]), int(r[3]), *r[4:]) for r in list(csv.reader(_file))[1:]]
SOURCES = {row.name: row for row in _ROWS}


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
    arrays = _arrays(name)
    test = arrays["test"].astype(bool)
    keep = {"train": ~test, "test": test, "all": np.ones_like(test)}[split]
    images, labels, items = (torch.from_numpy(arrays[key][keep]) for key in ("images", "labels", "items"))
    names = tuple(map(str, arrays["class_names"]))
    classes = dict(zip(names, np.bincount(arrays["labels"]).tolist(), strict=True))
    own = {"source": "own", "train": int((~test).sum()), "test": int(test.sum())}
    report = FolderReport(name, classes, own, blank=0, grey_levels=int(np.ptp(arrays["images"])) + 1)
    return ImageDataset(images, labels, names, name, items.long(), manifest()[name]["licence"], report)


def list_sources() -> list[SourceInfo]:
    """List every source that ``load_images`` knows by name; nothing is downloaded or decoded."""
    return list(SOURCES.values())


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
        for packed in _DEBIAN_FASHION.glob("*-ubyte.gz") if source.name == "fashion-mnist" else ():
            write_atomically(Path(source.place) / packed.stem, gzip.decompress(packed.read_bytes()))
    before = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        socket.setdefaulttimeout(30)  # a blocked connection hangs for minutes else
        return kind(root, **arguments, download=True)
    except Exception as error:  # URLError, RuntimeError, HTTPException, a bad archive, …
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"  # torchvision's go over several lines
        why = f"{source.name} is not in {source.place} and could not be downloaded ({reason})"
        files = f"the files of torchvision's {source.class_name} there; PUDNET_DATA names another place"
        raise PudNetError(f"{why}. Connect to the internet once, or put {files}.") from error
    finally:
        socket.setdefaulttimeout(before)


def scan_any(root: Path, name: str | None = None, shown: str | None = None, merge: bool = False) -> Listing:
    """List a folder in whichever layout it is: one of the published ones here, else an ordinary image folder."""
    inner = [p for p in root.iterdir() if p.is_dir() and not is_clutter(p.name)] if root.is_dir() else []
    places = (root, *inner) if len(inner) == 1 else (root,)  # a folder around it is stepped into
    found = (_published(place, name or root.resolve().name) for place in places)
    return next(filter(None, found), None) or scan_folder(root, name, shown, merge)


def _published(root: Path, title: str) -> Listing | None:
    inner = "raw-img" if (root / "raw-img").is_dir() else "."
    if (root / "wnids.txt").is_file() and (root / "val" / "val_annotations.txt").is_file():
        return _tiny_imagenet(root, title)
    if (root / "image_class_labels.txt").is_file() and (root / "images.txt").is_file():
        return _cub(root, title)
    if all((root / inner / animal).is_dir() for animal in ANIMALS):
        classes = {animal: [f"{inner}/{animal}/{p}" for p in walk(root / inner / animal).below()] for animal in ANIMALS}
        return listing(title, root, classes, None, title=lambda c: ANIMALS[c])
    if (root / "images_background").is_dir():  # Omniglot: every character of every alphabet is a class
        parts = [part for part in walk(root).folders if part.path in ("images_background", "images_evaluation")]
        alphabets = [alphabet for part in parts for alphabet in part.folders]
        return listing(title, root, {f"{a.name}/{c.name}": c.below() for a in alphabets for c in a.folders}, None)
    return None


def _lines(file: Path) -> list[list[str]]:
    """Read a list file: one record a line, fields separated by white space."""
    if not file.is_file():
        raise PudNetError(f"{file} is missing; unpack the archive anew, as it was published.")
    return [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _tiny_imagenet(root: Path, name: str) -> Listing:
    """List Tiny-ImageNet: ``train/<wnid>/images/``, the annotated ``val/images/`` for testing; ``test/`` has none."""
    wnids, words = [fields[0] for fields in _lines(root / "wnids.txt")], {}
    if (root / "words.txt").is_file():
        words = {wnid: " ".join(rest).split(",")[0] for wnid, *rest in _lines(root / "words.txt") if rest}
    training = {w: [f"train/{w}/images/{p}" for p in walk(root / "train" / w / "images").below()] for w in wnids}
    tests = {wnid: list[str]() for wnid in wnids}
    for file, wnid, *_ in _lines(root / "val" / "val_annotations.txt"):
        if wnid not in tests:
            raise PudNetError(f"{root}/val/val_annotations.txt: the class {wnid!r} is not listed in wnids.txt.")
        tests[wnid].append(f"val/images/{file}")
    return listing(name, root, training, tests, title=lambda c: words.get(c, c))


def _cub(root: Path, name: str) -> Listing:
    """List CUB-200-2011: images.txt, image_class_labels.txt, classes.txt and train_test_split.txt, joined by number."""
    folder_of = {number: folder for number, folder in _lines(root / "classes.txt")}
    class_of = {image: folder_of[number] for image, number in _lines(root / "image_class_labels.txt")}
    is_training = {image: flag == "1" for image, flag in _lines(root / "train_test_split.txt")}
    training, tests = ({folder: list[str]() for folder in folder_of.values()} for _ in range(2))
    for image, path in _lines(root / "images.txt"):
        if image not in class_of or image not in is_training:
            raise PudNetError(f"{root}: image {image} ({path}) is in images.txt but not in the other lists.")
        (training if is_training[image] else tests)[class_of[image]].append(f"images/{path}")
    return listing(name, root, training, tests, title=lambda folder: folder.split(".", 1)[-1].replace("_", " "))
