"""Files: safetensors with a JSON description and a checksum inside, written atomically, never a pickle.

One file holds everything, so that a crash cannot separate weights from their configuration; the checksum covers every
byte, so that a damaged file is refused. What it says is checked against a dataclass's schema before anything is built.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import reprlib
import shutil
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pudnet_lib.core import hooks
from pudnet_lib.errors import PudNetError, unknown_name

FORMAT = 1
PREFIX = "pudnet-"  # of the kit's temporary folders, and of files after a dot; ``sweep`` removes what was left over
_BLANK = b"0" * 64


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, the old or the new content stands there."""
    temporary = path.with_name(f".{PREFIX}{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:  # unlike tempfile's, readable for whom the user's umask lets
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        what = f"Could not write {path} ({len(content) / 2**20:.1f} MB): {error.strerror or error}"
        remedy = "Free some disk space or choose another folder; what stood there before is untouched."
        raise PudNetError(f"{what}. {remedy}") from error
    finally:
        with contextlib.suppress(OSError):  # gone once it was put in place
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make names that were put in place last through a loss of power; where no folder can be opened, do nothing."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        opened = os.open(folder, os.O_RDONLY)
        stack.callback(os.close, opened)
        os.fsync(opened)


@contextlib.contextmanager
def lock(path: Path, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock file, which a killed process releases; where it is held: wait after saying so, or raise ``busy``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = FileLock(path)
    try:
        held = file.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise PudNetError(busy) from None
        print(busy, file=sys.stderr, flush=True)
        held = file.acquire()
    with held:
        yield


def sweep(*folders: Path) -> None:
    """Remove temporary folders, and half-written files in these folders, that a killed process left over a day ago."""
    # Three levels and no deeper: a folder of data sets has millions of files.
    found = [p for folder in folders for above in ("", "*/", "*/*/") for p in folder.glob(f"{above}.{PREFIX}*")]
    uid = getattr(os, "getuid", int)()  # 0 on Windows, as its files'
    for place in [*Path(tempfile.gettempdir()).glob(f"{PREFIX}*"), *found]:
        with contextlib.suppress(OSError, PudNetError):
            facts = place.lstat()
            if time.time() - facts.st_mtime < 24 * 3600 or facts.st_uid != uid or place.is_symlink():
                continue
            if place.is_file():
                place.unlink()
            else:
                with lock(place / ".lock", "in use"):
                    shutil.rmtree(place)


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Save tensors, their description and a checksum of both."""
    contents = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    text = json.dumps({"format": FORMAT, **description}, sort_keys=True)
    content = save(contents, {"pudnet": text, "checksum": _BLANK.decode()})
    where = content.index(b'"checksum":"') + 12  # the description's own quotes are escaped
    checksum = hashlib.sha256(content).hexdigest()  # of all bytes, the checksum itself taken as zeros
    write_atomically(Path(path), content[:where] + checksum.encode() + content[where + 64 :])


def load_tensors(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load what ``save_tensors`` wrote, once its checksum has been found right."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise PudNetError(f"There is no checkpoint {path}. Give the path of a .safetensors file that the kit wrote.")
    try:
        with path.open("rb") as start:
            head = start.read(9)
        # A safetensors file starts with 8 bytes of length, which may look like a pickle's start, and a brace.
        if head[8:] != b"{" and head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            what = "is a pickle (a torch.save file), which can run any code when opened; the kit reads safetensors only"
            remedy = "Convert it where you trust it: safetensors.torch.save_file(torch.load(...), 'x.safetensors')."
            raise PudNetError(f"{path} {what}. {remedy}")
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if given := metadata.get("checksum"):
                content = bytearray(path.read_bytes())
                where = content.find(b'"checksum":"' + given.encode() + b'"') + 12
                content[where : where + len(given)] = _BLANK
                if where < 12 or hashlib.sha256(content).hexdigest() != given:
                    raise PudNetError(f"{path} is damaged: its checksum is not its content's. Copy or train it anew.")
            elif "pudnet" in metadata:
                warnings.warn(f"{path.name} has no checksum: whether it is whole can't be told.", stacklevel=3)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise PudNetError(f"{path} is damaged or no safetensors file ({error}). Copy or train it anew.") from error
    except OSError as error:
        raise PudNetError(f"{path} can't be read: {error.strerror or error}.") from error
    if "pudnet" not in metadata:
        raise PudNetError(f"{path} was not written by this kit: its description is missing. Load it yourself.")
    try:
        description = json.loads(metadata["pudnet"])
    except (ValueError, RecursionError) as error:
        raise PudNetError(f"{path}: its description is no JSON ({error}). Copy or train it anew.") from error
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise PudNetError(f"{path} has format {found!r}; this version of the kit reads {FORMAT}.")
    return tensors, description


def config_from_dict(kind: type[Any], values: Any, where: str = "") -> Any:
    """Build a frozen config dataclass, nested ones included, from plain values, all types and bounds checked."""
    from pydantic import TypeAdapter, ValidationError

    _check(kind, values, where)
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        text = first["msg"].removeprefix("Value error, ")
        field = ".".join(map(str, first["loc"])) or kind.__name__
        raise PudNetError(f"{where}{field}: {text} (found {reprlib.repr(first['input'])}).") from None


def _check(kind: Any, values: Any, where: str) -> None:
    """Refuse unknown fields, and numbers that would fill the memory, run for ever or are no number."""
    if not isinstance(values, Mapping):
        name = where.rstrip(".") or getattr(kind, "__name__", "")
        raise PudNetError(f"{name} is {reprlib.repr(values)}; expected an object of fields.")
    hints = get_type_hints(kind) if kind else {}
    for name, value in values.items():
        if kind and name not in hints:
            raise unknown_name(f"field of {kind.__name__}", str(name), hints)
        inner = [h for h in (hints.get(name), *get_args(hints.get(name))) if dataclasses.is_dataclass(h)]  # or None
        if isinstance(value, Mapping) or (inner and value is not None):
            _check(inner[0] if inner else None, value, f"{where}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise PudNetError(f"{where}{name} is {value}; expected a finite number.")
        elif type(value) is int and name not in ("seed", "seconds", "images", "looked_at"):
            most = 1_000 if name in ("depth", "states", "steps") else 16_384  # fewer layers and steps than channels
            if not -1 <= value <= most:
                raise PudNetError(f"{where}{name} is {value}; expected at most {most}.")


class _ShapesOnly(torch.overrides.TorchFunctionMode):
    """Under it a module's constructor runs on ``meta``: numbers that are read from a tensor are 1."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = (Tensor.item, Tensor.__float__, Tensor.__int__, Tensor.__bool__)
        return 1.0 if func in reads and args[0].is_meta else func(*args, **(kwargs or {}))


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Build a module without its memory, to compare shapes before anything large is made."""
    with torch.device("meta"), _ShapesOnly():
        yield


hooks.register(save_tensors=save_tensors, load_tensors=load_tensors)  # for a training run's state
