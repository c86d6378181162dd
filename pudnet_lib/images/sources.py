"""A name, a folder or a zip to an ImageDataset, and the list of all names.

Our choice; the paper names its datasets only. Names: the packs that ship with the kit, torchvision's datasets, and
datasets that have to be fetched by hand (``sources.csv``). Everything else is an image folder or a zip of one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.images.archive import unpack_zip
from pudnet_lib.images.cache import data_folder
from pudnet_lib.images.decode import to_pixels
from pudnet_lib.images.folder import Listing, readable
from pudnet_lib.images.packs import load_pack, manifest, pack_names
from pudnet_lib.images.published import scan_any
from pudnet_lib.images.reading import OnError, Reading, Split, read_folder
from pudnet_lib.images.torchvision_sources import SOURCES, SourceInfo, download_images, load_torchvision


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
    if name in pack_names():
        data = load_pack(name, "all" if split == "auto" else split)
        if data.size != size:
            resized = F.interpolate(data.images.float(), (size, size), mode="bilinear", antialias=True)
            data = replace(data, images=resized.round().clamp(0, 255).to(torch.uint8))
        return data.with_channels(channels)
    if name in SOURCES and SOURCES[name].parts and SOURCES[name].unpacked is None:
        return load_torchvision(SOURCES[name], "train" if split == "auto" else split, how)
    if Path(name).suffix.lower() == ".zip" and Path(name).expanduser().is_file():
        return load_zip(Path(name).expanduser(), split, how)
    folder, title = find_folder(name_or_folder)
    return read_folder(folder, split, how, lambda: listed(name_or_folder, split == "all"), title)


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
    skipped: list[tuple[str, str]] = []
    said: list[str] = []
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
    X: Any,  # noqa: N803  the name that scikit-learn gave it
    y: Sequence[Any],
    names: Sequence[str] | None = None,
    size: int = 32,
    channels: int = 3,
    name: str = "images",
) -> ImageDataset:
    """Make a dataset of arrays, Pillow pictures or paths of picture files."""
    if not isinstance(X, (np.ndarray, torch.Tensor)) and len(X) and isinstance(X[0], (str, Path, Image.Image)):
        X = np.stack([to_pixels(x, size, channels) for x in X])  # noqa: N806
    return ImageDataset(X, y, names, name)  # type: ignore[arg-type]


def find_folder(name_or_folder: str | Path) -> tuple[Path, str]:
    """Find the folder of a source that lies on disk as image files, and the source's name."""
    name, folder = str(name_or_folder), Path(name_or_folder).expanduser()
    known = [*pack_names(), *SOURCES]
    if name in SOURCES and not (SOURCES[name].parts and SOURCES[name].unpacked is None):
        source = SOURCES[name]
        if source.unpacked is None and source.kind == "published":
            raise PudNetError(
                f"{name} is not in {data_folder()} (looked for {source.folders.replace(';', ', ')}). To get it: "
                f"{source.how_to_get}. The environment variable PUDNET_DATA names another folder to look in."
            )
        return source.unpacked or download_images(source), name
    if folder.is_file():
        raise PudNetError(f"{folder} is a file; expected a folder of class folders or a zip of one. Unpack it first.")
    if folder.is_dir():
        plain = readable(folder.resolve().name)
        return folder, f"{plain} (folder)" if plain in known else plain
    if len(folder.parts) > 1:
        hint = " Backslashes separate folders on Windows alone; write '/'." if "\\" in name else ""
        raise PudNetError(
            f"The folder {folder} does not exist; expected a folder with one subfolder for each class.{hint}"
        )
    raise unknown_name("dataset", name, known, "Or give the path of an image folder.")


def list_sources() -> list[SourceInfo]:
    """List every source that ``load_images`` knows by name; nothing is downloaded or decoded."""
    packs = []
    for name, p in manifest().items():
        size, count = f"{p['size']} {'gray' if p['channels'] == 1 else 'RGB'}", p["train"] + p["test"]
        packs.append(SourceInfo(name, "embedded", p["classes"], count, size, p["licence"], "comes with the kit"))
    return [*packs, *SOURCES.values()]
