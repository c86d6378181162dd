"""Hugging Face Hub: folders in its layout, and the Hub itself.

Our choice; the paper has no counterpart. Names of functions and files are those of huggingface_hub; what is written is
the kit's own safetensors file with its description inside, so that a network of a user's own can come back too. A local
folder needs neither the network nor huggingface_hub.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.cards import card, predictor_card
from pudnet_lib.export.models import load, save
from pudnet_lib.files import load_tensors, write_atomically

WEIGHTS = "model.safetensors"


def save_pretrained(model: Any, folder: Path | str) -> Path:
    """Save into a folder: ``model.safetensors``, ``config.json`` (its description, to read), ``README.md``."""
    folder = Path(folder).expanduser()
    description = load_tensors(save(model, folder / WEIGHTS))[1]
    write_atomically(folder / "config.json", (json.dumps(description, indent=1, sort_keys=True) + "\n").encode())
    if not (folder / "README.md").exists():
        text = card(model) if isinstance(model, PredictedNetwork) else predictor_card(model)
        write_atomically(folder / "README.md", text.encode())
    return folder


def from_pretrained(
    folder_or_repo: Path | str, *, target: nn.Module | None = None, backbone: nn.Module | None = None, **download: Any
) -> Any:
    """Load from a folder that ``save_pretrained`` wrote, or from a repository of the Hub.

    What else is given (``revision``, ``cache_dir``, ``local_files_only``, ``token``) goes to ``hf_hub_download``.
    """
    path = Path(folder_or_repo).expanduser() / WEIGHTS
    if not path.parent.is_dir():
        path = _download(str(folder_or_repo), download)
    elif not path.is_file():
        raise PudNetError(f"{path.parent} has no {WEIGHTS}; expected a folder that save_pretrained wrote.")
    return load(path, target if backbone is None else backbone)


def push_to_hub(model: Any, repo_id: str, *, private: bool = False, token: Any = None, **commit: Any) -> str:
    """Upload to a repository of the Hub, which is made if need be."""
    api = _hub().HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        return str(api.upload_folder(repo_id=repo_id, folder_path=save_pretrained(model, folder), **commit))


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise PudNetError("The Hub needs the package huggingface_hub: pip install 'pudnet-kit[hub]'.") from None
    return huggingface_hub


def _download(repo: str, how: dict[str, Any]) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise PudNetError(f"{repo} is neither a folder nor a repository's name (owner/name).")
    hub = _hub()
    try:
        return Path(hub.hf_hub_download(repo, WEIGHTS, **how))
    except (OSError, ValueError) as error:  # the Hub's errors are all kinds of these
        raise PudNetError(
            f"{WEIGHTS} of {repo} could not be had ({str(error).strip().splitlines()[0]}). Check the name, the token "
            "and the connection, or give a folder that save_pretrained wrote."
        ) from error
