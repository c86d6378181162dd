"""A listing to an ImageDataset: decoded once, memory-mapped ever after, with a report.

Our choice. Pictures whose decoded pixels are equal are one *item* and stay on one side of every split. A split is drawn
from what decodes. What was understood, passed over and noticed is a ``FolderReport`` that travels with the images.
"""

import hashlib
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from pudnet_lib.images.decode import Pixels, common_scale, decode_image, deep_range, quiet_bombs
from pudnet_lib.images.folder import Listing, readable, some, stamp

Split = Literal["train", "test", "all", "auto"]
OnError = Literal["raise", "skip"]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reading:
    """How images are read; see ``load_images``."""

    size: int = 32
    channels: int = 3
    progress: bool = True
    cache_dir: Path | str | None = None
    on_error: OnError = "skip"
    workers: int = 0  # threads that decode; 0 for one more than there are cores

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1 or self.channels not in (1, 3):
            raise PudNetError(f"Asked for size {self.size} and {self.channels} channels; expected size >= 1, 1 or 3.")
        if self.on_error not in get_args(OnError):
            raise PudNetError(f"on_error is {self.on_error!r}; expected 'raise' or 'skip'.")


@dataclass(frozen=True)
class FolderReport:
    """What was understood of a folder of images before anything is predicted; ``str`` of it is at most one screen."""

    name: str
    classes: dict[str, int]  # images of each
    split: dict[str, Any]  # source: "own", "drawn" or "none"; images to "train" (learn from) and to "test" (measure on)
    #: Images whose decoded pixels an earlier one has; "across_split": of an own test part, in the training part, too.
    duplicates: dict[str, int] = field(default_factory=lambda: dict(within_class=0, across_classes=0, across_split=0))
    blank: int = 0  # images of one flat colour
    grey_levels: int = 256  # from the darkest to the brightest value
    skipped: tuple[dict[str, str], ...] = ()  # files that were passed over, each with "file" and "why"
    warnings: tuple[str, ...] = ()  # what its user should know, a sentence each
    scale: tuple[float, ...] = ()  # black and white of deep pictures; empty where there are none

    @property
    def images(self) -> int:
        """All images that were read."""
        return sum(self.classes.values())

    def to_json(self) -> dict[str, Any]:
        """The report as one object for programs."""
        keys = ("classes", "images", "split", "duplicates", "blank", "grey_levels", "skipped", "warnings")
        return {key: getattr(self, key) for key in keys}

    def __str__(self) -> str:
        names = some([f"{' '.join(name.split())} {count}" for name, count in self.classes.items()], 12)
        source = {"own": "the folder's own", "drawn": "drawn, a fifth of every class", "none": "none"}
        split, copies = self.split, self.duplicates
        lines = [
            f"{self.name}: {self.images} pictures in {len(self.classes)} classes",
            f"classes:     {names}",
            f"split:       {source[split['source']]}: {split['train']} to learn from, {split['test']} to measure on",
            f"copies:      {', '.join(f'{n} {kind}' for kind, n in copies.items())}".replace("_", " "),
            f"blank:       {self.blank}; gray levels: {self.grey_levels} of 256",
            f"passed over: {len(self.skipped)} files",
            *(f"             {s['file']}: {s['why']}" for s in self.skipped[:4]),
            *(f"! {text}" for text in self.warnings[:12]),
        ]
        return "\n".join([*lines, "…"] if len(self.warnings) > 12 else lines)


class Source(NamedTuple):
    """A listing that can be read: image i as (C, H, W) uint8 (a PictureError for a bad one), and what it depends on."""

    listing: Listing
    read: Callable[[int], Pixels]
    stamp: Callable[[int], bytes]
    scale: tuple[float, ...] = ()


def source_of(listing: Listing, how: Reading) -> Source:
    """Make a listing's files a source: training images first, one scale for all deep pictures."""
    paths = [f"{listing.root}/{f}" for f in listing.files]
    blocks = [paths[k : k + 256] for k in range(0, len(paths), 256)]
    with quiet_bombs():
        found = in_parallel(lambda block: list(map(deep_range, block)), blocks, how.workers)
        ranges = [r for block in found for r in block if r]
    scale, said = common_scale(ranges) if ranges else (None, "")
    notes = [f"{len(ranges)} pictures have more than 8 bits; {said}, for all of them."] if said else []
    own, rows = listing.tests, np.arange(len(paths))
    order = np.argsort(drawn(listing.labels, rows, listing.files) if own is None else own, kind="stable")
    files, tests = tuple(listing.files[i] for i in order), None if own is None else own[order]
    return Source(
        replace(listing, files=files, labels=listing.labels[order], tests=tests, warnings=(*listing.warnings, *notes)),
        lambda i: decode_image(f"{listing.root}/{files[i]}", how.size, how.channels, scale),
        lambda i: stamp(listing.root, files[i]) + repr(scale).encode(),
        tuple(scale or ()),
    )


def drawn(labels: Rows, items: Rows, files: Sequence[str]) -> Mask:
    """Draw a fifth of every class's items for testing, the same way on every machine."""
    side: dict[int, bool] = {}
    for label in range(int(labels.max()) + 1):
        own = list(dict.fromkeys(items[labels == label].tolist()))
        own.sort(key=lambda i: hashlib.blake2b(files[i].encode("utf-8", "surrogateescape")).digest())
        wanted = max(1, round(0.2 * len(own))) if len(own) > 1 else 0
        count = sum(side.get(i, False) for i in own)
        for item in own:  # an item of two classes stays where the first of them put it
            if item not in side:
                side[item] = count < wanted
                count += side[item]
    return np.array([side[i] for i in items.tolist()], dtype=np.bool_)


def read_folder(root: Path, split: Split, how: Reading, scan: Callable[[], Listing], name: str) -> ImageDataset:
    """Read an image folder; one that was prepared is not listed again, only its folders' times are looked at."""
    path = cache_path(name, root, how)
    cached = read_cache(path, None)
    if cached is None or "folders" not in cached[1]:
        listing = scan()
        return read_source(path, listing.fingerprint, lambda: source_of(listing, how), split, how, cached)
    for folder, before in cached[1]["folders"].items():
        if not os.path.isdir(folder) or os.stat(folder).st_mtime_ns != before:
            raise PudNetError(f"{folder} has changed since then; run `pudnet prepare` again, or delete {path}.")
    return read_source(path, None, lambda: source_of(scan(), how), split, how, cached)


def prepare(listing: Listing, root: Path, how: Reading) -> Path:
    """Decode a large image folder for good; a run that was cut goes on where it was. Returns the description's path."""
    path = cache_path(listing.name, root, how)
    with one_writer(path):
        cached = read_cache(path, listing.fingerprint)
        if cached is None or "folders" not in cached[1]:
            folders = {os.path.dirname(f"{listing.root}/{f}") for f in listing.files}
            decode_to_cache(source_of(listing, how), path, how, folders={f: os.stat(f).st_mtime_ns for f in folders})
    return path


def estimate(listing: Listing, how: Reading, sample: int = 64) -> str:
    """Say what preparing takes, from the time that a few images take, evenly spaced."""
    count, began = len(listing.files), time.perf_counter()
    chosen = [listing.files[int(i)] for i in np.linspace(0, count - 1, min(sample, count))]

    def read(file: str) -> None:
        with suppress(PudNetError):
            decode_image(f"{listing.root}/{file}", how.size, how.channels)

    list(in_parallel(read, chosen, how.workers))
    hours, minutes = divmod(round((time.perf_counter() - began) * count / len(chosen) / 60), 60)
    return f"{count:,} images, {count * how.channels * how.size**2 / 1e9:.2f} GB, about {hours} h {minutes:02d} min"


def cache_path(name: str, root: Path, how: Reading) -> Path:
    """Name the cached description of a source at a size; the folder tells it from another source of its name."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60]
    digest = hashlib.blake2b(f"{name}\0{root.resolve()}".encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return cache_folder(how.cache_dir) / f"{plain}-{digest}-{how.size}px-{how.channels}c.json"


def read_source(
    path: Path, fingerprint: str | None, opened: Callable[[], Source], split: Split, how: Reading, cached: Any = None
) -> ImageDataset:
    """Give a source's images from its cache; decode them first if there is none, or it is out of date."""
    if cached is None or fingerprint not in (None, cached[1]["fingerprint"]):
        with one_writer(path):
            cached = read_cache(path, fingerprint)  # another process may have done it while this one waited
            if cached is None:
                decode_to_cache(opened(), path, how)
                cached = read_cache(path, None)
    if cached is None:
        raise PudNetError(f"The cache {path} could not be read back after it was written; check the disk.")
    images, facts = cached
    _raise_if_asked(facts["bad"], how)
    stored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["report"].items()}
    report = FolderReport(**stored)
    for text in report.warnings if not facts["published"] else report.warnings[: len(facts["bad"])]:
        warnings.warn(f"{report.name}: {text}", stacklevel=4)
    train, both = facts["train"], slice(0, len(images))
    parts = {"train": slice(0, train), "test": slice(train, train + facts["test"]), "all": both}
    part = (parts | {"auto": parts["train"] if report.split["source"] == "own" else both})[split]
    if part.start == part.stop:
        raise PudNetError(f"{report.name} has no test image: every class has one item. Add images, or use 'train'.")
    items = torch.arange(len(images))
    for row, first in facts["items"]:
        items[row] = first
    labels, names = torch.tensor(facts["labels"], dtype=torch.int64), tuple(facts["class_names"])
    return ImageDataset(images[part], labels[part], names, report.name, items[part], facts["licence"], report)


def _raise_if_asked(bad: Sequence[Sequence[str]], how: Reading) -> None:
    if bad and how.on_error == "raise":
        found = f"{bad[0][0]} is {bad[0][1]} ({len(bad)} files can't be read)"
        raise PudNetError(f"{found}. Repair or remove it, or pass on_error='skip' to leave such files out.")


def decode_to_cache(source: Source, path: Path, how: Reading, **more: Any) -> None:
    """Decode all images of a source into a cache, find copies, settle the split, write the report."""
    listing, files = source.listing, [readable(f) for f in source.listing.files]
    shape, text = (len(files), how.channels, how.size, how.size), f"Reading {listing.name}" if how.progress else ""
    partial_file, bad = fill(path, shape, source.read, source.stamp, text, how.workers)
    damaged = [(f"{listing.shown}/{files[i]}", why) for i, why in bad.items()]
    _raise_if_asked(damaged, how)
    good = np.array([i for i in range(len(files)) if i not in bad], dtype=np.int64)
    learn = good if listing.tests is None else good[~listing.tests[good]]
    for lost in sorted(set(listing.labels.tolist()) - set(listing.labels[learn].tolist())):
        own_bad = [i for i in bad if listing.labels[i] == lost]
        what = f"of the class {listing.class_names[lost]!r} no training image can be decoded"
        first = f"first: {files[own_bad[0]]}: {bad[own_bad[0]]}"
        raise PudNetError(f"{listing.shown}: {what} ({len(own_bad)} files; {first}).")
    pixels = np.lib.format.open_memmap(partial_file, "r")
    seen, labels, rows = _survey(pixels, good), listing.labels[good], np.arange(len(good))
    items, own = seen.first, listing.tests is not None
    tests = listing.tests[good] if listing.tests is not None else drawn(labels, items, [listing.files[i] for i in good])
    same, again = labels == labels[items], items != rows
    known = tests & np.isin(items, items[~tests])
    left_out = known & (not listing.published and bool((tests & ~known).any()))
    copies = {"within_class": again & same & (tests == tests[items]), "across_classes": ~same, "across_split": known}
    order = np.concatenate([rows[~tests], rows[tests & ~left_out], rows[left_out]])
    place = np.argsort(order)
    train, test = int((~tests).sum()), int(tests.sum())
    classes = {name: int((labels == k).sum()) for k, name in enumerate(listing.class_names)}
    part = {"source": "own" if own else "drawn" if test else "none", "train": train, "test": test}
    counts = {kind: int(mask.sum()) for kind, mask in copies.items()}
    strays = [*listing.skipped, *((files[i], why) for i, why in bad.items())]
    looks = (int(seen.blank.sum()), seen.levels, tuple({"file": readable(f), "why": why} for f, why in strays))
    report = FolderReport(listing.name, classes, part, counts, *looks, scale=source.scale)
    said = [*listing.warnings, *_noticed(report, [files[i] for i in good], labels, seen, int(left_out.sum()))]
    if not listing.published:
        said += _odd(report, labels, seen, pixels, good, tests)
    facts = {"fingerprint": listing.fingerprint, "licence": listing.licence, "published": listing.published}
    facts |= {"labels": labels[order].tolist(), "class_names": listing.class_names, "bad": damaged}
    facts |= {"train": train, "test": test - int(left_out.sum()), "report": asdict(report) | {"warnings": said}}
    facts["items"] = [(int(place[r]), int(place[items[r]])) for r in rows[again]]
    del pixels
    finish(path, partial_file, good[order], facts | more)


class _Seen(NamedTuple):
    first: Rows  # of each image, the first with the same pixels
    blank: Mask  # those of one colour
    gray: Mask
    levels: int  # from the darkest to the brightest


def _survey(pixels: Pixels, good: Rows) -> _Seen:
    """Look at all images once, some megabytes at a time."""
    seen: dict[bytes, int] = {}
    first, (blank, gray), ends = np.arange(len(good)), np.zeros((2, len(good)), np.bool_), (255, 0)
    step = max(1, (1 << 24) // int(np.prod(pixels.shape[1:])))
    for begin in range(0, len(good), step):
        block = pixels[good[begin : begin + step]]
        flat = block.reshape(*block.shape[:2], -1)
        low, high = flat.min(2), flat.max(2)
        ends = min(ends[0], int(low.min())), max(ends[1], int(high.max()))
        blank[begin : begin + step] = (low == high).all(1)
        gray[begin : begin + step] = (flat == flat[:, :1]).all((1, 2))
        for i, image in enumerate(block, begin):
            first[i] = seen.setdefault(hashlib.blake2b(image.tobytes(), digest_size=12).digest(), i)
    return _Seen(first, blank, gray, ends[1] - ends[0] + 1)


def _noticed(report: FolderReport, files: Sequence[str], labels: Rows, seen: _Seen, left_out: int) -> Iterator[str]:
    """What makes a folder another one than it seems, a sentence each."""
    copies = report.duplicates
    if report.skipped:
        first = next((s for s in report.skipped if s["why"] != "no picture"), report.skipped[0])
        yield f"{len(report.skipped)} files are passed over, such as {first['file']}: {first['why']}."
    if copies["within_class"]:
        yield f"{copies['within_class']} pictures are exact copies of another of their class; copies count as one."
    twice = np.flatnonzero((labels != labels[seen.first]) & ~seen.blank)
    if len(twice):
        both = f"{files[seen.first[twice[0]]]} and {files[twice[0]]}"
        yield f"the same picture is in two classes, {len(twice)} times: {both}, for example. One label must be wrong."
    if copies["across_split"]:
        rest = f"they are left out of the test, {report.split['test'] - left_out} remain"
        what = rest if left_out else "a test on them is too kind"
        yield f"{copies['across_split']} test pictures are also among those to learn from; {what}."
    if report.blank:
        one = files[int(seen.blank.argmax())]
        flat = f"{report.blank} of {len(files)} pictures are of one flat colour, such as {one}"
        causes = "(white on transparent ground turns white; black ones may be dark 16-bit data)"
        yield f"{flat}. More of them won't help; look at how they were made {causes}."
    if report.grey_levels < 16:
        yield f"all lie within {report.grey_levels} of 256 gray levels: stretch them (12-bit colour in 16 bit is so)."


def _odd(report: FolderReport, labels: Rows, seen: _Seen, pixels: Pixels, good: Rows, tests: Mask) -> Iterator[str]:
    """What makes a test too kind or impossible, a sentence each."""
    names = list(report.classes)
    share = [float(seen.gray[labels == k].mean()) for k in range(len(names))]
    if pixels.shape[1] == 3 and min(share) < 0.1 and max(share) > 0.9:
        gray, colour = names[int(np.argmax(share))], names[int(np.argmin(share))]
        yield f"the class {gray!r} is gray and {colour!r} in colour: colour alone tells them apart."
    if single := [n for n, c in report.classes.items() if c == 1]:
        yield f"{len(single)} classes have one picture, such as {single[0]!r}: nothing tests them."
    if not 1 < len(good) <= 4000:  # near copies are looked for among all pairs: within 10 gray levels at 32 pixels
        return
    small = torch.from_numpy(pixels[good]).float().mean(1, keepdim=True)
    flat = F.adaptive_avg_pool2d(small, min(32, small.shape[-1])).flatten(1)
    distance, spread = torch.cdist(flat, flat) / flat.shape[1] ** 0.5, flat.std(1)
    item, test = torch.from_numpy(seen.first), torch.from_numpy(tests)
    close = (distance < 10.0) & (distance < 0.35 * torch.minimum(spread[:, None], spread))
    close &= item[:, None] != item
    across = int((close & (test[:, None] != test)).any(1).logical_and(test).sum())
    if close.any():
        why = "(saved again, frames of a video, a burst)" + f", {across} across the split" * bool(across)
        yield f"{int(close.any(1).sum())} pictures are nearly equal to another one {why}; a test on them is too kind."
