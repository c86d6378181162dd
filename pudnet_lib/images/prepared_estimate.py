"""What preparing a large image folder will take, from decoding a few of its images. Our choice."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import numpy as np

from pudnet_lib.images.decode import Pixels, decode_image, quiet_bombs
from pudnet_lib.images.folder import Listing
from pudnet_lib.images.reading import Reading, in_parallel

#: Threads that decode: one more than there are cores.
WORKERS = (os.cpu_count() or 1) + 1


class Estimate(NamedTuple):
    """What preparing a source will take: images, bytes on disk, seconds."""

    images: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        hours, minutes = divmod(round(self.seconds / 60), 60)
        return f"{self.images:,} images, {self.bytes / 1e9:.2f} GB, about {hours} h {minutes:02d} min"


def estimate(listing: Listing, how: Reading, workers: int = 0, sample: int = 64) -> Estimate:
    """Time the decoding of a few images, evenly spaced, and scale up.

    Args:
        listing: The files.
        how: Size and channels.
        workers: Threads; 0 for one more than there are cores.
        sample: Images to decode.

    Returns:
        What preparing takes.
    """
    count = len(listing.files)
    chosen = [listing.files[i] for i in np.linspace(0, count - 1, min(sample, count)).astype(int)]
    began = time.perf_counter()

    def read(i: int) -> Pixels:
        return decode_image(chosen[i], how.size, how.channels)

    with quiet_bombs():
        for _ in in_parallel(read, len(chosen), workers or WORKERS, chunk=4):
            pass
    seconds = (time.perf_counter() - began) * count / len(chosen)
    return Estimate(count, count * how.channels * how.size**2, seconds)
