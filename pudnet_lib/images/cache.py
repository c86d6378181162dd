"""Decoded images on disk: one .npy file, memory-mapped, and one JSON description for each source and size.

Our choice. Images are decoded in parallel into a partial file; a journal names the chunks that are done with a hash of
their sources and a checksum: a run that was cut anywhere decodes only what is missing or has changed. The description
is written last; others that want the set wait at a lock.
"""

import hashlib
import json
import mmap
import os
import shutil
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import platformdirs
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pudnet_lib.core import hooks
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import lock, write_atomically
from pudnet_lib.images.decode import PictureError, Pixels, quiet_bombs

_CHUNK = 64  # images that a worker decodes at once
_BLOCK = 1 << 24  # bytes a checksum covers
_COPY_ON_WRITE_LIMIT = 1 << 32  # a private mapping of more may exceed what the system lets a process reserve
_LARGE: WeakValueDictionary[int, Any] = WeakValueDictionary()  # address → memory map of a file over that limit


def cache_folder(folder: Path | str | None = None) -> Path:
    """Tell where caches go: the given folder, else ``$PUDNET_CACHE``, else the platform's cache folder."""
    return Path(folder or os.environ.get("PUDNET_CACHE") or platformdirs.user_cache_dir("pudnet", appauthor=False))


def data_folder() -> Path:
    """Tell where downloaded datasets are looked for and put: ``$PUDNET_DATA``, else ``data`` in the cache folder."""
    return Path(os.environ.get("PUDNET_DATA") or cache_folder() / "data")


def read_cache(path: Path, fingerprint: str | None) -> tuple[Tensor, dict[str, Any]] | None:
    """Open a set of decoded images by its description, ``fingerprint`` of None takes it as it is."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if fingerprint not in (None, facts["fingerprint"]):
            return None
        file = path.with_name(f"{path.stem}-{int(facts['token'], 16):08x}.npy")  # never a path that the file names
        mapped = np.lib.format.open_memmap(file, "r")
        if mapped.dtype != np.uint8 or list(mapped.shape) != facts["shape"]:
            raise ValueError("its shape is not as described")
        step, checksums = max(1, _BLOCK // mapped[0].nbytes), facts["checksums"]
        if len(checksums) != -(-len(mapped) // step):
            raise ValueError("its checksums are not as many as described")
        with file.open("rb") as opened:  # read, not mapped, so that no memory is held; 64 blocks of a file over 1 GiB
            for index in range(0, len(checksums), max(1, len(checksums) // 64)):
                opened.seek(mapped.offset + index * step * mapped[0].nbytes)
                if zlib.crc32(opened.read(step * mapped[0].nbytes)) != checksums[index]:
                    raise ValueError(f"wrong checksum of block {index}")
        if mapped.nbytes < _COPY_ON_WRITE_LIMIT:
            mapped = np.lib.format.open_memmap(file, "c")
        else:
            _LARGE[mapped.ctypes.data] = mapped
            _advise(mapped, "MADV_RANDOM")  # reading ahead of single images made an episode of 250 cost 5 s, not 0.06
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"The cache {path} is damaged ({error}); it is built anew.", stacklevel=2)
        return None
    with warnings.catch_warnings(action="ignore"):  # torch warns of read-only arrays; nothing here writes to images
        return torch.from_numpy(mapped), facts


def take(images: Tensor, rows: Tensor) -> Tensor:
    """Copy some images into memory: ``images[rows]``."""
    mapped = _LARGE.get(images.untyped_storage().data_ptr())
    if mapped is None:
        return images[rows]
    size, start = images.stride(0), mapped.offset + images.data_ptr() - mapped.ctypes.data
    for row in rows.tolist():
        begin = (start + row * size) // mmap.PAGESIZE * mmap.PAGESIZE
        _advise(mapped, "MADV_WILLNEED", begin, start + (row + 1) * size - begin)
    taken = images[rows]
    _advise(mapped, "MADV_DONTNEED")  # read-only and shared with the file: nothing can be lost
    return taken


hooks.register(take=take)  # for episodes of memory-mapped sets


def _advise(mapped: Any, advice: str, *place: int) -> None:
    if hasattr(mmap, advice):  # not on every system
        mapped._mmap.madvise(getattr(mmap, advice), *place)


@contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Wait until no other process writes this set, and turn what a disk refuses into one clear line."""
    try:
        said = f"Another process decodes {path.stem}; this one waits for it."
        with lock(path.with_name(f".{path.stem}.lock"), said, wait=True):
            yield
    except OSError as error:
        why = f"can't be cached in {path.parent} ({error.strerror or error}); what is done is kept"
        raise PudNetError(f"Decoded images {why}. Free some space there, or set PUDNET_CACHE to a folder.") from error


def fill(
    path: Path, shape: Any, read: Callable[..., Pixels], stamp: Callable[..., bytes], text: str = "", workers: int = 0
) -> tuple[Path, dict[int, str]]:
    """Decode all N images of a set into its partial file; what an earlier run has done is kept."""
    partial, journal = (path.with_name(f".{path.stem}.{kind}") for kind in ("partial", "journal"))
    count, row, digests = shape[0], int(np.prod(shape[1:])), repr(shape).encode()
    there = getattr(partial.stat(), "st_blocks", 0) * 512 if partial.is_file() else 0  # of a sparse file
    free = shutil.disk_usage(path.parent).free
    if count * row - there > free:
        left, need = f"{free / 1e9:.1f} GB left", f"{path.stem} needs {(count * row - there) / 1e9:.1f} GB more"
        raise PudNetError(f"{path.parent} has {left}; {need}. Free some, or set PUDNET_CACHE to a larger disk.")
    turn, chunks = threading.Lock(), [range(k, min(k + _CHUNK, count)) for k in range(0, count, _CHUNK)]
    done: dict[int, dict[str, str]] = {}

    def digest(index: int) -> str:
        return hashlib.blake2b(digests + b"".join(map(stamp, chunks[index])), digest_size=8).hexdigest()

    def decode(index: int) -> tuple[int, str, int, dict[str, str]]:
        made, bad, block = digest(index), {}, np.zeros((len(chunks[index]), *shape[1:]), np.uint8)
        for k, i in enumerate(chunks[index]):
            try:
                block[k] = read(i)
            except PictureError as error:
                bad[str(i)] = error.why
        with turn:
            file.seek(begin + index * _CHUNK * row)
            file.write(block.tobytes())
            file.flush()
        return index, made, zlib.crc32(block.tobytes()), bad

    partial.touch()
    with partial.open("r+b") as file, journal.open("a+", encoding="utf-8", errors="replace") as log:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        begin = file.tell()
        file.truncate(begin + count * row)
        log.seek(0)
        for line in log.read().splitlines():
            with suppress(ValueError, TypeError, IndexError):  # a line that was cut off does not count
                index, made, checksum, bad = json.loads(line)
                file.seek(begin + index * _CHUNK * row)
                if made == digest(index) and checksum == zlib.crc32(file.read(len(chunks[index]) * row)):
                    done[index] = bad
        start = sum(len(chunks[index]) for index in done)
        bar = tqdm(desc=text, total=count, initial=start, unit="image", disable=not text, leave=False, delay=2)
        with quiet_bombs(), bar:
            for entry in in_parallel(decode, [i for i in range(len(chunks)) if i not in done], workers):
                log.write(f"\n{json.dumps(entry)}")  # the line before may be cut off
                log.flush()
                done[entry[0]] = entry[3]
                bar.update(len(chunks[entry[0]]))
    return partial, {int(i): why for index in sorted(done) for i, why in done[index].items()}


def in_parallel(work: Callable[[Any], Any], things: Iterable[Any], workers: int = 0) -> Iterator[Any]:
    """Call ``work`` in threads; results in order. What was not begun is left when the caller stops."""
    with ThreadPoolExecutor(workers or min(32, (os.cpu_count() or 1) + 1)) as pool:  # Pillow frees the lock
        yield from pool.map(work, things)


def finish(path: Path, partial: Path, order: npt.NDArray[np.int64], facts: dict[str, Any]) -> None:
    """Make a set of a partial file: the images of ``order``, in that order, then the description."""
    source = np.lib.format.open_memmap(partial, "r")
    shape, step, checksums = (len(order), *source.shape[1:]), max(1, _BLOCK // source[0].nbytes), []
    made, as_it_is = partial.with_suffix(".sorted"), np.array_equal(order, np.arange(len(source)))
    with partial.open("r+b") if as_it_is else made.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for begin in range(0, len(order), step):
            block = source[order[begin : begin + step]].tobytes()
            checksums.append(zlib.crc32(block))
            file.write(b"" if as_it_is else block)
        file.flush()
        os.fsync(file.fileno())
    del source
    token = os.urandom(4).hex()
    images = path.with_name(f"{path.stem}-{token}.npy")
    os.replace(partial if as_it_is else made, images)
    write_atomically(path, json.dumps(facts | {"shape": shape, "checksums": checksums, "token": token}).encode())
    old = [p for p in path.parent.glob(f"{path.stem}-????????.npy") if p != images]
    for left in (made, partial, path.with_name(f".{path.stem}.journal"), *old):
        with suppress(OSError):
            left.unlink()
