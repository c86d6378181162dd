"""Large image folders prepared once: one memory-mapped uint8 file a split and size, written in parallel, resumable.

Our choice; the paper does not say how it reads ImageNet-1K. The file is that of ``cache.py``. Here it is filled in
chunks of whole images at their final places, and a journal beside it names the chunks that are done, each with its
checksum and a hash of its source files: a run that was cut anywhere decodes only what is missing or has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.cache import ending, read_cache
from pudnet_lib.images.decode import DECODE_VERSION, decode_image, quiet_bombs
from pudnet_lib.images.folder import Listing
from pudnet_lib.images.prepared_estimate import WORKERS
from pudnet_lib.images.reading import Reading, Split, cache_path

SPLITS: tuple[Split, Split] = ("train", "test")
_CHUNK = 1 << 22  # bytes: what a worker holds, what a checksum covers
_JOURNAL_EVERY = 2.0  # seconds: what a power cut may cost


class _Done(NamedTuple):
    """A chunk that stands in the file; ``error`` is that of its first bad image, None if it is good."""

    digest: str
    checksum: int
    images: int
    error: PudNetError | None


@dataclass(frozen=True)
class _Part:
    """One file to be: the images of one split."""

    path: Path
    files: tuple[str, ...]
    how: Reading

    @property
    def row(self) -> int:
        """Bytes an image."""
        return self.how.channels * self.how.size**2

    @property
    def per_chunk(self) -> int:
        """Images a chunk."""
        return max(1, _CHUNK // self.row)

    def chunk(self, index: int) -> tuple[str, ...]:
        """The files of a chunk."""
        return self.files[index * self.per_chunk : (index + 1) * self.per_chunk]

    def digest(self, index: int) -> str:
        """Hash paths, sizes and modification times of a chunk's files."""
        total = hashlib.blake2b(repr(DECODE_VERSION).encode(), digest_size=8)
        for file in self.chunk(index):
            stat = os.stat(file)
            total.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return total.hexdigest()


def prepared_path(name: str, root: Path, split: Split, how: Reading) -> Path:
    """Name the prepared file of a split at a size."""
    whole = cache_path(name, str(root.resolve()), how)
    return whole.with_name(f"{whole.stem}-{split}.images")


def prepare(
    listing: Listing, root: Path, how: Reading, licence: str = "unknown", workers: int = 0
) -> tuple[Path, Path]:
    """Write the prepared files of a source, training and test images; what an earlier run has done is kept.

    Args:
        listing: The files.
        root: Their folder.
        how: Size, channels, progress, cache folder.
        licence: The terms, for tables and model cards.
        workers: Threads; 0 for one more than there are cores.

    Returns:
        The two files.

    Raises:
        PudNetError: If images can't be decoded (all others are done by then), or the disk is too small.
    """
    border = listing.train_count
    stamps = {folder: os.stat(folder).st_mtime_ns for folder in sorted({os.path.dirname(f) for f in listing.files})}
    paths = []
    for split, part in zip(SPLITS, (slice(0, border), slice(border, None)), strict=True):
        path = prepared_path(listing.name, root, split, how)
        facts = {
            "name": listing.name,
            "fingerprint": f"{listing.fingerprint}-{split}",
            "labels": listing.labels[part].tolist(),
            "class_names": list(listing.class_names),
            "licence": licence,
            "folders": stamps,
            "skipped": [],
        }
        if not path.is_file() or read_cache(path, f"{listing.fingerprint}-{split}") is None:
            _fill(_Part(path, listing.files[part], how), facts, workers or WORKERS)
        paths.append(path)
    return paths[0], paths[1]


def _fill(part: _Part, facts: dict[str, Any], workers: int) -> None:
    """Write one file: the chunks that are missing, then the description, then its name."""
    partial, journal = (part.path.with_name(f".{part.path.name}.{kind}") for kind in ("partial", "journal"))
    total, chunks = len(part.files) * part.row, -(-len(part.files) // part.per_chunk)
    try:
        part.path.parent.mkdir(parents=True, exist_ok=True)
        free, there = shutil.disk_usage(part.path.parent).free, _allocated(partial)
        if total - there > free:
            raise PudNetError(
                f"{part.path.parent} has {free / 1e9:.1f} GB left; {part.path.name} needs {(total - there) / 1e9:.1f} "
                "GB more. Free some, or set PUDNET_CACHE to a folder on a larger disk."
            )
        known = _read_journal(journal) if partial.is_file() else {}
        done = {i: known[i] for i in range(chunks) if i in known and known[i].digest == part.digest(i)}
        with partial.open("r+b" if partial.is_file() else "w+b") as file, journal.open("a") as log:
            file.truncate(total)
            bad = _fill_chunks(part, file, log, done, [i for i in range(chunks) if i not in done], workers)
            if bad:
                first = str(bad[0]).partition(" Repair ")[0]
                raise PudNetError(
                    f"{len(bad)} or more images of {facts['name']} can't be decoded; first: {first} All other chunks "
                    "are done: repair or replace the file and run the same command again."
                )
            checksums = [done[i].checksum for i in range(chunks)]
            shape = [len(part.files), part.how.channels, part.how.size, part.how.size]
            file.seek(total)
            file.write(
                ending(
                    facts | {"shape": shape, "bytes": total, "checksums": checksums, "block": part.per_chunk * part.row}
                )
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, part.path)
        journal.unlink()
    except OSError as error:
        raise PudNetError(
            f"{part.path} can't be written ({error.strerror or error}). What is done is kept; free some space, or set "
            "PUDNET_CACHE to a folder that can be written to, and run the same command again."
        ) from error


def _fill_chunks(
    part: _Part, file: BinaryIO, log: Any, done: dict[int, _Done], missing: list[int], workers: int
) -> list[PudNetError]:
    """Decode the missing chunks side by side; ``done`` and the journal grow. Returns the errors of bad images."""
    turn = threading.Lock()
    fresh: dict[int, _Done] = {}
    bad: list[PudNetError] = []

    def keep() -> None:
        with turn:
            file.flush()
        os.fsync(file.fileno())  # the images first: a chunk in the journal stands on the disk
        log.writelines(f"{i} {d.digest} {d.checksum} {d.images}\n" for i, d in fresh.items())
        log.flush()
        fresh.clear()

    start, kept_at = sum(d.images for d in done.values()), time.monotonic()
    bar = tqdm(desc=part.path.name, total=len(part.files), initial=start, unit="image", disable=not part.how.progress)
    with quiet_bombs(), bar:
        try:
            for index, result in _in_order(part, file, turn, missing, workers):
                if result.error is not None:
                    bad.append(result.error)
                else:
                    done[index] = fresh[index] = result
                bar.update(result.images)
                if time.monotonic() - kept_at > _JOURNAL_EVERY:
                    keep()
                    kept_at = time.monotonic()
        finally:  # also on Ctrl-C
            keep()
    return bad


def _in_order(
    part: _Part, file: BinaryIO, turn: threading.Lock, missing: list[int], workers: int
) -> Iterator[tuple[int, _Done]]:
    """Run the chunks in threads, a few ahead of the one that is waited for."""
    indices = iter(missing)
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[tuple[int, Future[_Done]]] = deque()
        try:
            waiting.extend((i, pool.submit(_decode_chunk, part, file, turn, i)) for i in islice(indices, 2 * workers))
            while waiting:
                index, future = waiting.popleft()
                yield index, future.result()
                waiting.extend((i, pool.submit(_decode_chunk, part, file, turn, i)) for i in islice(indices, 1))
        finally:
            for _, future in waiting:
                future.cancel()


def _decode_chunk(part: _Part, file: BinaryIO, turn: threading.Lock, index: int) -> _Done:
    files, digest = part.chunk(index), part.digest(index)
    block = np.empty((len(files), part.how.channels, part.how.size, part.how.size), np.uint8)
    for i, name in enumerate(files):
        try:
            block[i] = decode_image(name, part.how.size, part.how.channels)
        except PudNetError as error:
            return _Done(digest, 0, len(files), error)
    content = block.tobytes()
    with turn:
        file.seek(index * part.per_chunk * part.row)
        file.write(content)
    return _Done(digest, zlib.crc32(content), len(files), None)


def _allocated(path: Path) -> int:
    """Bytes that a sparse file takes on the disk."""
    return getattr(path.stat(), "st_blocks", 0) * 512 if path.is_file() else 0


def _read_journal(path: Path) -> dict[int, _Done]:
    """Read the chunks that are done; a line that was cut off does not count."""
    if not path.is_file():
        return {}
    lines = (line.split() for line in path.read_text().splitlines(keepends=True) if line.endswith("\n"))
    return {int(i): _Done(digest, int(checksum), int(n), None) for i, digest, checksum, n in lines}


def open_prepared(name: str, root: Path, split: Split, how: Reading) -> ImageDataset | None:
    """Open a prepared file; images stay on disk until they are indexed.

    The single files are not looked at again, only whether a folder has got or lost one since.

    Args:
        name: The source's name.
        root: Its folder.
        split: Which images.
        how: Size, channels, cache folder.

    Returns:
        The images, (N, C, H, W) uint8, memory-mapped; None if there is no such file.

    Raises:
        PudNetError: If the folder has changed since, or all images are asked for at once.
    """
    path = prepared_path(name, root, SPLITS[0] if split == "all" else split, how)
    if not path.is_file():
        return None
    if split == "all":
        raise PudNetError(f"{name} is prepared as one file a split; ask for split='train' or 'test', not 'all'.")
    cached = read_cache(path, None)
    if cached is None:
        raise PudNetError(f"{path} is damaged; run `pudnet prepare` again.")
    images, facts = cached
    for folder, stamp in facts["folders"].items():
        if not os.path.isdir(folder) or os.stat(folder).st_mtime_ns != stamp:
            raise PudNetError(
                f"{folder} has changed since {path.name} was made of it; run `pudnet prepare` again, or delete {path}."
            )
    labels = torch.tensor(facts["labels"], dtype=torch.int64)
    return ImageDataset(images, labels, tuple(facts["class_names"]), facts["name"], licence=facts["licence"])
