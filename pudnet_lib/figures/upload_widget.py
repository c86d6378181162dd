"""Drop images here: a zip or several pictures to an ImageDataset, a predicted network and its trust report.

Our choice; the paper has no counterpart. ``dataset_from_upload`` and ``predict_upload`` are plain functions with their
own tests; the panel only calls them.
"""

from __future__ import annotations

import html
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import ipywidgets
import numpy as np
import torch

from pudnet_lib.core import ParameterModel
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import PredictedNetwork, predict
from pudnet_lib.errors import PudNetError
from pudnet_lib.images import load_images
from pudnet_lib.images.archive import ArchiveLimits, unpack_zip
from pudnet_lib.images.decode import decode_image
from pudnet_lib.trust import TrustReport, trust_report


@dataclass(frozen=True)
class Upload:
    """One file that was dropped.

    Attributes:
        name: Its name.
        content: Its bytes.
    """

    name: str
    content: bytes


@dataclass(frozen=True)
class UploadResult:
    """What came of an upload."""

    dataset: ImageDataset
    network: PredictedNetwork
    report: TrustReport


def labels_from_names(names: Sequence[str]) -> list[str]:
    """Guess a label for each picture: its file name up to the trailing number (``cat_12.jpg`` is a cat)."""
    return [re.sub(r"[\s_\-.(]*\d*[)\s]*$", "", PurePath(name).stem) or PurePath(name).stem for name in names]


def dataset_from_upload(
    files: Sequence[Upload], labels: str = "", size: int = 32, channels: int = 3, limits: ArchiveLimits | None = None
) -> ImageDataset:
    """Make a dataset of what was dropped.

    Args:
        files: One zip with a folder a class, or pictures.
        labels: Of pictures: one label each, separated by commas, in the files' order; empty takes them from the file
            names (``cat_1.jpg``). A zip's folders are its labels.
        size: H = W in pixels.
        channels: C, 1 or 3.
        limits: How much may be uploaded.

    Returns:
        The dataset.

    Raises:
        PudNetError: If nothing was dropped, labels don't fit, a class has one picture only, or a file is bad.
    """
    limits = limits or ArchiveLimits()
    zips = [file for file in files if file.name.lower().endswith(".zip")]
    if not files:
        raise PudNetError("No file was dropped; give a zip with one folder a class, or several pictures.")
    if zips and len(files) > 1:
        raise PudNetError(f"{zips[0].name} came with {len(files) - 1} other files; give one zip, or pictures only.")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        if zips:
            root = unpack_zip(zips[0].content, folder, limits)
            data = load_images(root, "all", size, channels, progress=False, cache_dir=Path(place) / "cache")
            # The memory map goes with the folder: keep the pixels themselves.
            return ImageDataset(data.images.clone(), data.labels, data.class_names, Path(zips[0].name).stem)
        return _from_pictures(files, labels, size, channels, folder, limits)


def _from_pictures(
    files: Sequence[Upload], labels: str, size: int, channels: int, folder: Path, limits: ArchiveLimits
) -> ImageDataset:
    names = [file.name for file in files]
    given = [label.strip() for label in labels.split(",")] if labels.strip() else labels_from_names(names)
    if len(given) != len(files) or not all(given):
        raise PudNetError(f"There are {len(given)} labels for {len(files)} pictures; give one each, none empty.")
    if len(files) > limits.files or sum(len(f.content) for f in files) > limits.total_mb * 2**20:
        raise PudNetError(f"{len(files)} pictures are too much; at most {limits.files} and {limits.total_mb:g} MB.")
    classes = sorted(set(given))
    single = [name for name in classes if given.count(name) < 2]
    if single or len(classes) < 2:
        found = f"{single[0]!r} has one picture only" if single else f"all pictures are {classes[0]!r}"
        raise PudNetError(f"{found}; a classifier needs two classes of two pictures each. Check the labels: {given}.")
    folder.mkdir()
    arrays = []
    for index, file in enumerate(files):
        path = folder / f"{index}{PurePath(file.name).suffix[:6]}"  # never the name that the user gave
        path.write_bytes(file.content)
        try:
            arrays.append(decode_image(path, size, channels))
        except PudNetError as error:
            raise PudNetError(str(error).replace(str(path), file.name)) from error
    images = torch.from_numpy(np.stack(arrays))
    return ImageDataset(images, torch.tensor([classes.index(g) for g in given]), tuple(classes), "uploaded pictures")


def predict_upload(model: ParameterModel, files: Sequence[Upload], labels: str = "") -> UploadResult:
    """Predict a network for what was dropped and say how far to trust it.

    Args:
        model: The predictor.
        files: See ``dataset_from_upload``.
        labels: See there.

    Returns:
        Dataset, network and trust report.
    """
    channels = int(getattr(getattr(model.config, "target", None), "channels", 3))
    dataset = dataset_from_upload(files, labels, channels=channels)
    network = predict(model, dataset)
    return UploadResult(dataset, network, trust_report(network, dataset, model))


def summary(result: UploadResult) -> str:
    """The result in a few lines of HTML; names from the user's files are escaped."""
    data, seconds = result.dataset, sum(result.network.seconds.values())
    head = f"{data.name}: {len(data)} images, {data.num_classes} classes, predicted in {1000 * seconds:.0f} ms."
    return "".join(f"<p>{html.escape(line)}</p>" for line in (head, *result.report.lines()))


class UploadPanel(ipywidgets.VBox):  # type: ignore[misc]
    """A place to drop files, with the trust report below it.

    Args:
        model: The predictor.

    Attributes:
        result: The last upload's result; None before the first.
    """

    def __init__(self, model: ParameterModel) -> None:
        self.model = model
        self.result: UploadResult | None = None
        self.files = ipywidgets.FileUpload(
            accept=".zip,image/*", multiple=True, description="a zip, or pictures", layout={"width": "16em"}
        )
        self.labels = ipywidgets.Text(
            placeholder="labels of pictures, such as cat, cat, dog, dog (or name them cat_1.jpg …)",
            continuous_update=False,
            layout={"width": "32em"},
        )
        self.message = ipywidgets.HTML("Drop a zip with one folder a class, or several pictures.")
        super().__init__([ipywidgets.HBox([self.files, self.labels]), self.message])
        self.files.observe(self._changed, names="value")
        self.labels.observe(self._changed, names="value")

    def _changed(self, _change: object) -> None:
        dropped = [Upload(str(f["name"]), bytes(f["content"])) for f in self.files.value]
        if not dropped:
            return
        try:
            result = predict_upload(self.model, dropped, self.labels.value)
            self.result, self.message.value = result, summary(result)
        except PudNetError as error:
            self.result = None
            self.message.value = f"<b>{html.escape(str(error))}</b>"
