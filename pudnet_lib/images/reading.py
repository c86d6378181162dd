"""A listing of files, or an indexed source, to an ImageDataset: decoded in parallel once, memory-mapped ever after.

Our choice: threads, because Pillow lets go of the interpreter lock while it decodes and resizes, and because worker
processes would have to import torch first.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.cache import cache_folder, read_cache, write_cache
from pudnet_lib.images.decode import Pixels, decode_image, quiet_bombs
from pudnet_lib.images.folder import Listing

Split = Literal["train", "test", "all"]
OnError = Literal["raise", "skip"]
_CHUNK = 32  # images a task: tiny ones decode faster than a task is handed over
_WORKERS = min(16, (os.cpu_count() or 1) + 1)


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Attributes:
        size: H = W in pixels.
        channels: C, 1 or 3.
        progress: Show a progress bar while decoding.
        cache_dir: Where caches go; see ``cache_folder``.
        on_error: What a file that can't be decoded does: ``"raise"`` an error, or be left out (``"skip"``).
    """

    size: int = 32
    channels: int = 3
    progress: bool = True
    cache_dir: Path | str | None = None
    on_error: OnError = "raise"

    def __post_init__(self) -> None:
        if self.size < 1 or self.channels not in (1, 3):
            raise PudNetError(f"Asked for size {self.size} and {self.channels} channels; expected size >= 1, 1 or 3.")
        if self.on_error not in ("raise", "skip"):
            raise PudNetError(f"on_error is {self.on_error!r}; expected 'raise' or 'skip'.")


@dataclass(frozen=True)
class IndexedSource:
    """Images that are read by number: files, or a torchvision dataset's records; training images first.

    Attributes:
        name: The source's name.
        key: What tells it from another source of that name, such as its folder.
        fingerprint: Changes when the images do.
        read: Gives image i as (C, H, W) uint8 of the asked size and channels; raises PudNetError on a bad one.
        labels: N labels in 0..K-1.
        train_count: The first so many images are for training.
        class_names: The K names.
        licence: The terms.
    """

    name: str
    key: str
    fingerprint: str
    read: Callable[[int], Pixels]
    labels: Sequence[int]
    train_count: int
    class_names: tuple[str, ...]
    licence: str = "unknown"


def read_listing(listing: Listing, root: Path, split: Split, how: Reading, licence: str = "unknown") -> ImageDataset:
    """Read a listing's files.

    Args:
        listing: The files.
        root: Their folder; it names the cache together with the listing's name.
        split: Which of them.
        how: Size, channels and the rest.
        licence: The terms, for tables and model cards.

    Returns:
        The images, (N, C, H, W) uint8, memory-mapped.

    Raises:
        PudNetError: If a file can't be decoded (and ``how.on_error`` is ``"raise"``), or the cache can't be written.
    """

    def read(i: int) -> Pixels:
        return decode_image(listing.files[i], how.size, how.channels)

    source = IndexedSource(
        listing.name,
        str(root.resolve()),
        listing.fingerprint,
        read,
        listing.labels.tolist(),
        listing.train_count,
        listing.class_names,
        licence,
    )
    return read_source(cache_path(source.name, source.key, how), source.fingerprint, lambda: source, split, how)


def cache_path(name: str, key: str, how: Reading) -> Path:
    """Name the cache file of a source at a size."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60]
    digest = hashlib.blake2b(f"{name}\0{key}".encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
    return cache_folder(how.cache_dir) / f"{plain}-{digest}-{how.size}px-{how.channels}c.images"


def read_source(
    path: Path, fingerprint: str, opened: Callable[[], IndexedSource], split: Split, how: Reading
) -> ImageDataset:
    """Give a source's images from its cache; decode them first if there is none, or it is out of date.

    Args:
        path: The cache file.
        fingerprint: Of the source as it is now.
        opened: Opens the source; called only if its images have to be decoded.
        split: Which images.
        how: Size, channels and the rest.

    Returns:
        The images, memory-mapped.

    Raises:
        PudNetError: As ``read_listing``.
    """
    cached = read_cache(path, fingerprint)
    if cached is None or (cached[1]["skipped"] and how.on_error == "raise"):
        source = opened()
        decode_to_cache(source, path, how)
        cached = read_cache(path, source.fingerprint)
    if cached is None:
        raise PudNetError(f"The cache {path} could not be read back after it was written; check the disk.")
    images, facts = cached
    if facts["skipped"]:
        first = facts["skipped"][0]
        text = f"{facts['name']}: {len(facts['skipped'])} files could not be decoded and are left out; first: {first}"
        warnings.warn(text, stacklevel=4)
    return _take(images, facts, split)


def _take(images: Tensor, facts: dict[str, Any], split: Split) -> ImageDataset:
    border, count = facts["train_count"], len(images)
    part = {"train": slice(0, border), "test": slice(border, count), "all": slice(0, count)}[split]
    return ImageDataset(
        images[part],
        torch.tensor(facts["labels"], dtype=torch.int64)[part],
        tuple(facts["class_names"]),
        facts["name"],
        torch.arange(count)[part],
        facts["licence"],
    )


def decode_to_cache(source: IndexedSource, path: Path, how: Reading) -> None:
    """Decode all images of a source into a cache file.

    Args:
        source: The source.
        path: The file.
        how: Size, channels, progress, what to do about bad files.

    Raises:
        PudNetError: If an image is bad and ``how.on_error`` is ``"raise"``; if skipping leaves a class without training
            or test images; if the file can't be written. Nothing stays behind.
    """
    kept: list[int] = []
    skipped: list[str] = []

    def rows() -> Iterator[Pixels]:
        results = in_parallel(source.read, len(source.labels))
        shown = tqdm(
            results,
            desc=f"Reading {source.name}",
            total=len(source.labels),
            unit="image",
            disable=not how.progress,
            leave=False,
        )
        for i, result in enumerate(shown):
            if isinstance(result, PudNetError):
                if how.on_error == "raise":
                    raise result
                skipped.append(str(result))
            else:
                kept.append(i)
                yield result
        _no_class_lost(source, kept, skipped)

    def describe() -> dict[str, Any]:
        return {
            "name": source.name,
            "fingerprint": source.fingerprint,
            "labels": [int(source.labels[i]) for i in kept],
            "train_count": sum(i < source.train_count for i in kept),
            "class_names": list(source.class_names),
            "licence": source.licence,
            "skipped": skipped,
        }

    with quiet_bombs():
        write_cache(path, rows(), (how.channels, how.size, how.size), describe)


def _no_class_lost(source: IndexedSource, kept: Sequence[int], skipped: Sequence[str]) -> None:
    """Refuse to leave a class that had training or test images without any."""
    left = {(source.labels[i], i < source.train_count) for i in kept}
    lost = sorted({(label, i < source.train_count) for i, label in enumerate(source.labels)} - left)
    if lost:
        label, is_training = lost[0]
        raise PudNetError(
            f"{source.name}: of the class {source.class_names[label]!r} no {'training' if is_training else 'test'} "
            f"image could be decoded ({len(skipped)} files skipped; first: {skipped[0]})"
        )


def in_parallel(
    read: Callable[[int], Pixels], count: int, workers: int = _WORKERS, chunk: int = _CHUNK
) -> Iterator[Pixels | PudNetError]:
    """Call ``read`` on 0..count-1 in threads.

    Args:
        read: Reads an image, or raises PudNetError.
        count: N.
        workers: Threads.
        chunk: Images a task.

    Yields:
        Results in order, errors as values. Only a few chunks are ever held.
    """

    def task(start: int) -> list[Pixels | PudNetError]:
        results: list[Pixels | PudNetError] = []
        for i in range(start, min(start + chunk, count)):
            try:
                results.append(read(i))
            except PudNetError as error:
                results.append(error)
        return results

    starts = iter(range(0, count, chunk))
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[list[Pixels | PudNetError]]] = deque()
        try:
            waiting.extend(pool.submit(task, s) for s in islice(starts, 2 * workers))
            while waiting:
                done = waiting.popleft().result()
                waiting.extend(pool.submit(task, s) for s in islice(starts, 1))
                yield from done
        finally:
            for future in waiting:
                future.cancel()
