"""Which classes of a known source are for training, validation and testing on classes never seen.

Paper, Section 4.1 [rec]: Fashion 6/4, CIFAR-100 80/20, ImageNet-100 80/20; ImageNet-1K 800/200 [code]. Our choice: the
draw (seeded by the source's name), and validation classes held out of the training classes. ImageNet's classes are
listed in a file beside this one.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

from pudnet_lib.core.episodes import ClassSplit, split_classes
from pudnet_lib.errors import PudNetError

#: What a source's name begins with: its classes, the unseen ones, those for validation.
_KNOWN = {
    "made-up-imagenet": (12, 6, 2),
    "tiny-imagenet": (200, 40, 32),
    "imagenet": (1000, 200, 80),
    "cifar100": (100, 20, 16),
    "fashion": (10, 4, 2),
    "glyphs": (36, 10, 6),
    "emoji": (80, 16, 12),
}


@cache
def imagenet_classes() -> dict[str, str]:
    """ImageNet-1K's WordNet ids in their usual order → "train", "validation" or "unseen", as the list says."""
    lines = Path(__file__).with_name("imagenet_split.txt").read_text(encoding="utf-8").splitlines()
    return dict((line.split()[0], line.split()[1]) for line in lines if not line.startswith("#"))


def default_class_split(name: str, num_classes: int) -> ClassSplit:
    """Give the split of a source's classes; the same on every call."""
    if num_classes < 4:
        raise PudNetError(
            f"{name} has {num_classes} classes; splitting them into training and unseen ones needs at least 4."
        )
    if name == "imagenet" and num_classes == len(imagenet_classes()):
        parts = list(imagenet_classes().values())
        listed = ([c for c, part in enumerate(parts) if part == p] for p in ("train", "validation", "unseen"))
        return ClassSplit(*(tuple(part) for part in listed))
    for known, (classes, unseen, validation) in _KNOWN.items():
        if name.startswith(known) and num_classes == classes:
            return split_classes(num_classes, unseen, validation, zlib.crc32(known.encode()))
    unseen = max(2, round(0.2 * num_classes))
    validation = round(0.2 * (num_classes - unseen))
    validation = validation if validation >= 2 and num_classes - unseen - validation >= 2 else 0
    return split_classes(num_classes, unseen, validation, zlib.crc32(name.encode()))
