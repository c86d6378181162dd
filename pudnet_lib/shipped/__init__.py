"""The predictors that come with the kit, so that prediction works offline from the first minute.

Our choice. Each is a safetensors file made by ``pudnet train``, with a model card beside it that holds the command, the
data, the seconds and the measured results with all controls.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

from pudnet_lib.core import ParameterModel, PudNet
from pudnet_lib.errors import unknown_name
from pudnet_lib.export.models import load_model


def shipped_models() -> list[str]:
    """List the names of the models that come with the kit."""
    found = (entry.name for entry in files(__package__).iterdir())
    return sorted(name.removesuffix(".safetensors") for name in found if name.endswith(".safetensors"))


def load_shipped(name: str) -> ParameterModel:
    """Load a model that comes with the kit.

    Args:
        name: One of ``shipped_models()``.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        PudNetError: If there is no such model.
    """
    if name not in shipped_models():
        raise unknown_name("shipped model", name, shipped_models())
    with as_file(files(__package__) / f"{name}.safetensors") as path:
        return load_model(path)[0]


def shipped_notes(name: str) -> dict[str, Any]:
    """Read a shipped model's notes: its whole training configuration, steps, seconds, validation accuracy.

    Args:
        name: One of ``shipped_models()``.

    Returns:
        The notes.
    """
    if name not in shipped_models():
        raise unknown_name("shipped model", name, shipped_models())
    with as_file(files(__package__) / f"{name}.safetensors") as path:
        return load_model(path)[1]


def load_pudnet(name: str = "pudnet") -> PudNet:
    """Load the shipped predictor (ConvNet-3, meta-trained on Fashion, emoji and glyphs).

    Args:
        name: Which of the shipped PudNets.

    Returns:
        The hypernetwork, in evaluation mode, on the CPU.

    Raises:
        PudNetError: If there is no such model, or it is no PudNet.
    """
    model = load_shipped(name)
    if not isinstance(model, PudNet):
        raise unknown_name("shipped PudNet", name, ["pudnet"], f"{name!r} is a {type(model).__name__}.")
    return model
