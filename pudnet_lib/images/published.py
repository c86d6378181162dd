"""Datasets in the layout in which their authors publish them, where it is not one of class folders.

Tiny-ImageNet (the zip of Stanford's CS231n), Animals-10 (Kaggle; Italian folder names), CUB-200-2011 (lists of numbers)
and Omniglot. The paper uses the first three [code]; their layouts are the authors', the reading is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pudnet_lib.errors import PudNetError
from pudnet_lib.images.folder import Listing, listing, scan_folder, walk

_ITALIAN = "cane cavallo elefante farfalla gallina gatto mucca pecora ragno scoiattolo"
_ENGLISH = "dog horse elephant butterfly chicken cat cow sheep spider squirrel"
ANIMALS = dict(zip(_ITALIAN.split(), _ENGLISH.split(), strict=True))


def scan_any(root: Path, name: str | None = None, shown: str | None = None, merge: bool = False) -> Listing:
    """List a folder in whichever layout it is: one of the published ones here, else an ordinary image folder."""
    for recognises, scan in _LAYOUTS:
        if root.is_dir() and recognises(root):
            return scan(root, name or root.resolve().name)
    return scan_folder(root, name, shown, merge)


def _lines(file: Path) -> list[list[str]]:
    """Read a list file: one record a line, fields separated by white space."""
    if not file.is_file():
        raise PudNetError(f"{file} is missing; unpack the archive anew, as it was published.")
    return [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def is_tiny_imagenet(root: Path) -> bool:
    """Tell Tiny-ImageNet's layout by its list of classes and the list of its validation images."""
    return (root / "wnids.txt").is_file() and (root / "val" / "val_annotations.txt").is_file()


def scan_tiny_imagenet(root: Path, name: str) -> Listing:
    """List Tiny-ImageNet: ``train/<wnid>/images/``, the annotated ``val/images/`` for testing; ``test/`` has none."""
    wnids = [fields[0] for fields in _lines(root / "wnids.txt")]
    words = {}
    if (root / "words.txt").is_file():
        rows = (line.split("\t", 1) for line in (root / "words.txt").read_text(encoding="utf-8").splitlines())
        words = {row[0]: row[1].split(",")[0].strip() for row in rows if len(row) == 2}
    training = {w: [f"train/{w}/images/{p}" for p in walk(root / "train" / w / "images").below()] for w in wnids}
    tests: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    for file, wnid, *_ in _lines(root / "val" / "val_annotations.txt"):
        if wnid not in tests:
            raise PudNetError(
                f"{root}/val/val_annotations.txt names the class {wnid!r}, which wnids.txt does not list."
            )
        tests[wnid].append(f"val/images/{file}")
    return listing(name, root, training, tests, words)


def is_animals(root: Path) -> bool:
    """Tell Animals-10 by its ten Italian folder names."""
    inner = root / "raw-img" if (root / "raw-img").is_dir() else root
    return all((inner / name).is_dir() for name in ANIMALS)


def scan_animals(root: Path, name: str) -> Listing:
    """List Animals-10 under English names; it has no split of its own, so a fifth of every class is for testing."""
    inner = "raw-img/" if (root / "raw-img").is_dir() else ""
    classes = {n: [f"{inner}{n}/{p}" for p in walk(root / inner / n).below()] for n in ANIMALS}
    return listing(name, root, classes, None, ANIMALS)


def is_cub(root: Path) -> bool:
    """Tell CUB-200-2011's layout by its lists."""
    return (root / "image_class_labels.txt").is_file() and (root / "images.txt").is_file()


def scan_cub(root: Path, name: str) -> Listing:
    """List CUB-200-2011: images.txt, image_class_labels.txt, classes.txt and train_test_split.txt, joined by number."""
    folder_of = {number: folder for number, folder in _lines(root / "classes.txt")}
    class_of = {image: folder_of[number] for image, number in _lines(root / "image_class_labels.txt")}
    is_training = {image: flag == "1" for image, flag in _lines(root / "train_test_split.txt")}
    training: dict[str, list[str]] = {folder: [] for folder in folder_of.values()}
    tests: dict[str, list[str]] = {folder: [] for folder in folder_of.values()}
    for image, path in _lines(root / "images.txt"):
        if image not in class_of or image not in is_training:
            raise PudNetError(f"{root}: image {image} ({path}) is in images.txt but not in the other lists.")
        (training if is_training[image] else tests)[class_of[image]].append(f"images/{path}")
    display = {folder: folder.split(".", 1)[-1].replace("_", " ") for folder in folder_of.values()}
    return listing(name, root, training, tests, display)


def is_omniglot(root: Path) -> bool:
    """Tell Omniglot's layout: alphabets of characters, in one or both of its two parts."""
    return (root / "images_background").is_dir()


def scan_omniglot(root: Path, name: str) -> Listing:
    """List Omniglot: every character of every alphabet is a class; no split of its own, so a fifth is for testing."""
    parts = [part for part in walk(root).folders if part.path in ("images_background", "images_evaluation")]
    characters = [(alphabet, c) for part in parts for alphabet in part.folders for c in alphabet.folders]
    return listing(name, root, {f"{a.name}/{c.name}": c.below() for a, c in characters}, None)


_LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[Path, str], Listing]], ...] = (
    (is_tiny_imagenet, scan_tiny_imagenet),
    (is_cub, scan_cub),
    (is_animals, scan_animals),
    (is_omniglot, scan_omniglot),
)
