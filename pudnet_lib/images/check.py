"""What the kit understood of a folder of images, before anything is predicted: a report and a contact sheet."""

from __future__ import annotations

import base64
import html
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pudnet_lib.core import hooks
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.images.decode import Pixels
from pudnet_lib.images.reading import FolderReport, OnError
from pudnet_lib.images.sources import load_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check(folder: str | Path, size: int = 32, progress: bool = False) -> FolderReport:
    """Tell what the kit understands of images before anything is predicted, and what is odd about them.

    Args:
        folder: What ``load_images`` takes: a folder or zip of images, or a known name.
        size: H = W in pixels at which pictures are looked at.
        progress: Show a progress bar while decoding.

    Raises:
        PudNetError: If it can't be used; see ``load_images``.
    """
    return checked(folder, size, progress)[0]


def checked(
    folder: str | Path, size: int = 32, progress: bool = False, on_error: OnError = "skip"
) -> tuple[FolderReport, ImageDataset]:
    """The report of ``check`` and the images that it is of."""
    with warnings.catch_warnings(action="ignore"):  # the report says the same
        images = load_images(folder, "auto", size, progress=progress, on_error=on_error)
    return images.report, images


def _tiles(images: ImageDataset, per_class: int, classes: int) -> Pixels:
    """The first images of the first classes, a row for each class, (H, W, 3), with white between them."""
    rows = images.indices_by_class()[:classes]
    tiles = np.full((len(rows), per_class, images.size + 2, images.images.shape[3] + 2, 3), 255, np.uint8)
    for row, ids in enumerate(rows):
        some = images.images[ids[:per_class]].expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        tiles[row, : len(some), 1:-1, 1:-1] = some.numpy()
    return tiles.swapaxes(1, 2).reshape(len(rows) * tiles.shape[2], -1, 3)


def mosaic(images: ImageDataset) -> str:
    """A dataset's line and its first images as HTML: what a notebook shows."""
    buffer = io.BytesIO()
    Image.fromarray(_tiles(images, 12, 6)).save(buffer, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<div>{html.escape(repr(images))}</div><img alt="the first images" src="{source}">'


hooks.register(mosaic=mosaic)


def contact_sheet(images: ImageDataset, per_class: int = 10, classes: int = 8) -> Figure:
    """Draw the first images of each class as the networks see them: small, square, on white."""
    from matplotlib.figure import Figure

    names, counts = images.class_names[:classes], images.class_counts().tolist()
    figure = Figure(figsize=(1.6 + 0.62 * per_class, 0.66 * len(names) + 0.5), layout="compressed", dpi=110)
    ax = figure.subplots()
    ax.imshow(_tiles(images, per_class, classes))
    ax.spines[:].set_visible(False)
    labels = [f"{n if len(n) <= 18 else f'{n[:17]}…'}\n{count}" for n, count in zip(names, counts, strict=False)]
    ax.set_yticks((np.arange(len(names)) + 0.5) * (images.size + 2), labels, fontsize=8, parse_math=False)
    ax.set_xticks([])
    ax.tick_params(length=0)
    more = images.num_classes - len(names)
    title = f"{images.name}: {len(images)} pictures, {images.num_classes} classes"
    figure.suptitle(f"{title}, {more} of them not shown" if more else title, fontsize=9, parse_math=False)
    return figure
