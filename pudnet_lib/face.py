"""What ``from pudnet_lib import …`` gives where it is more than a core function: load, save, predict from anything."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig, PredictedNetwork
from pudnet_lib.core.predict import predict as predict_dataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import load_tensors


def load(path: Path | str, module: nn.Module | None = None) -> Any:
    """Load whatever the kit saved: a predicted network, a predictor, a denoiser.

    Args:
        path: A .safetensors file, or the folder of ``pudnet train``, ``pudnet predict`` or ``save_pretrained``.
        module: Where the file is of a network of your own: a module of that architecture.

    Returns:
        The network or predictor, in evaluation mode, on the CPU.

    Raises:
        PudNetError: If there is no such file, it is damaged, or holds something else.
    """
    from pudnet_lib.export.models import load_model, load_network

    place = Path(path).expanduser()
    if place.is_dir():
        names = ("network.safetensors", "model.safetensors")
        found = [place / name for name in names if (place / name).is_file()]
        if not found:
            raise PudNetError(f"{place} holds neither {' nor '.join(names)}; expected a folder that the kit wrote.")
        place = found[0]
    description = load_tensors(place)[1]
    if "network" in description:
        return load_network(place, module)
    if "denoiser" in description:
        from pudnet_lib.denoise import Denoiser

        return Denoiser.load(place)
    return load_model(place, module)[0]


def save(thing: Any, path: Path | str) -> Path:
    """Save a predicted network, a predictor or a denoiser as one checked safetensors file.

    Args:
        thing: What ``predict``, ``train`` or ``load`` returned.
        path: The file.

    Returns:
        The file.

    Raises:
        PudNetError: If it is nothing that the kit can save, or can't be written.
    """
    from pudnet_lib.export.models import save_model, save_network

    place = Path(path).expanduser()
    if isinstance(thing, PredictedNetwork):
        save_network(thing, place)
    elif isinstance(thing, ParameterModel):
        save_model(thing, place, **getattr(thing, "notes", {}))
    elif hasattr(thing, "save"):
        thing.save(place)
    else:
        raise PudNetError(f"A {type(thing).__name__} can't be saved; expected a predicted network or a predictor.")
    return place


def predict(
    model: ParameterModel | Path | str,
    images: Any,
    labels: Any = None,
    config: PredictConfig | None = None,
    *,
    size: int | None = None,
    seconds: float = 20.0,
) -> PredictedNetwork:
    """Predict a network for labelled images of any kind.

    Args:
        model: A predictor, the name of one that comes with the kit, a file of one, or ``"auto"``: the best one for
            these images (see ``choose_predictor``).
        images: An ``ImageDataset``; a folder, zip or dataset's name (then without labels); or arrays (N, H, W, C) or
            (N, C, H, W), a list of arrays, of Pillow pictures or of paths.
        labels: N of them, of any kind, for arrays, pictures and paths.
        config: How.
        size: Pixels to which pictures are brought; by default what the predictor was trained with.
        seconds: With ``"auto"``: how long the choice may take.

    Returns:
        The network, with ``seconds`` of each part of the prediction.

    Raises:
        PudNetError: If images, labels and predictor don't go together; the message says what was expected.
    """
    from pudnet_lib.shipped import load_pudnet

    if str(model) == "auto":
        from pudnet_lib.auto import choose_predictor, images_for

        data = images_for(images, labels, size)
        return choose_predictor(data, seconds=seconds, config=config).network
    model = load_pudnet(model) if isinstance(model, str | Path) else model
    data = to_images(images, labels, model, size)
    if untrained(model):
        warnings.warn(
            f"This {type(model).__name__} was never meta-trained: what it predicts is random. Load a trained one "
            "(load_pudnet()), or train it (pudnet train).",
            stacklevel=2,
        )
    return predict_dataset(model, data, config)


def to_images(images: Any, labels: Any, model: ParameterModel | None = None, size: int | None = None) -> ImageDataset:
    """Make a dataset of what ``predict`` takes, with the size and channels of a predictor's training images."""
    from pudnet_lib.images import as_dataset, load_images

    if isinstance(images, ImageDataset):
        return images
    size = size or (32 if model is None else trained_size(model))
    channels = 3 if model is None or model.own_target else model.config.target.channels
    if labels is None:
        if not isinstance(images, str | Path):
            raise PudNetError("Labels are missing: predict(model, images, labels) for arrays, pictures and paths.")
        return load_images(images, split="all", size=size, channels=channels)
    return as_dataset(images, labels, size=size, channels=channels).with_channels(channels)


def trained_size(model: ParameterModel) -> int:
    """Side in pixels of the images that a predictor was meta-trained with; 32 where its notes don't say."""
    notes = getattr(model, "notes", {})
    return int(notes.get("size") or notes.get("train", {}).get("pool", {}).get("size", 32))


def untrained(model: ParameterModel) -> bool:
    """Whether a predictor still has the τ that it started with, which no training step leaves alone."""
    return float(model.scale.detach()) == 10.0
