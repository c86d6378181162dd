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
from pudnet_lib.images.reading import FolderReport, OnError
from pudnet_lib.images.sources import load_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check(folder: str | Path, size: int = 32, progress: bool = False) -> FolderReport:
    """Tell what the kit understands of a folder or zip of images (or a known name), and what is odd about it.

    Args:
        folder: What ``load_images`` takes.
        size: H = W in pixels at which pictures are looked at.
        progress: Show a progress bar while decoding.

    Returns:
        Classes with counts, the split and its source, copies, blank pictures, gray levels, what was passed over.

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
        if images.report is not None:
            return images.report, images
        train, test = (load_images(folder, part, size) for part in ("train", "test"))  # type: ignore[arg-type]
    counts = dict(zip(images.class_names, images.class_counts().tolist(), strict=True))
    none = dict.fromkeys(("within_class", "across_classes", "across_split"), 0)
    levels = int(images.images.max()) - int(images.images.min()) + 1
    split = dict(source="own", train=len(train), test=len(test))
    return FolderReport(images.name, counts, split, none, 0, levels), images


def mosaic(images: ImageDataset, per_class: int = 12, classes: int = 6) -> str:
    """A dataset's line and its first images as HTML, a row for each class: what a notebook shows."""
    rows = images.indices_by_class()[:classes]
    tiles = np.full((len(rows), per_class, images.size + 2, images.images.shape[3] + 2, 3), 255, np.uint8)
    for row, ids in enumerate(rows):
        some = images.images[ids[:per_class]].expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        tiles[row, : len(some), 1:-1, 1:-1] = some.numpy()
    buffer = io.BytesIO()
    Image.fromarray(tiles.swapaxes(1, 2).reshape(len(rows) * tiles.shape[2], -1, 3)).save(buffer, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<div>{html.escape(repr(images))}</div><img alt="the first images" src="{source}">'


hooks.register(mosaic=mosaic)


def contact_sheet(images: ImageDataset, per_class: int = 10, classes: int = 8) -> Figure:
    """Draw the first images of each class as the networks see them: small, square, on white."""
    from matplotlib.figure import Figure

    rows = images.indices_by_class()[:classes]
    figure = Figure(figsize=(1.6 + 0.62 * per_class, 0.66 * len(rows) + 0.5), layout="constrained", dpi=110)
    grid = figure.subplots(len(rows), per_class, squeeze=False)
    for label, (ids, axes) in enumerate(zip(rows, grid, strict=True)):
        name = images.class_names[label]
        short = name if len(name) <= 18 else f"{name[:17]}…"
        axes[0].text(
            *(-0.25, 0.5, f"{short}\n{len(ids)}"),
            transform=axes[0].transAxes,
            ha="right",
            va="center",
            fontsize=8,
            parse_math=False,
        )
        for place, ax in enumerate(axes):
            ax.axis("off")
            if place < len(ids):
                pixels = images.images[ids[place]].permute(1, 2, 0).numpy()
                ax.imshow(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
    more = images.num_classes - len(rows)
    title = f"{images.name}: {len(images)} pictures, {images.num_classes} classes"
    figure.suptitle(f"{title}, {more} of them not shown" if more else title, fontsize=9, parse_math=False)
    return figure
