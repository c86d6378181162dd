"""The predictors that come with the kit, so that prediction works offline from the first minute.

Each is a file made by ``pudnet train``; the card beside it has the command, the data, the seconds and the results.
"""

from pathlib import Path

from torch import nn

from pudnet_lib.core import ParameterModel
from pudnet_lib.errors import unknown_name
from pudnet_lib.export.models import load_model

FOLDER = Path(__file__).parent


def shipped_models() -> list[str]:
    """List the names of the models that come with the kit."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load_shipped(name: str) -> ParameterModel:
    """Load a model that comes with the kit, in evaluation mode, on the CPU; its ``notes`` say how it was trained."""
    if name not in shipped_models():
        raise unknown_name("shipped model", name, shipped_models(), "Or give a .safetensors file or a run's folder.")
    model = load_model(FOLDER / f"{name}.safetensors")[0]
    model.name = name  # goes into the origin of what it predicts
    return model


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
    path = folder if (folder := path / "model.safetensors").is_file() else path
    known = path.is_file() or path.suffix == ".safetensors"
    return load_model(path, target)[0] if known else load_shipped(str(name))
