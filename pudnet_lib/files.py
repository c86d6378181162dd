"""Checkpoints: safetensors with a JSON description in the same file, written atomically, never a pickle.

Our choice. One file holds everything, so that a crash cannot separate weights from their configuration.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pudnet_lib.core import hooks
from pudnet_lib.errors import PudNetError

FORMAT = 1


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, the old or the new content stands there.

    Args:
        path: Where to; the folder is made if need be.
        content: The bytes.

    Raises:
        PudNetError: If the disk is full or the place can't be written; nothing half-written stays.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:  # unlike tempfile's, readable for whom the user's umask lets
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        size = len(content) / 2**20
        raise PudNetError(
            f"Could not write {path} ({size:.1f} MB): {error.strerror or error}. Free some disk space or choose "
            "another folder; what stood there before is untouched."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # gone once it was put in place
            temporary.unlink()


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Save tensors and their description.

    Args:
        path: The file, usually ``*.safetensors``.
        tensors: Name to tensor.
        description: Anything that JSON can hold.

    Raises:
        PudNetError: If the file can't be written.
    """
    contents = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    metadata = {"pudnet": json.dumps({"format": FORMAT, **description}, sort_keys=True)}
    write_atomically(Path(path), save(contents, metadata))


def load_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load what ``save_tensors`` wrote.

    Args:
        path: The file.

    Returns:
        The tensors, on the CPU, and the description.

    Raises:
        PudNetError: If the file is missing, is a pickle, is damaged, or was written by something else.
    """
    path = Path(path)
    if not path.is_file():
        raise PudNetError(f"There is no checkpoint {path}. Give the path of a .safetensors file that the kit wrote.")
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file starts with 8 bytes of length, which may look like a pickle's start, and a brace.
    if head[8:] != b"{" and head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        raise PudNetError(
            f"{path} is a pickle (a torch.save file), which can run any code when opened; the kit reads safetensors "
            "only. Convert it where you trust it: safetensors.torch.save_file(torch.load(...), 'x.safetensors')."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise PudNetError(f"{path} is damaged or no safetensors file ({error}). Copy or train it anew.") from error
    if "pudnet" not in metadata:
        raise PudNetError(f"{path} was not written by this kit: its description is missing. Load it yourself.")
    description: dict[str, Any] = json.loads(metadata["pudnet"])
    if description.get("format") != FORMAT:
        raise PudNetError(f"{path} has format {description.get('format')}; this version of the kit reads {FORMAT}.")
    return tensors, description


hooks.register(save_tensors=save_tensors, load_tensors=load_tensors)  # for a training run's state
