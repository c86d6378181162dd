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

# source: (classes, unseen, validation)
_KNOWN = {
    "fashion": (10, 4, 2),
    "fashion-mnist": (10, 4, 2),
    "emoji": (80, 16, 12),
    "glyphs": (36, 10, 6),
    "cifar100": (100, 20, 16),
    "tiny-imagenet": (200, 40, 32),
    "imagenet": (1000, 200, 80),
    "made-up-imagenet": (12, 6, 2),
}
IMAGENET_LIST = Path(__file__).with_name("imagenet_split.txt")
_SAME_DRAW = {"fashion-mnist": "fashion"}


@cache
def imagenet_classes() -> dict[str, str]:
    """ImageNet-1K's WordNet ids in their usual order → "train", "validation" or "unseen", as the list says."""
    lines = IMAGENET_LIST.read_text(encoding="utf-8").splitlines()
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
    known = next((k for k in sorted(_KNOWN, key=len, reverse=True) if name.startswith(k)), None)
    if known is not None and _KNOWN[known][0] == num_classes:
        _, unseen, validation = _KNOWN[known]
    else:
        unseen = max(2, round(0.2 * num_classes))
        validation = round(0.2 * (num_classes - unseen))
        validation = validation if validation >= 2 and num_classes - unseen - validation >= 2 else 0
    drawn_as = known if known is not None and _KNOWN[known][0] == num_classes else name
    seed = zlib.crc32(_SAME_DRAW.get(drawn_as, drawn_as).encode())
    return split_classes(num_classes, unseen, validation, seed)
