"""Hugging Face Hub: ``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of predictors and predicted networks.

Our choice; the paper has no counterpart. The methods are those of huggingface_hub's ``PyTorchModelHubMixin``, and so
are the names of the files; but what is written is the kit's own safetensors file with its description inside, so that
a network of a user's own can come back too. A local folder needs neither the network nor huggingface_hub.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.card import model_card, predictor_card
from pudnet_lib.export.models import load_model, load_network, save_model, save_network
from pudnet_lib.files import load_tensors, write_atomically

Token = str | bool | None
WEIGHTS, DESCRIPTION, CARD = "model.safetensors", "config.json", "README.md"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def save_pretrained(model: Any, folder: Path | str) -> Path:
    """Save into a folder: ``model.safetensors``, ``config.json`` (its description, to read), ``README.md``.

    Args:
        model: A predictor or a predicted network.
        folder: Made if need be; a README.md that is there already stays.

    Returns:
        The folder.

    Raises:
        PudNetError: If it can't be written.
    """
    folder = Path(folder)
    own = isinstance(model, PredictedNetwork)
    (save_network if own else save_model)(model, folder / WEIGHTS)
    description = load_tensors(folder / WEIGHTS)[1]
    write_atomically(folder / DESCRIPTION, (json.dumps(description, indent=1, sort_keys=True) + "\n").encode())
    if not (folder / CARD).exists():
        write_atomically(folder / CARD, (model_card if own else predictor_card)(model).encode())
    return folder


def from_pretrained(
    folder_or_repo: Path | str,
    *,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    local_files_only: bool = False,
    token: Token = None,
    **build: Any,
) -> Any:
    """Load from a folder that ``save_pretrained`` wrote, or from a repository of the Hub.

    Args:
        folder_or_repo: A folder, which is taken before a repository ``"owner/name"``.
        revision: Branch, tag or commit of the repository.
        cache_dir: Where downloads are kept; by default the Hub's own cache.
        local_files_only: Take what has been downloaded before, and ask nobody.
        token: The Hub's, for a private repository.
        **build: What building needs: ``target`` for a predictor of a network of your own, ``backbone`` for such a
            predicted network.

    Returns:
        The model, in evaluation mode, on the CPU.

    Raises:
        PudNetError: If there is no such folder or repository, or it holds something else.
    """
    folder = Path(folder_or_repo).expanduser()
    if folder.is_dir():
        if not (folder / WEIGHTS).is_file():
            raise PudNetError(f"{folder} has no {WEIGHTS}; expected a folder that save_pretrained wrote.")
        path = folder / WEIGHTS
    elif _REPO.fullmatch(str(folder_or_repo)):
        path = _download(str(folder_or_repo), revision, cache_dir, local_files_only, token)
    else:
        raise PudNetError(f"{folder_or_repo} is neither a folder nor a repository's name (owner/name).")
    if "network" in load_tensors(path)[1]:
        return load_network(path, **build)
    return load_model(path, **build)[0]


def push_to_hub(model: Any, repo_id: str, *, private: bool = False, token: Token = None, **commit: Any) -> str:
    """Upload to a repository of the Hub, which is made if need be.

    Args:
        model: A predictor or a predicted network.
        repo_id: ``"owner/name"``.
        private: Whether a new repository is private.
        token: The Hub's; by default the one that you logged in with.
        **commit: More for ``HfApi.upload_folder``, such as ``commit_message`` or ``revision``.

    Returns:
        The address of the commit.

    Raises:
        PudNetError: If huggingface_hub is not installed.
    """
    hub = _hub()
    api = hub.HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **commit))


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise PudNetError("The Hub needs the package huggingface_hub: pip install 'pudnet-kit[hub]'.") from None
    return huggingface_hub


def _download(repo: str, revision: str | None, cache_dir: Path | str | None, local: bool, token: Token) -> Path:
    hub = _hub()
    try:
        return Path(
            hub.hf_hub_download(
                repo, WEIGHTS, revision=revision, cache_dir=cache_dir, local_files_only=local, token=token
            )
        )
    except (OSError, ValueError) as error:  # the Hub's errors are all kinds of these
        raise PudNetError(
            f"{WEIGHTS} of {repo} could not be had ({str(error).strip().splitlines()[0]}). Check the name, the token "
            "and the connection, or give a folder that save_pretrained wrote."
        ) from error
