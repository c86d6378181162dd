"""A name or a folder to an ImageDataset."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F

from pudnet_lib.datasets.image_dataset import ImageDataset
from pudnet_lib.datasets.packs import load_pack, pack_names
from pudnet_lib.errors import unknown_name

Split = Literal["train", "test", "all"]


def load_images(
    name_or_folder: str | Path, split: Split = "train", size: int = 32, channels: int = 3
) -> ImageDataset:
    """Load a pack."""
    name = str(name_or_folder)
    if name not in pack_names():
        raise unknown_name("dataset", name, pack_names())
    data = load_pack(name, split)
    if data.size != size:
        images = F.interpolate(data.images.float(), (size, size), mode="bilinear", antialias=True)
        images = images.round().clamp(0, 255).to(torch.uint8)
        data = ImageDataset(images, data.labels, data.class_names, data.name, data.items, data.licence)
    return data.with_channels(channels)
