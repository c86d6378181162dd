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
from typing import Any, Self

from pudnet_lib.errors import PudNetError

Token = str | bool | None
WEIGHTS, DESCRIPTION, CARD = "model.safetensors", "config.json", "README.md"
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


class HubMixin:
    """Saving to and loading from a folder in the Hub's layout, or the Hub itself."""

    def write_file(self, path: Path) -> None:
        """Write everything into one safetensors file; each class has its own way."""
        raise NotImplementedError

    @classmethod
    def read_file(cls, path: Path, **build: Any) -> Any:
        """Read what ``write_file`` wrote."""
        raise NotImplementedError

    def card_text(self) -> str:
        """The model card, with the head that the Hub reads."""
        raise NotImplementedError

    def save_pretrained(self, folder: Path | str) -> Path:
        """Save into a folder: ``model.safetensors``, ``config.json`` (its description, to read), ``README.md``.

        Args:
            folder: Made if need be; a README.md that is there already stays.

        Returns:
            The folder.

        Raises:
            PudNetError: If it can't be written.
        """
        from pudnet_lib.files import load_tensors, write_atomically

        folder = Path(folder)
        self.write_file(folder / WEIGHTS)
        description = load_tensors(folder / WEIGHTS)[1]
        write_atomically(folder / DESCRIPTION, (json.dumps(description, indent=1, sort_keys=True) + "\n").encode())
        if not (folder / CARD).exists():
            write_atomically(folder / CARD, self.card_text().encode())
        return folder

    @classmethod
    def from_pretrained(
        cls,
        folder_or_repo: Path | str,
        *,
        revision: str | None = None,
        cache_dir: Path | str | None = None,
        local_files_only: bool = False,
        token: Token = None,
        **build: Any,
    ) -> Self:
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
        model = cls.read_file(path, **build)
        if not isinstance(model, cls):
            raise PudNetError(
                f"{folder_or_repo} holds a {type(model).__name__}, not a {cls.__name__}; use "
                f"{type(model).__name__}.from_pretrained."
            )
        return model

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: Token = None, **commit: Any) -> str:
        """Upload to a repository of the Hub, which is made if need be.

        Args:
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
            self.save_pretrained(folder)
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
