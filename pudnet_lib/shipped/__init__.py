"""The predictors that come with the kit, so that prediction works offline from the first minute.

Our choice. Each is a safetensors file made by ``pudnet train``, with a model card beside it that holds the command, the
data, the seconds and the measured results with all controls.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, cast

from torch import nn

from pudnet_lib.core import ParameterModel
from pudnet_lib.errors import unknown_name
from pudnet_lib.export.models import load_model


def shipped_models() -> list[str]:
    """List the names of the models that come with the kit."""
    found = (entry.name for entry in files(__package__).iterdir())
    return sorted(name.removesuffix(".safetensors") for name in found if name.endswith(".safetensors"))


def load_shipped(name: str) -> ParameterModel:
    """Load a model that comes with the kit, in evaluation mode, on the CPU; its ``notes`` say how it was trained."""
    if name not in shipped_models():
        raise unknown_name("shipped model", name, shipped_models(), "Or give a .safetensors file or a run's folder.")
    with as_file(files(__package__) / f"{name}.safetensors") as path:
        model = load_model(path)[0]
    model.name = name  # goes into the origin of what it predicts
    return model


def shipped_notes(name: str) -> dict[str, Any]:
    """Read a shipped model's notes: its whole training configuration, steps, seconds, validation accuracy."""
    return cast(dict[str, Any], load_shipped(name).notes)


def load_pudnet(name: str | Path = "pudnet", target: nn.Module | None = None) -> ParameterModel:
    """Load a predictor, in evaluation mode, on the CPU.

    Args:
        name: One that comes with the kit (``shipped_models()``; by default ConvNet-3, meta-trained on Fashion, emoji
            and glyphs), a .safetensors file, or the folder of a run of ``pudnet train``.
        target: The user's own target network, if the predictor was built for one.

    Raises:
        PudNetError: If there is no such model.
    """
    path = Path(name).expanduser()
    folder = path / "model.safetensors"
    if path.is_file() or folder.is_file() or path.suffix == ".safetensors":
        return load_model(folder if folder.is_file() else path, target)[0]
    return load_shipped(str(name))
