"""Datasets in the layout in which their authors publish them, where it is not one of class folders.

Tiny-ImageNet (the zip of Stanford's CS231n), Animals-10 (Kaggle; Italian folder names), CUB-200-2011 (lists of numbers)
and Omniglot. The paper uses the first three [code]; their layouts are the authors', the reading is ours.
"""

from __future__ import annotations

from pathlib import Path

from pudnet_lib.errors import PudNetError
from pudnet_lib.images.folder import Listing, listing, scan_folder, walk

_ITALIAN = "cane cavallo elefante farfalla gallina gatto mucca pecora ragno scoiattolo"
_ENGLISH = "dog horse elephant butterfly chicken cat cow sheep spider squirrel"
ANIMALS = dict(zip(_ITALIAN.split(), _ENGLISH.split(), strict=True))


def scan_any(root: Path, name: str | None = None, shown: str | None = None, merge: bool = False) -> Listing:
    """List a folder in whichever layout it is: one of the published ones here, else an ordinary image folder."""
    title, inner = name or root.resolve().name, "raw-img" if (root / "raw-img").is_dir() else "."
    if (root / "wnids.txt").is_file() and (root / "val" / "val_annotations.txt").is_file():
        return _tiny_imagenet(root, title)
    if (root / "image_class_labels.txt").is_file() and (root / "images.txt").is_file():
        return _cub(root, title)
    if all((root / inner / animal).is_dir() for animal in ANIMALS):
        classes = {animal: [f"{inner}/{animal}/{p}" for p in walk(root / inner / animal).below()] for animal in ANIMALS}
        return listing(title, root, classes, None, ANIMALS)
    if (root / "images_background").is_dir():
        return _omniglot(root, title)
    return scan_folder(root, name, shown, merge)


def _lines(file: Path) -> list[list[str]]:
    """Read a list file: one record a line, fields separated by white space."""
    if not file.is_file():
        raise PudNetError(f"{file} is missing; unpack the archive anew, as it was published.")
    return [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _tiny_imagenet(root: Path, name: str) -> Listing:
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


def _cub(root: Path, name: str) -> Listing:
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


def _omniglot(root: Path, name: str) -> Listing:
    """List Omniglot: every character of every alphabet is a class; no split of its own, so a fifth is for testing."""
    parts = [part for part in walk(root).folders if part.path in ("images_background", "images_evaluation")]
    characters = [(alphabet, c) for part in parts for alphabet in part.folders for c in alphabet.folders]
    return listing(name, root, {f"{a.name}/{c.name}": c.below() for a, c in characters}, None)
