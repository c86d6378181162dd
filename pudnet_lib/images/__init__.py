"""Images come in here: sources, class splits, episodes."""

from pudnet_lib.core.dataset import ImageDataset, normalise
from pudnet_lib.core.episodes import ClassSplit, Episode, EpisodeConfig, EpisodeSampler, split_classes
from pudnet_lib.core.splits import default_class_split
from pudnet_lib.images.sources import SourceInfo, list_sources, load_images

__all__ = [
    "ClassSplit",
    "Episode",
    "EpisodeConfig",
    "EpisodeSampler",
    "ImageDataset",
    "SourceInfo",
    "default_class_split",
    "list_sources",
    "load_images",
    "normalise",
    "split_classes",
]
