"""The packs of images that ship inside the package: fashion, emoji, glyphs.

Our choice; ``scripts/build_packs.py`` makes them, ``embedded/`` holds them with their notices and checksums.
"""

from __future__ import annotations

import hashlib
import io
import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.images.reading import FolderReport

_FOLDER = files("pudnet_lib.images") / "embedded"


@cache
def manifest() -> dict[str, dict[str, Any]]:
    """Read the packs' manifest: checksum, counts, licence, what was changed."""
    return dict(json.loads((_FOLDER / "manifest.json").read_text(encoding="utf-8")))


def pack_names() -> list[str]:
    """List the packs' names."""
    return sorted(manifest())


@cache
def _arrays(name: str) -> dict[str, np.ndarray]:
    content = (_FOLDER / f"{name}.npz").read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest()[name]["sha256"]:
        raise PudNetError(f"The embedded pack {name!r} is damaged (wrong checksum). Install the package anew.")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def load_pack(name: str, split: str = "train") -> ImageDataset:
    """Load the training part, the test part or ``"all"`` of a pack, at its own size and channels."""
    if name not in manifest():
        raise unknown_name("pack", name, pack_names())
    arrays = _arrays(name)
    test = arrays["test"].astype(bool)
    keep = {"train": ~test, "test": test, "all": np.ones_like(test)}[split]
    images, labels, items = (torch.from_numpy(arrays[key][keep]) for key in ("images", "labels", "items"))
    names, counts = tuple(map(str, arrays["class_names"])), np.bincount(arrays["labels"]).tolist()
    own = {"source": "own", "train": int((~test).sum()), "test": int(test.sum())}
    copies = {"within_class": 0, "across_classes": 0, "across_split": 0}
    report = FolderReport(
        name, dict(zip(names, counts, strict=True)), own, copies, 0, int(np.ptp(arrays["images"])) + 1
    )
    return ImageDataset(images, labels, names, name, items.long(), manifest()[name]["licence"], report)
