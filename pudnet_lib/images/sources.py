"""A name, a folder or a zip to an ImageDataset; the list of all names; what was understood, in words and as a picture.

Our choice; the paper names its datasets only. What is no name of ``sources.csv`` is an image folder or a zip of one.
"""

# ruff: noqa: N803  (X is the name that scikit-learn gave it)
import base64
import html
import io
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from pudnet_lib.core import hooks
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.images.archive import unpack_zip
from pudnet_lib.images.cache import data_folder
from pudnet_lib.images.decode import Pixels, to_pixels
from pudnet_lib.images.folder import Listing, readable
from pudnet_lib.images.named import SOURCES, download_images, load_pack, load_torchvision, scan_any
from pudnet_lib.images.reading import FolderReport, OnError, Reading, Split, read_folder


def load_images(
    name_or_folder: str | Path,
    split: Split = "train",
    size: int = 32,
    channels: int = 3,
    progress: bool = True,
    cache_dir: Path | str | None = None,
    on_error: OnError = "skip",
) -> ImageDataset:
    """Load images by name, from a folder or a zip, as (N, C, H, W) uint8; decoded once, memory-mapped ever after.

    What was noticed (copies, blank pictures, files passed over, …) comes as one warning each and, with counts, as the
    dataset's ``report``; ``pudnet check FOLDER`` shows it before anything is predicted. Equal pictures are one item.

    Args:
        name_or_folder: One of ``list_sources()``, or a folder or zip of class folders (or of ``train/`` and ``test/``
            with them). A name is taken before a folder of that name: write ``./emoji`` for a folder here.
        split: ``"train"`` or ``"test"``: the folder's own parts, else a fifth of every class is for testing, always the
            same. ``"all"`` takes both. ``"auto"``, for predicting: the training part of an own split, else all.
        size: H = W in pixels; the short side is resized and the middle square kept.
        channels: C, 1 (gray) or 3 (RGB).
        progress: Show a progress bar while decoding.
        cache_dir: Where decoded images are kept; by default ``$PUDNET_CACHE``, else the platform's cache folder.
        on_error: A picture that is damaged: ``"skip"`` leaves it out with a warning; ``"raise"`` names it in an error.

    Raises:
        PudNetError: If the name or folder does not exist, holds fewer than two classes or parts of which none is
            clearly for training; if a class has nothing that can be decoded; if a download or the cache fails.
    """
    name, how = str(name_or_folder), Reading(size, channels, progress, cache_dir, on_error)
    if split not in get_args(Split):
        raise unknown_name("split", str(split), get_args(Split))
    source, own = SOURCES.get(name), "train" if split == "auto" else split
    if source and source.kind == "embedded":
        return load_pack(name, own).at_size(size).with_channels(channels)
    if source and source.parts and not source.unpacked:  # torchvision's class reads it
        return load_torchvision(source, own, how)
    if Path(name).suffix.lower() == ".zip" and Path(name).expanduser().is_file():
        return load_zip(Path(name).expanduser(), split, how)
    folder, title = find_folder(name_or_folder)
    return read_folder(folder, split, how, lambda: listed(name_or_folder, split == "all"), title)


def load_quietly(*what: Any, **how: Any) -> ImageDataset:
    """``load_images`` for a caller who shows the report, which says what the warnings say."""
    with warnings.catch_warnings(action="ignore"):
        return load_images(*what, **how)


def listed(name_or_folder: str | Path, merge: bool = False) -> Listing:
    """List the files of a source that lies on disk as image files."""
    folder, title = find_folder(name_or_folder)
    name = str(name_or_folder)
    if name in SOURCES:
        return replace(scan_any(folder, title), licence=SOURCES[name].licence, published=True)
    return scan_any(folder, title, readable(name), merge)


def load_zip(source: Path | bytes, split: Split = "auto", how: Reading | None = None) -> ImageDataset:
    """Load a zip of an image folder, a file or its bytes; nothing of it stays on the disk."""
    name = "the zip" if isinstance(source, bytes) else readable(str(source))
    skipped, said = list[tuple[str, str]](), list[str]()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "images"
        try:
            unpack_zip(source, root, name=name, skipped=skipped, said=said)
            listing = scan_any(root, Path(name).stem, name, split == "all")
            listing = replace(listing, skipped=(*skipped, *listing.skipped), warnings=(*said, *listing.warnings))
            how = replace(how or Reading(progress=False), cache_dir=Path(place) / "cache")
            data = read_folder(listing.root, split, how, lambda: listing, listing.name)
        except PudNetError as error:
            raise PudNetError(str(error).replace(str(root), name)) from error
        return replace(data, images=data.images.clone())  # the memory map goes with the folder


def as_dataset(
    X: Any, y: Any, names: Sequence[str] | None = None, size: int = 32, channels: int = 3, name: str = "images"
) -> ImageDataset:
    """Make a dataset of arrays, Pillow pictures or paths of picture files, and their labels as numbers or names."""
    import pandas as pd

    if any(pd.isna(label) for label in y):
        raise PudNetError(f"{name}: labels are missing (None or NaN); leave those pictures out.")
    if not isinstance(X, (np.ndarray, torch.Tensor)) and len(X) and isinstance(X[0], (str, Path, Image.Image)):
        return ImageDataset(np.stack([to_pixels(x, size, channels) for x in X]), y, names, name)  # type: ignore[arg-type]
    return ImageDataset(X, y, names, name)  # type: ignore[arg-type]


def find_folder(name_or_folder: str | Path) -> tuple[Path, str]:
    """Find the folder of a source that lies on disk as image files, and the source's name."""
    name, folder = str(name_or_folder), Path(name_or_folder).expanduser()
    source = SOURCES.get(name)
    if source and source.folders and (source.unpacked or not source.parts):
        if source.unpacked is None and source.kind == "published":
            looked = f"{name} is not in {data_folder()} (looked for {source.folders.replace(';', ', ')})"
            raise PudNetError(f"{looked}. To get it: {source.how_to_get}. PUDNET_DATA names another folder to look in.")
        return source.unpacked or download_images(source), name
    if folder.is_file():
        raise PudNetError(f"{folder} is a file; expected a folder of class folders or a zip of one. Unpack it first.")
    if folder.is_dir():
        plain = readable(folder.resolve().name)
        return folder, f"{plain} (folder)" if plain in SOURCES else plain
    if len(folder.parts) > 1:
        hint = " Backslashes separate folders on Windows alone; write '/'." if "\\" in name else ""
        raise PudNetError(f"The folder {folder} does not exist; expected one with a subfolder for each class.{hint}")
    raise unknown_name("dataset", name, SOURCES, "Or give the path of an image folder.")


def check(folder: str | Path, size: int = 32, progress: bool = False) -> FolderReport:
    """Tell what the kit understands of images before anything is predicted, and what is odd about them.

    Args:
        folder: What ``load_images`` takes (and refuses in the same way): a folder or zip of images, or a known name.
        size: H = W in pixels at which pictures are looked at.
        progress: Show a progress bar while decoding.
    """
    return checked(folder, size, progress, "skip")[0]


def checked(folder: str | Path, size: int, progress: bool, on_error: OnError) -> tuple[FolderReport, ImageDataset]:
    """The report of ``check`` and the images that it is of."""
    images = load_quietly(folder, "auto", size, progress=progress, on_error=on_error)
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


def contact_sheet(images: ImageDataset, per_class: int = 10, classes: int = 8) -> Any:
    """Draw the first images of each class as the networks see them (small, square, on white) into a figure."""
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
