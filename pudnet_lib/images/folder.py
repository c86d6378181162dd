"""Image folders: which files there are, their classes, and which of them are for testing.

Our choice. Two layouts, as torchvision's ImageFolder reads them: class folders, or ``train/`` and ``test/`` (or
``val/``) of class folders. Where both ``test/`` and ``val/`` hold labelled images, ``val/`` joins the training images.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pudnet_lib.errors import PudNetError
from pudnet_lib.images.decode import DECODE_VERSION

TEST_SHARE = 0.2
_TRAIN = ("train", "training")
_TEST = ("test", "testing")
_VALIDATION = ("val", "valid", "validation")
_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}  # left behind by file managers; hidden files are passed over too


@dataclass(frozen=True)
class Listing:
    """The files of a source, training images first; nothing is decoded yet.

    Attributes:
        name: The source's name.
        files: The N paths; text, because a hundred thousand Path objects cost a second.
        labels: (N,) int64 in 0..K-1.
        train_count: The first so many files are for training, the rest for testing.
        class_names: The K names.
        fingerprint: Changes with any file's path, size or modification time.
    """

    name: str
    files: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    train_count: int
    class_names: tuple[str, ...]
    fingerprint: str


def scan_folder(root: Path, name: str | None = None) -> Listing:
    """List an image folder.

    Args:
        root: A folder of class folders, or of ``train/`` and ``test/`` (or ``val/``) with class folders.
        name: The source's name; by default the folder's.

    Returns:
        Its files. Without a split of its own, a fifth of every class is for testing (see ``split_off_tests``).

    Raises:
        PudNetError: If it is no folder, is empty, holds fewer than two classes or an empty class.
    """
    name = name or root.resolve().name
    if not root.is_dir():
        raise PudNetError(f"{root} is not a folder; expected a folder with one subfolder of images for each class.")
    parts = {folder.name.lower(): folder for folder in subfolders(root)}
    train = next((parts[p] for p in _TRAIN if p in parts), None)
    tests = [parts[p] for p in (*_TEST, *_VALIDATION) if p in parts]
    if train is None or not (tests or subfolders(train)):  # a flat train/ without test/ is a class beside others
        return listing_without_split(name, root, files_by_class(root))
    labelled = [folder for folder in tests if subfolders(folder)]
    if not tests:  # a lone train folder, or a class that happens to be called that
        return listing_without_split(name, root, files_by_class(train if len(parts) == 1 else root))
    if not labelled:
        raise PudNetError(
            f"{tests[0]} has no class folders, so its images are unlabelled; expected the same class folders as in "
            f"{train}. Give {train} itself to have a fifth of it set aside for testing."
        )
    training = files_by_class(train)
    for extra in labelled[1:]:
        for class_name, files in files_by_class(extra).items():
            training.setdefault(class_name, []).extend(files)
    return listing(name, root, training, files_by_class(labelled[0]))


def subfolders(root: Path) -> list[Path]:
    """List a folder's visible subfolders by name."""
    found = (Path(e.path) for e in os.scandir(root) if e.is_dir() and not _is_clutter(e.name))
    return sorted(found)


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def files_by_class(root: Path) -> dict[str, list[str]]:
    """List the files of every class folder, at any depth, in the order of their names.

    Args:
        root: A folder of class folders.

    Returns:
        Class name to files, both sorted.

    Raises:
        PudNetError: If there are no class folders, or one of them is empty.
    """
    folders = subfolders(root)
    if not folders:
        loose = sum(e.is_file() and not _is_clutter(e.name) for e in os.scandir(root))
        found = f"holds {loose} files but no subfolders" if loose else "is empty"
        raise PudNetError(f"{root} {found}; expected one subfolder of images for each class, such as {root}/cat.")
    classes = {folder.name: files_below(folder) for folder in folders}
    empty = [class_name for class_name, files in classes.items() if not files]
    if empty:
        raise PudNetError(
            f"{root}: the class folder {empty[0]!r} is empty ({len(empty)} of {len(classes)} are). "
            "Put images in it or remove it."
        )
    return classes


def files_below(folder: Path) -> list[str]:
    """List all visible files below a folder, links followed, sorted by path."""
    found: list[str] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where) if folders else where
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [f for f in folders if not _is_clutter(f)]
        found.extend(f"{where}{os.sep}{n}" for n in names if not _is_clutter(n))
    return sorted(found)


def listing_without_split(name: str, root: Path, classes: Mapping[str, list[str]]) -> Listing:
    """Set a fifth of every class aside for testing, then list."""
    training, tests = split_off_tests(root, classes)
    return listing(name, root, training, tests)


def split_off_tests(root: Path, classes: Mapping[str, list[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Split every class 80/20, the same way on every machine.

    The draw orders a class's files by a hash of their relative path, so it neither depends on a generator nor follows
    the order in which the pictures were taken.

    Args:
        root: Paths are hashed relative to it.
        classes: Class name to files.

    Returns:
        Training files and test files, by class.

    Raises:
        PudNetError: If a class has a single image.
    """
    training, tests = {}, {}
    for class_name, files in classes.items():
        if len(files) < 2:
            raise PudNetError(
                f"{root}: the class {class_name!r} has a single image; expected at least 2, one to learn from and one "
                "to test on. Add images or remove the class."
            )
        keys = {f: hashlib.blake2b(_relative(f, root)).digest() for f in files}
        drawn = set(sorted(files, key=keys.__getitem__)[: max(1, round(TEST_SHARE * len(files)))])
        training[class_name] = [f for f in files if f not in drawn]
        tests[class_name] = [f for f in files if f in drawn]
    return training, tests


def _relative(file: str, root: Path) -> bytes:
    """Write a path below ``root`` the same way on every system."""
    return os.path.relpath(file, root).replace(os.sep, "/").encode("utf-8", "surrogateescape")


def listing(
    name: str,
    root: Path,
    training: Mapping[str, list[str]],
    tests: Mapping[str, list[str]],
    display: Mapping[str, str] | None = None,
) -> Listing:
    """Put training and test files together.

    Args:
        name: The source's name.
        root: Its folder.
        training: Class name to training files.
        tests: Class name to test files; the same classes.
        display: Class name to the name shown, where they differ.

    Returns:
        The listing, classes sorted by their (folder) name.

    Raises:
        PudNetError: If there are fewer than two classes, or a class lacks training images. A class that only lacks test
            images is warned of.
    """
    if len(training) < 2:
        raise PudNetError(
            f"{root} holds {len(training)} class ({', '.join(training)}); expected at least 2 class folders."
        )
    unlearnable = sorted(c for c in {*training, *tests} if not training.get(c))
    if unlearnable:
        raise PudNetError(
            f"{root}: the class {unlearnable[0]!r} has no training images ({len(unlearnable)} classes have none); "
            "training and test images need the same class folders."
        )
    untested = sorted(c for c in training if not tests.get(c))
    if len(untested) == len(training):
        raise PudNetError(f"{root}: no class has a test image; expected the same class folders as for training.")
    if untested:
        text = f"{root}: {len(untested)} of {len(training)} classes have no test images, such as {untested[0]!r}."
        warnings.warn(text, stacklevel=2)
    names = sorted(training)
    files = [f for part in (training, tests) for c in names for f in part.get(c, [])]
    labels = [k for part in (training, tests) for k, c in enumerate(names) for _ in part.get(c, [])]
    return Listing(
        name=name,
        files=tuple(files),
        labels=np.array(labels, dtype=np.int64),
        train_count=sum(len(training[c]) for c in names),
        class_names=tuple((display or {}).get(c, c) for c in names),
        fingerprint=fingerprint(files, names, labels, sum(len(training[c]) for c in names), display),
    )


def fingerprint(files: Iterable[str], *facts: object) -> str:
    """Hash files' paths, sizes and modification times; their contents are not read.

    Args:
        files: The files.
        facts: What else the decoded dataset depends on.

    Returns:
        A hexadecimal string.

    Raises:
        PudNetError: If a file is missing that a dataset's list names.
    """
    known = repr((DECODE_VERSION, *facts)).encode("utf-8", "surrogateescape")
    total = hashlib.blake2b(known, digest_size=16)
    for file in files:
        try:
            stat = os.stat(file)
        except FileNotFoundError as error:
            raise PudNetError(f"{file} is missing. Put it back, or unpack the archive anew.") from error
        total.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
