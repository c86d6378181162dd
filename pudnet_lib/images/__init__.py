"""Images come in here: names, folders, zips and packs to an ImageDataset."""

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.images.check import check, contact_sheet
from pudnet_lib.images.reading import FolderReport
from pudnet_lib.images.sources import SourceInfo, as_dataset, list_sources, load_images, load_zip
from pudnet_lib.images.splits import default_class_split

__all__ = [
    "FolderReport", "ImageDataset", "SourceInfo", "as_dataset", "check", "contact_sheet", "default_class_split",
    "list_sources", "load_images", "load_zip",
]  # fmt: skip
