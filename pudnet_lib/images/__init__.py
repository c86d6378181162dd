"""Images come in here: sources, class splits, groups."""

from pudnet_lib.core.episodes import ClassSplit, Group, GroupConfig, GroupSampler, split_classes
from pudnet_lib.core.dataset import ImageDataset, normalise
from pudnet_lib.images.sources import SourceInfo, list_sources, load_images
from pudnet_lib.core.splits import default_class_split

__all__ = [
    "ClassSplit",
    "Group",
    "GroupConfig",
    "GroupSampler",
    "ImageDataset",
    "SourceInfo",
    "default_class_split",
    "list_sources",
    "load_images",
    "normalise",
    "split_classes",
]
