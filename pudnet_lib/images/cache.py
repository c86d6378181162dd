"""Decoded images on disk: one memory-mapped uint8 file a source, size and channel count.

Our choice. The file is the images (N, C, H, W), then a JSON description with labels and checksums, its length (8 bytes)
and a mark. It is written under another name and renamed when whole, so a reader never meets half of one.
"""

from __future__ import annotations

import json
import mmap
import os
import warnings
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import platformdirs
import torch
from torch import Tensor

from pudnet_lib.core import hooks
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.decode import Pixels

_MARK = b"PUDNET01"
_BLOCK = 1 << 24  # bytes a checksum covers
_CHECKED_BLOCKS = 64  # of a larger file (over 1 GiB) so many blocks are checked, evenly spaced
_COPY_ON_WRITE_LIMIT = 1 << 32  # a private mapping of more may exceed what the system lets a process reserve
_LARGE: WeakValueDictionary[int, Any] = WeakValueDictionary()  # address → memory map of a file over that limit


def cache_folder(folder: Path | str | None = None) -> Path:
    """Tell where caches go: the given folder, else ``$PUDNET_CACHE``, else the platform's cache folder."""
    return Path(folder or os.environ.get("PUDNET_CACHE") or platformdirs.user_cache_dir("pudnet", appauthor=False))


def data_folder() -> Path:
    """Tell where downloaded datasets are looked for and put: ``$PUDNET_DATA``, else ``data`` in the cache folder."""
    return Path(os.environ.get("PUDNET_DATA") or cache_folder() / "data")


def read_cache(path: Path, fingerprint: str | None) -> tuple[Tensor, dict[str, Any]] | None:
    """Open a cache file.

    Args:
        path: The file.
        fingerprint: What its description must say of the source; None takes it as it is.

    Returns:
        The images, (N, C, H, W) uint8, memory-mapped, and the description; None if the file is missing, out of date
        or damaged (then with a warning).
    """
    try:
        with path.open("rb") as file:
            facts = _description(file.seek(0, os.SEEK_END), file)
            if fingerprint not in (None, facts["fingerprint"]):
                return None
            size = facts.get("block", _BLOCK)
            for index in range(0, len(facts["checksums"]), max(1, len(facts["checksums"]) // _CHECKED_BLOCKS)):
                file.seek(index * size)
                block = file.read(min(size, facts["bytes"] - index * size))
                if zlib.crc32(block) != facts["checksums"][index]:
                    raise ValueError(f"wrong checksum of block {index}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"The cache {path} is damaged ({error}); it is built anew.", stacklevel=2)
        return None
    mode: Any = "c" if facts["bytes"] < _COPY_ON_WRITE_LIMIT else "r"
    mapped = np.memmap(path, np.uint8, mode, shape=tuple(facts["shape"]))
    if mode == "r":
        _LARGE[mapped.ctypes.data] = mapped
        _advise(mapped, "MADV_RANDOM")  # reading ahead of single images made an episode of 250 cost 5 s instead of 0.06
    with warnings.catch_warnings(action="ignore"):  # torch warns of read-only arrays; nothing here writes to images
        return torch.from_numpy(mapped), facts


def take(images: Tensor, rows: Tensor) -> Tensor:
    """Copy some images into memory: ``images[rows]``.

    Of a large mapped file they are asked for all at once, not page by page, and its pages are let go of afterwards (the
    system may keep them): a process that draws from a file of 27 GB would else hold all of it in the end.

    Args:
        images: (N, C, H, W) uint8, perhaps as ``read_cache`` gave them.
        rows: (M,) int64.

    Returns:
        (M, C, H, W) uint8.
    """
    mapped = _LARGE.get(images.data_ptr())
    if mapped is None:
        return images[rows]
    size = int(mapped[0].size)
    for row in rows.tolist():
        begin = row * size // mmap.PAGESIZE * mmap.PAGESIZE
        _advise(mapped, "MADV_WILLNEED", begin, (row + 1) * size - begin)
    taken = images[rows]
    _advise(mapped, "MADV_DONTNEED")  # read-only and shared with the file: nothing can be lost
    return taken


hooks.register(take=take)  # for episodes of memory-mapped sets


def _advise(mapped: Any, advice: str, *place: int) -> None:
    """Call madvise, where the system has it."""
    if hasattr(mmap, advice):
        mapped._mmap.madvise(getattr(mmap, advice), *place)


def _description(length: int, file: Any) -> dict[str, Any]:
    """Read the JSON at the end of a cache file."""
    file.seek(max(0, length - 16))
    end = file.read(16)
    if len(end) < 16 or end[8:] != _MARK:
        raise ValueError("its end is missing")
    json_bytes = int.from_bytes(end[:8], "little")
    if json_bytes > length - 16:
        raise ValueError("its description is cut short")
    file.seek(length - 16 - json_bytes)
    facts: dict[str, Any] = json.loads(file.read(json_bytes))
    if facts["bytes"] != length - 16 - json_bytes or facts["bytes"] != int(np.prod(facts["shape"], dtype=np.int64)):
        raise ValueError("its length is not as described")
    return facts


def ending(facts: dict[str, Any]) -> bytes:
    """Write down what follows the images: description, its length, the mark."""
    text = json.dumps(facts).encode()
    return text + len(text).to_bytes(8, "little") + _MARK


def write_cache(
    path: Path, rows: Iterable[Pixels], shape: tuple[int, int, int], describe: Callable[[], dict[str, Any]]
) -> None:
    """Write a cache file whole, or not at all.

    Args:
        path: The file; an older one is replaced.
        rows: Images (C, H, W) uint8, one at a time; never all in memory.
        shape: C, H, W.
        describe: Gives the description (JSON types) when all rows were written.

    Raises:
        PudNetError: If the folder can't be written to or the disk is full; nothing stays behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    count, checksums, block = 0, [], bytearray()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for row in rows:
                block += row.tobytes()
                count += 1
                while len(block) >= _BLOCK:
                    checksums.append(zlib.crc32(block[:_BLOCK]))
                    file.write(block[:_BLOCK])
                    del block[:_BLOCK]
            if block:
                checksums.append(zlib.crc32(block))
                file.write(block)
            facts = describe()
            facts |= {"shape": [count, *shape], "bytes": count * int(np.prod(shape)), "checksums": checksums}
            file.write(ending(facts))
        os.replace(partial, path)
    except OSError as error:
        raise PudNetError(
            f"Decoded images can't be cached in {path.parent} ({error.strerror or error}). Free some space there, or "
            "set the environment variable PUDNET_CACHE (or cache_dir=) to a folder that can be written to."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
