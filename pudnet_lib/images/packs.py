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

_FOLDER = files("pudnet_lib.images") / "embedded"


@cache
def manifest() -> dict[str, dict[str, Any]]:
    """Read the packs' manifest: checksum, counts, licence, what was changed."""
    found: dict[str, dict[str, Any]] = json.loads((_FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return found


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
    return ImageDataset(
        torch.from_numpy(arrays["images"][keep]),
        torch.from_numpy(arrays["labels"][keep].astype(np.int64)),
        tuple(str(n) for n in arrays["class_names"]),
        name,
        torch.from_numpy(arrays["items"][keep].astype(np.int64)),
        manifest()[name]["licence"],
    )
