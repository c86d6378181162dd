"""Image folders: which files there are, their classes, and which of them are for testing; told by content.

Our choice. Class folders, as torchvision's ImageFolder reads them, or the parts of a split: first-level folders that
hold mostly the same sub-folders; words only tell which is which. Validation images beside test images are for training.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pudnet_lib.errors import PudNetError
from pudnet_lib.images.decode import DECODE_VERSION, is_clutter, why_no_picture

Classes = dict[str, list[str]]  # class name → files, relative to the root, '/' between
#: Training files, test files (None where the folder has no split of its own), and what is to be said.
Understood = tuple[Classes, Classes | None, list[str]]
_ROLES = {"train": "train", "test": "test|eval|holdout|heldout", "validation": "valid|(val|dev|development)$"}
_NO_CLASS = ("images", "imgs", "img", "jpg", "pictures", "photos", "unknown", "all")  # val/images/ has no classes
_NO_TEST = ("extra", "unlabel", "unlabeled", "unlabelled", "augmented", "aug", "mask", "masks", "labels", "annotations")


@dataclass(frozen=True)
class Listing:
    """The files of a source; nothing is decoded yet."""

    name: str
    root: Path
    shown: str  # what messages call the root
    files: tuple[str, ...]  # N paths below it
    labels: npt.NDArray[np.int64]  # (N,), 0..K-1
    tests: npt.NDArray[np.bool_] | None  # (N,); None where it has no split of its own
    class_names: tuple[str, ...]  # K, distinct
    skipped: tuple[tuple[str, str], ...]  # files passed over, with the reason
    warnings: tuple[str, ...]
    fingerprint: str  # changes with any file's path, size or time
    licence: str = "unknown"
    published: bool = False  # the split is the authors': it stays, copies and all, and little is said of it


@dataclass
class Node:
    """A folder: the pictures in it by path, its subfolders, and what else lies in it, with the reason."""

    path: str
    name: str  # in one Unicode form and without bytes that are no text
    pictures: list[str] = field(default_factory=list)
    folders: list[Node] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)

    def below(self) -> list[str]:
        """All pictures at any depth, sorted by path."""
        return sorted([*self.pictures, *(p for f in self.folders for p in f.below())])

    def kinds(self) -> list[Node]:
        """The subfolders that hold pictures."""
        return [f for f in self.folders if f.pictures or f.kinds()]

    def passed_over(self) -> list[tuple[str, str]]:
        """What is no picture, at any depth."""
        return [*self.others, *(o for f in self.folders for o in f.passed_over())]


def readable(name: str) -> str:
    """A file's name as text that prints everywhere and compares: NFC, bytes of an old encoding read as Windows'."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("cp1252", "replace")
    return unicodedata.normalize("NFC", name)


def walk(root: Path | str) -> Node:
    """Read a folder's tree; links are followed, but never up."""

    def visit(here: str, path: str, trail: tuple[str, ...]) -> Node:
        node = Node(path, readable(path.rpartition("/")[2]))
        for entry in sorted(os.scandir(here), key=lambda e: e.name):
            inside = f"{path}/{entry.name}" if path else entry.name
            if is_clutter(entry.name):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path) if entry.is_symlink() else ""
                if real and any(f"{t}/".startswith(f"{real}/") for t in trail):
                    node.others.append((inside, "a link that leads back up"))
                else:
                    node.folders.append(visit(entry.path, inside, (*trail, real or f"{trail[-1]}/{entry.name}")))
            elif not entry.is_file():
                node.others.append((inside, "a broken link" if entry.is_symlink() else "no file"))
            elif why := why_no_picture(entry.name, partial(open, entry.path, "rb")):
                node.others.append((inside, why))
            else:
                node.pictures.append(inside)
        return node

    try:
        return visit(str(root), "", (os.path.realpath(root),))
    except OSError as error:
        raise PudNetError(f"{error.filename} can't be read ({error.strerror}).") from error


def refuse_inside(out: Path | str, folder: Path | str) -> None:
    """Refuse to write results into the folder of images: they would be a class the next time."""
    images, results = (Path(place).expanduser() for place in (folder, out))
    if images.is_dir() and results.resolve().is_relative_to(images.resolve()):
        raise PudNetError(f"{out} lies in {folder} and would be taken for images the next time. Name another place.")


def scan_folder(root: Path | str, name: str | None = None, shown: str | None = None, merge: bool = False) -> Listing:
    """List a folder of class folders, or of the parts of a split with class folders."""
    root = Path(root)
    name, shown = name or root.resolve().name, shown or readable(str(root))
    whole = walk(root)
    top, skipped = _unwrapped(whole), [(readable(f), why) for f, why in whole.passed_over()]
    if top is not whole:  # what wraps a folder is no part of its files' names
        root, shown, top = root / top.path, f"{shown}/{readable(top.path)}", walk(root / top.path)
    training, tests, said = _understood(top, shown, merge)
    found = listing(name, root, training, tests, shown)
    return replace(found, skipped=tuple(skipped), warnings=(*said, *found.warnings))


def _unwrapped(node: Node) -> Node:
    """Step through folders that hold one folder of folders and nothing else to learn from."""
    while not node.pictures and len(node.kinds()) == 1 and node.kinds()[0].kinds():
        node = node.kinds()[0]
    return node


def _role(name: str) -> str:
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    return next((role for word in words for role, start in _ROLES.items() if re.match(start, word)), "")


def _understood(top: Node, where: str, merge: bool) -> Understood:
    parts = {node.name: _unwrapped(node) for node in top.kinds()}
    names = {part: {f.name.casefold() for f in node.kinds()} for part, node in parts.items()}
    structured = [part for part in parts if names[part]]

    def alike(a: str, b: str) -> bool:
        common, least = len(names[a] & names[b]), 1 if _role(a) and _role(b) else 2
        return common >= max(least, min(len(names[a]), len(names[b])) / 2)

    flat_names = {part.casefold() for part in parts if not names[part]}
    if inside := [part for part in structured if _role(part) and names[part] & flat_names]:
        raise PudNetError(f"{where}: {some(inside)} holds folders named as the classes beside it; make train of those.")
    train = [part for part in structured if _role(part) == "train"]
    structured = [part for part in structured if not (len(train) == 1 and names[part] <= {*_NO_CLASS, part.casefold()})]
    others = [part for part in structured if part != train[0] and alike(part, train[0])] if len(train) == 1 else []
    if others:
        return _own_split(parts, train[0], others, where)
    same = [p for p in structured if any(alike(p, q) for q in structured if q != p)]
    apart = [p for p in structured if _role(p)]
    found = same or (apart if len(apart) > 1 and len(apart) == len(parts) else [])
    if found and merge:
        merged: Classes = {}
        for part in found:
            _add(merged, _classes(parts[part], f"{where}/{part}"), merged)
        return merged, None, [f"{some(found)} are taken together, as asked for."]
    if found:
        kind = "mostly the same sub-folders" if same else "different sub-folders"
        held = some([f.name for f in parts[found[0]].kinds()])
        raise PudNetError(
            f"{where}: {some(found)} hold {kind} ({held}), so they are parts of one set, not classes, and none is "
            "clearly for learning. Give one by its path, name them train and test, or pass split='all' to take all."
        )
    flat = [part for part in parts if part not in train]
    if len(train) == 1 and flat and all(_role(part) for part in flat):
        text = f"{some(flat)} has no class folders: its pictures are unlabelled and not used."
        return _classes(parts[train[0]], f"{where}/{train[0]}"), None, [text]
    return _classes(top, where), None, _class_warnings(top)


def _own_split(parts: Mapping[str, Node], train: str, others: Sequence[str], where: str) -> Understood:
    """Training and test files of a folder that has a part to learn from and parts that look like it."""
    tests = [p for o in ("test", "validation") for p in others if _role(p) == o]
    tests = [p for p in tests if _role(p) == _role(tests[0])]
    words = re.findall(r"[a-z]+", others[0].lower())
    if not tests and len(others) == 1 and _role(others[0]) != "train" and not set(words) & set(_NO_TEST):
        tests = list(others)
    joined = [p for p in others if _role(p) == "validation" and p not in tests]
    training, testing = _classes(parts[train], f"{where}/{train}"), Classes()
    for part in (*joined, *tests):
        _add(testing if part in tests else training, _classes(parts[part], f"{where}/{part}", empty=True), training)
    said = [f"{some([train, *joined])}: to learn from; {some(tests)}: to measure on."] if joined or tests[1:] else []
    for part, node in parts.items():
        if part in (train, *joined, *tests):
            said += _class_warnings(node)
        else:
            what = "neither learned from nor tested on" if node.kinds() else "without class folders, unlabelled"
            said.append(f"{part} ({len(node.below())} pictures) is not used: {what}.")
    return training, testing if tests else None, said


def _add(classes: Classes, more: Classes, like: Classes) -> None:
    """Add files to classes; a name that differs in case alone from one of ``like`` is that one."""
    known = {name.casefold(): name for name in like} | {name: name for name in like}
    for name, files in more.items():
        classes.setdefault(known.get(name, known.get(name.casefold(), name)), []).extend(files)


def _classes(node: Node, where: str, empty: bool = False) -> Classes:
    """The pictures of every class folder, at any depth; ``empty`` classes are allowed in a test part."""
    found: Classes = {}
    for folder in node.folders:
        files, others = folder.below(), folder.passed_over()
        unread = [f": {readable(file)} is {why}" for file, why in others if why != "no picture"]
        if files:
            found.setdefault(folder.name, []).extend(files)
        elif not empty and (unread or not others):  # else it is a folder of notes
            what = f"has no picture that can be read{unread[0]}" if unread else "is empty"
            raise PudNetError(f"{where}: the class folder {folder.name!r} {what}. Put images in it or remove it.")
    if found:
        return found
    loose = len(node.pictures)
    what = f"holds {loose} pictures but no subfolders" if loose else "is empty"
    hint = f"such as {where}/cat.{_begin_with(node.pictures)}"
    raise PudNetError(f"{where} {what}; expected one subfolder of images for each class, {hint}")


def _begin_with(files: Sequence[str]) -> str:
    """What to make of files whose names tell their classes."""
    words = list(dict.fromkeys(re.split(r"[\d_.\-\s(]", readable(p).rpartition("/")[2])[0] for p in files))
    return f" Their names begin with {some(words)}: make folders of those." if 2 <= len(words) < len(files) else ""


def _class_warnings(node: Node) -> list[str]:
    said = []
    if node.pictures:
        found = f"{len(node.pictures)} pictures beside the class folders"
        said.append(f"{found} are not used, such as {readable(node.pictures[0]).rpartition('/')[2]}.")
    for folder in node.folders:
        inner = folder.kinds()
        if inner and (folder.pictures or len(inner) > 1):
            held = f"{len(inner)} sub-folders with pictures ({some([f.name for f in inner])})"
            meant = f"If they are the classes, give {readable(folder.path)}."
            said.append(f"the class {folder.name!r} holds {held}, which are taken as one class. {meant}")
        elif not inner and not folder.pictures and folder.passed_over():
            said.append(f"{folder.name} holds no pictures and is passed over.")
    roles = [f.name for f in node.kinds() if _role(f.name) or f.name.lower() in _NO_TEST]
    if roles and len(roles) >= len(node.kinds()) - 1:
        said.append(f"{some(roles)} without class folders of their own are read as classes. Is that meant?")
    return said


def some(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    shown = [n if len(n) <= 40 else f"{n[:39]}…" for n in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


def listing(
    name: str, root: Path, training: Classes, tests: Classes | None, shown: str = "", title: Callable[[str], str] = str
) -> Listing:
    """Put training and test files together, by class; without ``tests`` a fifth of every class is drawn later."""
    shown, names = shown or readable(str(root)), sorted(training)
    if len(training) < 2:
        hint = _begin_with([f for c in names for f in training[c]])
        raise PudNetError(f"{shown} holds {len(names)} class ({some(names)}); expected at least 2 class folders.{hint}")
    if unlearnable := sorted(c for c in {*training, *(tests or {})} if not training.get(c)):
        found = f"the class {unlearnable[0]!r} has no training images ({len(unlearnable)} classes have none)"
        raise PudNetError(f"{shown}: {found}; training and test images need the same class folders.")
    untested = [c for c in names if tests is not None and not tests.get(c)]
    if len(untested) == len(training):
        raise PudNetError(f"{shown}: no class has a test image; expected the same class folders as for training.")
    said = [f"{len(untested)} of {len(names)} classes have no test images, such as {c!r}." for c in untested[:1]]
    plain = [" ".join(c.split()).casefold() for c in names]
    twins = [c for c, p in zip(names, plain, strict=True) if plain.count(p) > 1]
    said += [f"{some(twins)} differ in case or spaces alone and are classes of their own."] if twins else []
    rows = [(f, k, i) for i, p in enumerate((training, tests or {})) for k, c in enumerate(names) for f in p.get(c, [])]
    files, labels = tuple(f for f, _, _ in rows), np.array([k for _, k, _ in rows], dtype=np.int64)
    testing = None if tests is None else np.array([i == 1 for _, _, i in rows])
    titles = [title(c) for c in names]
    titles = [f"{t} ({c})" if titles.count(t) > 1 else t for t, c in zip(titles, names, strict=True)]
    mark = fingerprint(root, files, titles, labels.tobytes(), None if testing is None else testing.tobytes())
    return Listing(name, root, shown, files, labels, testing, tuple(titles), (), tuple(said), mark)


def fingerprint(root: Path, files: Iterable[str], *facts: object) -> str:
    """Hash files' paths below the root, sizes and modification times; their contents are not read."""
    known = repr((DECODE_VERSION, *facts)).encode("utf-8", "surrogateescape")
    total = hashlib.blake2b(known, digest_size=16)
    for file in files:
        total.update(stamp(root, file))
    return total.hexdigest()


def stamp(root: Path, file: str) -> bytes:
    """What tells that a file changed."""
    try:
        stat = os.stat(f"{root}/{file}")
    except FileNotFoundError as error:
        raise PudNetError(f"{root}/{file} is missing. Put it back, or unpack the archive anew.") from error
    return f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
