"""A listing of files, or an indexed source, to an ImageDataset: decoded once, memory-mapped ever after, with a report.

Our choice. Pictures whose decoded pixels are equal are one *item* and stay on one side of every split. A split is drawn
from what decodes. What was understood, passed over and noticed is a ``FolderReport`` that travels with the images.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.cache import cache_folder, fill, finish, in_parallel, one_writer, read_cache
from pudnet_lib.images.decode import Pixels, common_scale, decode_image, deep_range
from pudnet_lib.images.folder import Listing, readable, stamp

Split = Literal["train", "test", "all", "auto"]
OnError = Literal["raise", "skip"]
TEST_SHARE = 0.2
FEW_LEVELS = 16
_NEAR_MOST = 4000  # images among which near copies are looked for: all pairs
_NEAR_SIZE, _NEAR_LEVELS = 32, 10.0  # two pictures are near copies within so many gray levels at so many pixels


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        size: H = W in pixels.
        channels: C, 1 or 3.
        progress: Show a progress bar while decoding.
        cache_dir: Where caches go; see ``cache_folder``.
        on_error: What a picture that can't be decoded does: be left out (``"skip"``) or ``"raise"`` an error.
        workers: Threads that decode; 0 for one more than there are cores.
    """

    size: int = 32
    channels: int = 3
    progress: bool = True
    cache_dir: Path | str | None = None
    on_error: OnError = "skip"
    workers: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1 or self.channels not in (1, 3):
            raise PudNetError(f"Asked for size {self.size} and {self.channels} channels; expected size >= 1, 1 or 3.")
        if self.on_error not in get_args(OnError):
            raise PudNetError(f"on_error is {self.on_error!r}; expected 'raise' or 'skip'.")


@dataclass(frozen=True)
class FolderReport:
    """What was understood of a folder of images before anything is predicted.

    Attributes:
        name: The source's name.
        classes: Images of each class.
        split: ``source`` is "own", "drawn" or "none"; images to learn from and to measure on.
        duplicates: Images whose decoded pixels an earlier one has: ``within_class``, ``across_classes``, and
            ``across_split``, those of an own test part that are in the training part (left out of the test).
        blank: Images of one flat colour.
        grey_levels: From the darkest to the brightest value, 1 to 256.
        skipped: Files that were passed over.
        warnings: What its user should know, a sentence each.
        scale: Black and white of deep pictures; empty where there are none.
    """

    name: str
    classes: dict[str, int]
    split: dict[str, Any]
    duplicates: dict[str, int]
    blank: int
    grey_levels: int
    skipped: tuple[dict[str, str], ...] = ()
    warnings: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()

    @property
    def images(self) -> int:
        """All images that were read."""
        return sum(self.classes.values())

    def to_json(self) -> dict[str, Any]:
        """The report as one object for programs."""
        found = asdict(self)
        order = ("classes", "images", "split", "duplicates", "blank", "grey_levels", "skipped", "warnings")
        return {key: self.images if key == "images" else found[key] for key in order}

    def lines(self, most: int = 12) -> list[str]:
        """The report as text of at most one screen."""
        names = [f"{name} {count}" for name, count in self.classes.items()]
        more = [f"and {len(names) - most} more"] if len(names) > most else []
        source = {"own": "the folder's own", "drawn": "drawn, a fifth of every class", "none": "none"}
        copies = self.duplicates
        lines = [
            f"{self.name}: {self.images} pictures in {len(self.classes)} classes",
            f"classes:     {', '.join([*names[:most], *more])}",
            f"split:       {source[self.split['source']]}: {self.split['train']} to learn from, "
            f"{self.split['test']} to measure on",
            f"copies:      {copies['within_class']} within a class, {copies['across_classes']} across classes, "
            f"{copies['across_split']} across the split",
            f"blank:       {self.blank}; gray levels: {self.grey_levels} of 256",
            f"passed over: {len(self.skipped)} files",
            *(f"             {s['file']}: {s['why']}" for s in self.skipped[:4]),
        ]
        return [*lines, *(f"! {text}" for text in self.warnings[:most]), *(["…"] if len(self.warnings) > most else [])]

    def __str__(self) -> str:
        return "\n".join(self.lines())


@dataclass(frozen=True)
class Source:
    """Images that are read by number: files, or a torchvision dataset's records."""

    name: str
    shown: str  # what messages call it
    fingerprint: str
    labels: npt.NDArray[np.int64]  # (N,), 0..K-1
    tests: npt.NDArray[np.bool_] | None  # (N,); None where a split has to be drawn
    class_names: tuple[str, ...]
    read: Callable[[int], Pixels]  # image i as (C, H, W) uint8; a PictureError for a bad one
    file: Callable[[int], str]  # its name, below ``shown``
    stamp: Callable[[int], bytes]  # what it depends on
    licence: str = "unknown"
    facts: dict[str, Any] = field(default_factory=dict)  # skipped files, warnings, the scale
    published: bool = True  # the split is the authors': it stays, copies and all, and nothing is said of it


def source_of(listing: Listing, how: Reading, licence: str = "unknown", published: bool = False) -> Source:
    """Make a listing's files a source: training images first, one scale for all deep pictures."""
    paths = [f"{listing.root}/{f}" for f in listing.files]
    ranges = [
        r
        for _, part in in_parallel(lambda k: [deep_range(p) for p in paths[k : k + 256]], range(0, len(paths), 256))
        for r in part
        if r
    ]
    scale, said = common_scale(ranges) if ranges else (None, "")
    notes = list(listing.warnings)
    if said:
        notes.append(f"{len(ranges)} pictures have more than 8 bits; {said}, for all of them.")
    tests = listing.tests
    if tests is None:
        tests = drawn(listing.labels, np.arange(len(paths)), listing.files)
    order = np.argsort(tests, kind="stable")
    files = [listing.files[i] for i in order]

    def read(i: int) -> Pixels:
        return decode_image(f"{listing.root}/{files[i]}", how.size, how.channels, scale)

    return Source(
        listing.name,
        listing.shown,
        listing.fingerprint,
        listing.labels[order],
        None if listing.tests is None else tests[order],
        listing.class_names,
        read,
        files.__getitem__,
        lambda i: stamp(listing.root, files[i]) + repr(scale).encode(),
        licence,
        {"skipped": listing.skipped, "warnings": notes, "scale": tuple(scale or ())},
        published,
    )


def drawn(labels: npt.NDArray[np.int64], items: npt.NDArray[np.int64], files: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Draw a fifth of every class's items for testing, the same way on every machine.

    The draw orders a class's items by a hash of their relative path, so it neither depends on a generator nor follows
    the order in which the pictures were taken. A class of a single item has nothing for testing.
    """
    side: dict[int, bool] = {}
    for label in range(int(labels.max()) + 1):
        own = list(dict.fromkeys(items[labels == label].tolist()))
        own.sort(key=lambda i: hashlib.blake2b(files[i].encode("utf-8", "surrogateescape")).digest())
        wanted = max(1, round(TEST_SHARE * len(own))) if len(own) > 1 else 0
        for item in own:  # an item of two classes stays where the first of them put it
            side.setdefault(item, sum(side.get(i, False) for i in own) < wanted)
    return np.array([side[i] for i in items.tolist()], dtype=np.bool_)


def read_folder(
    root: Path, split: Split, how: Reading, scan: Callable[[], Listing], name: str, licence: str, published: bool
) -> ImageDataset:
    """Read an image folder; one that was prepared is not listed again, only its folders' times are looked at."""
    path = cache_path(name, str(root.resolve()), how)
    cached = read_cache(path, None)
    if cached is not None and "folders" in cached[1]:
        for folder, time in cached[1]["folders"].items():
            if not os.path.isdir(folder) or os.stat(folder).st_mtime_ns != time:
                raise PudNetError(
                    f"{folder} has changed since it was prepared; run `pudnet prepare` again, or delete {path}."
                )
        return read_source(path, None, lambda: source_of(scan(), how, licence, published), split, how, cached)
    listing = scan()
    return read_source(
        path, listing.fingerprint, lambda: source_of(listing, how, licence, published), split, how, cached
    )


def prepare(listing: Listing, root: Path, how: Reading, licence: str, published: bool) -> Path:
    """Decode a large image folder for good; a run that was cut goes on where it was. Returns the description's path."""
    path = cache_path(listing.name, str(root.resolve()), how)
    with one_writer(path):
        cached = read_cache(path, listing.fingerprint)
        if cached is None or "folders" not in cached[1]:
            folders = {os.path.dirname(f"{listing.root}/{f}") for f in listing.files}
            stamps = {folder: os.stat(folder).st_mtime_ns for folder in sorted(folders)}
            decode_to_cache(source_of(listing, how, licence, published), path, how, folders=stamps)
    return path


class Estimate(NamedTuple):
    """What preparing a source will take: images, bytes on disk, seconds."""

    images: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        hours, minutes = divmod(round(self.seconds / 60), 60)
        return f"{self.images:,} images, {self.bytes / 1e9:.2f} GB, about {hours} h {minutes:02d} min"


def estimate(listing: Listing, how: Reading, sample: int = 64) -> Estimate:
    """Time the decoding of a few images, evenly spaced, and scale up."""
    count = len(listing.files)
    chosen = np.linspace(0, count - 1, min(sample, count)).astype(int).tolist()
    began = time.perf_counter()

    def read(i: int) -> None:
        with suppress(PudNetError):
            decode_image(f"{listing.root}/{listing.files[i]}", how.size, how.channels)

    list(in_parallel(read, chosen, how.workers))
    return Estimate(count, count * how.channels * how.size**2, (time.perf_counter() - began) * count / len(chosen))


def cache_path(name: str, key: str, how: Reading) -> Path:
    """Name the cached description of a source at a size; ``key`` tells it from another source of its name."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60]
    digest = hashlib.blake2b(f"{name}\0{key}".encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return cache_folder(how.cache_dir) / f"{plain}-{digest}-{how.size}px-{how.channels}c.json"


def read_source(
    path: Path,
    fingerprint: str | None,
    opened: Callable[[], Source],
    split: Split,
    how: Reading,
    cached: tuple[torch.Tensor, dict[str, Any]] | None = None,
) -> ImageDataset:
    """Give a source's images from its cache; decode them first if there is none, or it is out of date.

    ``fingerprint`` of None takes the cache as it is; ``cached`` is what was read of it already.
    """
    if cached is None or fingerprint not in (None, cached[1]["fingerprint"]):
        cached = read_cache(path, fingerprint)
    if cached is None:
        with one_writer(path):
            cached = read_cache(path, fingerprint)  # another process may have done it while this one waited
            if cached is None:
                decode_to_cache(opened(), path, how)
                cached = read_cache(path, None)
    if cached is None:
        raise PudNetError(f"The cache {path} could not be read back after it was written; check the disk.")
    images, facts = cached
    _raise_if_asked(facts["bad"], how)
    report = FolderReport(**{k: tuple(v) if isinstance(v, list) else v for k, v in facts["report"].items()})
    for text in report.warnings if not facts["published"] else report.warnings[: len(facts["bad"])]:
        warnings.warn(f"{report.name}: {text}", stacklevel=4)
    return _part(images, facts, split, report)


def _raise_if_asked(bad: Sequence[Sequence[str]], how: Reading) -> None:
    if bad and how.on_error == "raise":
        raise PudNetError(
            f"{bad[0][0]} is {bad[0][1]} ({len(bad)} files can't be read). Repair or remove it and try again, or pass "
            "on_error='skip' to leave such files out."
        )


def _part(images: torch.Tensor, facts: dict[str, Any], split: Split, report: FolderReport) -> ImageDataset:
    """Take one side of the split; ``"auto"`` is the training part of a folder's own split, else all."""
    train, test = facts["train"], facts["test"]
    if split == "auto":
        split = "train" if report.split["source"] == "own" else "all"
    part = {"train": slice(0, train), "test": slice(train, train + test), "all": slice(0, len(images))}[split]
    if part.start == part.stop:
        raise PudNetError(
            f"{facts['name']} has no test image: every class has a single item. Add images, or use 'train'."
        )
    items = torch.arange(len(images))
    for row, first in facts["items"]:
        items[row] = first
    return ImageDataset(
        images[part],
        torch.tensor(facts["labels"], dtype=torch.int64)[part],
        tuple(facts["class_names"]),
        facts["name"],
        items[part],
        facts["licence"],
        report=report,
    )


def decode_to_cache(source: Source, path: Path, how: Reading, **more: Any) -> None:
    """Decode all images of a source into a cache, find copies, settle the split, write the report."""
    shape = (len(source.labels), how.channels, how.size, how.size)
    text = f"Reading {source.name}" if how.progress else ""
    partial_file, bad = fill(path, shape, source.read, source.stamp, text, how.workers)
    pixels = np.lib.format.open_memmap(partial_file, "r")
    good = np.array([i for i in range(len(pixels)) if i not in bad], dtype=np.int64)
    damaged = [(f"{source.shown}/{readable(source.file(i))}", why) for i, why in bad.items()]
    _raise_if_asked(damaged, how)
    _no_class_lost(source, good, bad)
    first, levels, blank, gray = _survey(pixels, good)
    labels = source.labels[good]
    rows = np.arange(len(good))
    items = first[rows]
    tests = (
        source.tests[good] if source.tests is not None else drawn(labels, items, [source.file(int(i)) for i in good])
    )
    copies = {"within_class": int(((items != rows) & (labels == labels[items]) & (tests == tests[items])).sum())}
    copies["across_classes"] = int((labels != labels[items]).sum())
    learned = set(items[~tests].tolist())
    known = np.array([bool(t) and i in learned for t, i in zip(tests, items.tolist(), strict=True)], dtype=bool)
    copies["across_split"] = int(known.sum())
    left_out = known & (not source.published and bool((tests & ~known).any()))
    order = np.concatenate([rows[~tests], rows[tests & ~left_out], rows[left_out]])
    place = np.empty_like(order)
    place[order] = rows
    train, test = int((~tests).sum()), int((tests & ~left_out).sum())
    origin = "own" if source.tests is not None else "drawn" if test else "none"
    skipped = [{"file": readable(f), "why": why} for f, why in source.facts.get("skipped", ())]
    skipped += [{"file": readable(source.file(i)), "why": why} for i, why in bad.items()]
    report = FolderReport(
        source.name,
        {name: int((labels == k).sum()) for k, name in enumerate(source.class_names)},
        dict(source=origin, train=train, test=int(tests.sum())),
        copies,
        int(blank.sum()),
        levels,
        tuple(skipped),
        tuple(source.facts.get("warnings", ())),
        tuple(source.facts.get("scale", ())),
    )
    said = _noticed(report, source, good, items, tests, left_out, blank, gray, pixels)
    report = replace(report, warnings=(*report.warnings, *said))
    facts = {
        "name": source.name,
        "fingerprint": source.fingerprint,
        "labels": labels[order].tolist(),
        "items": [(int(place[r]), int(place[items[r]])) for r in rows if items[r] != r],
        "train": train,
        "test": test,
        "class_names": list(source.class_names),
        "licence": source.licence,
        "bad": damaged,
        "published": source.published,
        "report": asdict(report),
        **more,
    }
    del pixels
    finish(path, partial_file, good[order], facts)


def _no_class_lost(source: Source, good: npt.NDArray[np.int64], bad: dict[int, str]) -> None:
    """Refuse to go on with a class of which no training image could be decoded."""
    learn = good if source.tests is None else good[~source.tests[good]]
    lost = sorted(set(source.labels.tolist()) - set(source.labels[learn].tolist()))
    if lost:
        own = [i for i in bad if source.labels[i] == lost[0]]
        raise PudNetError(
            f"{source.shown}: of the class {source.class_names[lost[0]]!r} no training image can be decoded "
            f"({len(own)} files; first: {readable(source.file(own[0]))}: {bad[own[0]]})."
        )


def _survey(
    pixels: npt.NDArray[np.uint8], good: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], int, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of the good images: the first with the same pixels, the span of gray levels, which are blank, which gray."""
    seen: dict[bytes, int] = {}
    first = np.arange(len(good))
    low, high, blank, gray = 255, 0, np.zeros(len(good), np.bool_), np.zeros(len(good), np.bool_)
    step = max(1, (1 << 24) // int(np.prod(pixels.shape[1:])))
    for begin in range(0, len(good), step):
        block = pixels[good[begin : begin + step]]
        flat = block.reshape(*block.shape[:2], -1)
        lows, highs = flat.min(2), flat.max(2)
        low, high = min(low, int(lows.min())), max(high, int(highs.max()))
        blank[begin : begin + step] = (lows == highs).all(1)
        gray[begin : begin + step] = (flat == flat[:, :1]).all((1, 2))
        for i, image in enumerate(block, begin):
            first[i] = seen.setdefault(hashlib.blake2b(image.tobytes(), digest_size=12).digest(), i)
    return first, high - low + 1, blank, gray


def _noticed(
    report: FolderReport,
    source: Source,
    good: npt.NDArray[np.int64],
    items: npt.NDArray[np.int64],
    tests: npt.NDArray[np.bool_],
    left_out: npt.NDArray[np.bool_],
    blank: npt.NDArray[np.bool_],
    gray: npt.NDArray[np.bool_],
    pixels: npt.NDArray[np.uint8],
) -> list[str]:
    """What the pixels say that its user should know, a sentence each."""
    labels, rows, said = source.labels[good], np.arange(len(good)), []
    counts, copies = list(report.classes.values()), report.duplicates

    def file(row: int) -> str:
        return readable(source.file(int(good[row])))

    if report.skipped:
        damaged = len(source.facts.get("skipped", ()))
        one = report.skipped[damaged if damaged < len(report.skipped) else 0]
        said.append(f"{len(report.skipped)} files are passed over, such as {one['file']}: {one['why']}.")
    if copies["within_class"]:
        said.append(
            f"{copies['within_class']} pictures are exact copies of another of their class; copies count as one "
            "and stay on one side of every split."
        )
    twice = rows[(labels != labels[items]) & ~blank]
    if len(twice):
        said.append(
            f"the same picture is in two classes, {len(twice)} times: {file(items[twice[0]])} and "
            f"{file(twice[0])}, for example. One of the labels must be wrong."
        )
    if copies["across_split"]:
        rest = f"they are left out of the test, {int((tests & ~left_out).sum())} remain"
        what = rest if left_out.any() else "a test on them is too kind"
        said.append(f"{copies['across_split']} test pictures are also among those to learn from; {what}.")
    if blank.any():
        said.append(
            f"{report.blank} of {len(good)} pictures are of one flat colour, such as {file(int(blank.argmax()))}; "
            "nothing can be seen in them. More pictures won't help; look at how they were made (white on transparent "
            "ground turns white; black ones may be dark 16-bit data)."
        )
    if report.grey_levels < FEW_LEVELS:
        said.append(
            f"all pictures lie within {report.grey_levels} of 256 gray levels, so they are almost flat; stretch "
            "them first (12-bit colour in 16-bit files reads so)."
        )
    if source.published:
        return said
    if pixels.shape[1] == 3 and len(counts) > 1:
        share = [float(gray[labels == k].mean()) for k in range(len(counts))]
        if min(share) < 0.1 and max(share) > 0.9:
            a, b = (source.class_names[int(f(share))] for f in (np.argmax, np.argmin))
            said.append(f"the class {a!r} is gray and {b!r} in colour: colour alone tells them apart.")
    single = [n for n, c in report.classes.items() if c == 1]
    if single:
        said.append(f"{len(single)} classes have one picture, such as {single[0]!r}: nothing tests them.")
    near, across = _near_copies(pixels, good, items, tests)
    if near:
        also = f", {across} of them on both sides of the split" if across else ""
        said.append(
            f"{near} pictures are nearly equal to another one (saved or resized again, frames of one video, a "
            f"burst){also}; a test on them is too kind."
        )
    return said


def _near_copies(
    pixels: npt.NDArray[np.uint8],
    good: npt.NDArray[np.int64],
    items: npt.NDArray[np.int64],
    tests: npt.NDArray[np.bool_],
) -> tuple[int, int]:
    """Count pictures that differ from another by a few gray levels, and pairs of them across the split."""
    if not 1 < len(good) <= _NEAR_MOST:
        return 0, 0
    small = torch.from_numpy(pixels[good]).float().mean(1, keepdim=True)
    flat = F.adaptive_avg_pool2d(small, min(_NEAR_SIZE, small.shape[-1])).flatten(1)
    distance = torch.cdist(flat, flat) / flat.shape[1] ** 0.5
    spread = flat.std(1)
    close = (distance < _NEAR_LEVELS) & (distance < 0.35 * torch.minimum(spread[:, None], spread))
    item = torch.from_numpy(items)
    close &= item[:, None] != item
    test = torch.from_numpy(tests)
    return int(close.any(1).sum()), int((close & (test[:, None] != test)).any(1).logical_and(test).sum())
