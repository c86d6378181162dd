"""Images come in here: names, folders, zips and packs to an ImageDataset."""

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.images.named import SourceInfo, list_sources
from pudnet_lib.images.pool import default_class_split
from pudnet_lib.images.reading import FolderReport
from pudnet_lib.images.sources import as_dataset, check, contact_sheet, load_images, load_zip

__all__ = ["FolderReport", "ImageDataset", "SourceInfo", "as_dataset", "check", "contact_sheet", "default_class_split"]
__all__ += ["list_sources", "load_images", "load_zip"]
