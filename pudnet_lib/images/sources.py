"""A name or a folder to an ImageDataset, and the list of all names.

Our choice; the paper names its datasets only. Names: the packs that ship with the kit, torchvision's datasets, and
datasets that have to be fetched by hand (``PUBLISHED``). Everything else is an image folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.images.cache import data_folder
from pudnet_lib.images.packs import load_pack, manifest, pack_names
from pudnet_lib.images.prepared import open_prepared
from pudnet_lib.images.published import scan_any
from pudnet_lib.images.reading import OnError, Reading, Split, read_listing
from pudnet_lib.images.torchvision_sources import TORCHVISION, has_local_copy, load_torchvision, unpacked_copy


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source, as ``pudnet datasets`` shows it.

    Attributes:
        name: What ``load_images`` takes.
        kind: ``"embedded"``, ``"torchvision"`` or ``"published"``.
        classes: K.
        images: All images, training and test.
        size: Pixels and colours, as text.
        licence: The terms.
        place: Where it is looked for.
        available: Whether it is there.
        how_to_get: What to do where it isn't.
    """

    name: str
    kind: str
    classes: int
    images: int
    size: str
    licence: str
    place: str
    available: bool
    how_to_get: str


@dataclass(frozen=True)
class PublishedSource:
    """A dataset that is fetched by hand: the folder names it goes by, and what is known of it."""

    folders: tuple[str, ...]
    classes: int
    images: int
    size: str
    licence: str
    how_to_get: str


PUBLISHED = {
    "tiny-imagenet": PublishedSource(
        ("tiny-imagenet-200", "tiny-imagenet"),
        200,
        110_000,
        "64 RGB",
        "ImageNet terms: research only",
        "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
    "animals10": PublishedSource(
        ("animals10", "animals-10", "Animals-10"),
        10,
        26_179,
        "mixed RGB",
        "GPL-2.0 (Kaggle)",
        "unpack kaggle.com/datasets/alessiocorrado99/animals10 (the folder that holds raw-img)",
    ),
    "cub200": PublishedSource(
        ("CUB_200_2011", "cub200"),
        200,
        11_788,
        "mixed RGB",
        "research only",
        "unpack CUB_200_2011.tgz from data.caltech.edu/records/65de6-vp158",
    ),
    "imagenet": PublishedSource(
        ("imagenet", "ImageNet", "ILSVRC/Data/CLS-LOC"),
        1000,
        1_331_167,
        "mixed RGB",
        "ImageNet terms: research only",
        "register at image-net.org; train/ and val/ of class folders, as torchvision's ImageNet makes them",
    ),
}


def load_images(
    name_or_folder: str | Path,
    split: Split = "train",
    size: int = 32,
    channels: int = 3,
    progress: bool = True,
    cache_dir: Path | str | None = None,
    on_error: OnError = "raise",
) -> ImageDataset:
    """Load images by name or from a folder; decoded once, memory-mapped ever after.

    Args:
        name_or_folder: One of ``list_sources()``, or a folder of class folders (or of ``train/`` and ``test/`` with
            them). A name is taken before a folder of that name: write ``./emoji`` for a folder here.
        split: ``"train"``, ``"test"`` or ``"all"``. A folder without its own split has a fifth of every class for
            testing, always the same.
        size: H = W in pixels; the short side is resized and the middle square kept.
        channels: C, 1 (gray) or 3 (RGB).
        progress: Show a progress bar while decoding.
        cache_dir: Where decoded images are kept; by default ``$PUDNET_CACHE``, else the platform's cache folder.
        on_error: A file that is no image or damaged: ``"raise"`` names it in an error; ``"skip"`` leaves such files out
            and warns with their number.

    Returns:
        The images, (N, C, H, W) uint8.

    Raises:
        PudNetError: If the name or folder does not exist, holds fewer than two classes, has a class with a single
            image, or a file can't be decoded; if a download or the cache fails.
    """
    name = str(name_or_folder)
    if split not in ("train", "test", "all"):
        raise unknown_name("split", str(split), ["train", "test", "all"])
    how = Reading(size, channels, progress, cache_dir, on_error)
    if name in pack_names():
        return _resized(load_pack(name, split), size).with_channels(channels)
    if name in TORCHVISION:
        return load_torchvision(name, split, how)
    folder, shown, licence = find_folder(name_or_folder)
    prepared = open_prepared(shown, folder, split, how)
    return prepared or read_listing(scan_any(folder, shown), folder, split, how, licence)


def find_folder(name_or_folder: str | Path) -> tuple[Path, str, str]:
    """Find the folder of a source that lies on disk as image files.

    Args:
        name_or_folder: One of ``PUBLISHED``, or a folder.

    Returns:
        The folder, the source's name, its licence.

    Raises:
        PudNetError: If there is no such folder.
    """
    name = str(name_or_folder)
    if name in PUBLISHED:
        found = _published_folder(name)
        if found is None:
            source = PUBLISHED[name]
            raise PudNetError(
                f"{name} is not in {data_folder()} (looked for {', '.join(source.folders)}). To get it: "
                f"{source.how_to_get}. The environment variable PUDNET_DATA names another folder to look in."
            )
        return found, name, PUBLISHED[name].licence
    known = [*pack_names(), *TORCHVISION, *PUBLISHED]
    folder = Path(name_or_folder).expanduser()
    if folder.is_file():
        raise PudNetError(f"{folder} is a file; expected a folder of class folders. Unpack an archive first.")
    if folder.is_dir():
        plain = folder.resolve().name
        return folder, f"{plain} (folder)" if plain in known else plain, "unknown"
    if len(folder.parts) > 1:
        raise PudNetError(f"The folder {folder} does not exist; expected a folder with one subfolder for each class.")
    raise unknown_name("dataset", name, known, "Or give the path of an image folder.")


def _resized(data: ImageDataset, size: int) -> ImageDataset:
    """Resize square images, antialiased."""
    if data.size == size:
        return data
    images = F.interpolate(data.images.float(), (size, size), mode="bilinear", antialias=True)
    images = images.round().clamp(0, 255).to(torch.uint8)
    return ImageDataset(images, data.labels, data.class_names, data.name, data.items, data.licence)


def _published_folder(name: str) -> Path | None:
    return next((data_folder() / f for f in PUBLISHED[name].folders if (data_folder() / f).is_dir()), None)


def list_sources() -> list[SourceInfo]:
    """List every source that ``load_images`` knows by name; nothing is downloaded or decoded.

    Returns:
        Embedded packs first, then torchvision's datasets, then those to fetch by hand.
    """
    packs = [
        SourceInfo(
            name,
            "embedded",
            facts["classes"],
            facts["train"] + facts["test"],
            f"{facts['size']} {'gray' if facts['channels'] == 1 else 'RGB'}",
            facts["licence"],
            "in the package",
            True,
            "comes with the kit",
        )
        for name, facts in manifest().items()
    ]
    downloads = [
        SourceInfo(
            name,
            "torchvision",
            s.classes,
            s.images,
            s.size,
            s.licence,
            str(unpacked_copy(name) or data_folder() / s.folder),
            has_local_copy(name),
            "downloaded when first loaded",
        )
        for name, s in TORCHVISION.items()
    ]
    by_hand = [
        SourceInfo(
            name,
            "published",
            s.classes,
            s.images,
            s.size,
            s.licence,
            str(_published_folder(name) or data_folder() / s.folders[0]),
            _published_folder(name) is not None,
            s.how_to_get,
        )
        for name, s in PUBLISHED.items()
    ]
    return [*packs, *downloads, *by_hand]
