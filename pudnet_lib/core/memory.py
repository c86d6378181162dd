"""Memory kept between training steps: freed blocks go back to the program, not to the operating system. Our choice.

A step's activations are tens of MB, allocated and freed again in every step. GNU's C library returns such blocks to the
operating system, which hands out zeroed pages anew: a page fault every 4 kB, about a third of a step's time (32,000
faults in a step of ConvNet-3 of width 64 on 100 images; docs/speed.md). While training, the library shall keep them.
"""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# <malloc.h>: what may be tuned. A block larger than MMAP_THRESHOLD (at most 32 MiB) is mapped by itself and unmapped
# when freed; free memory beyond TRIM_THRESHOLD at the heap's end is given back.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEEP = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
# The thresholds that the library itself arrives at after it has freed a large block.
_USUAL = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 2**10}

_lock = threading.Lock()
_depth = 0


@cache
def _glibc() -> ctypes.CDLL | None:
    """GNU's C library, if this program runs on it."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory within the process while the block runs; give it back at its end.

    Also a decorator: ``@kept_memory()``. Blocks may be nested. Where the C library is another one than GNU's (macOS,
    Windows, Alpine), the block runs as it is: those allocators keep large blocks by themselves or can't be told to.
    """
    library = _glibc()
    if library is None:
        yield
        return
    global _depth
    with _lock:
        _depth += 1
        if _depth == 1:
            _tune(library, _KEEP)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _tune(library, _USUAL)
                library.malloc_trim(0)


def _tune(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        library.mallopt(parameter, value)
