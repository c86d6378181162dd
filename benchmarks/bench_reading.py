"""Reading 30,000 32-pixel images: the kit, first and second time, against DataLoader + ImageFolder with 2 workers.

The images are those of the embedded packs, written to a folder as PNG files; or of the folder in $PUDNET_BENCH_IMAGES.
Every side delivers the same batches of uint8 tensors; the first time includes decoding and writing the cache.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timing import row
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from pudnet_lib.images import load_images

IMAGES, SIZE, BATCH, REPEATS = 30_000, 32, 256, 3


def write_folder(folder: Path, count: int = IMAGES) -> None:
    """Write images of the embedded packs as PNG files in class folders, some of them twice to reach the count."""
    packs = [load_images(name, "all", SIZE) for name in ("emoji", "fashion", "glyphs")]
    written = 0
    while written < count:
        for pack in packs:
            for image, label in zip(pack.images[: count - written], pack.labels.tolist(), strict=False):
                place = folder / f"{pack.name}{label:03d}"
                place.mkdir(exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{written:06d}.png")
                written += 1


def read_with_kit(folder: Path, cache: Path) -> int:
    """Read all images in batches; returns the sum of all pixels, so that every byte is touched."""
    images = load_images(folder, "all", SIZE, progress=False, cache_dir=cache).images
    return sum(int(batch.sum()) for batch in images.split(BATCH))


def read_with_dataloader(folder: Path) -> int:
    """The usual way, with the same resizing and the same batches."""
    steps = Compose([Resize(SIZE), CenterCrop(SIZE), PILToTensor()])
    loader = DataLoader(ImageFolder(str(folder), steps), batch_size=BATCH, num_workers=2)
    return sum(int(images.sum()) for images, _ in loader)


def seconds(call: Callable[[], int], expected: list[int]) -> float:
    """Time a call and hold its result against that of the others."""
    began = time.perf_counter()
    result = call()
    elapsed = time.perf_counter() - began
    expected.append(result)
    if result != expected[0]:
        raise RuntimeError(f"the two sides read different pixels: {result} and {expected[0]}")
    return elapsed


def run() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        given = os.environ.get("PUDNET_BENCH_IMAGES")
        folder = Path(given) if given else Path(scratch) / "images"
        if not given:
            folder.mkdir()
            write_folder(folder)
        first, second, rival = [], [], []
        sums: list[int] = []
        for repeat in range(REPEATS):
            cache = Path(scratch) / f"cache{repeat}"
            rival.append(seconds(lambda: read_with_dataloader(folder), sums))
            first.append(seconds(lambda cache=cache: read_with_kit(folder, cache), sums))
            second.append(seconds(lambda cache=cache: read_with_kit(folder, cache), sums))
    name, usual = f"reading {IMAGES:,} images of {SIZE} pixels", "DataLoader + ImageFolder, 2 workers"
    return [
        row(f"{name}, second time", np.array(second), usual, np.array(rival), goal=10, at_most=False),
        row(f"{name}, first time", np.array(first), usual, np.array(rival), goal=None, at_most=False),
    ]


if __name__ == "__main__":
    for result in run():
        print(result)
