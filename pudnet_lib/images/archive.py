"""A zip of pictures to an image folder, checked before anything is written.

Our choice; the paper has no counterpart. Everything that the zip's directory tells is checked first: paths that lead
out of the folder, links, bombs, encryption, two files of one name, too many files, too deep folders. Then the files are
written into a folder beside the wanted one, which is renamed when all of them are there.
"""

from __future__ import annotations

import io
import re
import shutil
import stat
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pudnet_lib.errors import PudNetError

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
# What operating systems add to a zip by themselves: left out without a word.
_CLUTTER = re.compile(r"(^|/)(__MACOSX/|\.|Thumbs\.db$|desktop\.ini$)")
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"|?*]')  # not allowed in names on one system or another
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_MB = 2**20


@dataclass(frozen=True)
class ArchiveLimits:
    """How much a zip may hold.

    Attributes:
        files: Pictures.
        file_mb: Megabytes of one picture, unpacked.
        total_mb: Megabytes of all, unpacked.
        ratio: How many times larger a file may be unpacked than packed; pictures hardly shrink.
        depth: Folders one in another.
    """

    files: int = 10_000
    file_mb: float = 50.0
    total_mb: float = 1000.0
    ratio: float = 200.0
    depth: int = 4


def check_zip(archive: zipfile.ZipFile, name: str, limits: ArchiveLimits | None = None) -> list[zipfile.ZipInfo]:
    """Check everything that a zip's directory tells.

    Args:
        archive: The open zip.
        name: Its name, for messages.
        limits: How much it may hold.

    Returns:
        The entries of its pictures.

    Raises:
        PudNetError: If a check fails; the message names the entry, the limit and the fix.
    """
    limits = limits or ArchiveLimits()
    kept: list[zipfile.ZipInfo] = []
    seen: dict[str, str] = {}
    total = 0
    for entry in archive.infolist():
        problem = _entry_problem(entry, limits)
        if problem:
            raise PudNetError(f"{name}: {problem}; nothing was unpacked. Remove it from the zip.")
        if entry.is_dir() or _CLUTTER.search(entry.filename):
            continue
        if PurePosixPath(entry.filename).suffix.lower() not in PICTURES:
            raise PudNetError(
                f"{name}: {entry.filename!r} is no picture ({', '.join(sorted(PICTURES))}); nothing was unpacked. "
                "Remove it from the zip; a zip inside a zip must be unpacked first."
            )
        kept.append(entry)
        total += entry.file_size
        if len(kept) > limits.files:
            raise PudNetError(f"{name} holds more than {limits.files} pictures; make several zips or leave some out.")
        if total > limits.total_mb * _MB:
            raise PudNetError(f"{name} unpacks to more than {limits.total_mb:g} MB; leave some pictures out.")
        folded = entry.filename.casefold()
        if folded in seen:
            raise PudNetError(f"{name} holds {entry.filename!r} and {seen[folded]!r}, one name on many systems.")
        seen[folded] = entry.filename
    clash = next((n for n in seen for p in PurePosixPath(n).parents if str(p) in seen), None)
    if clash:
        raise PudNetError(f"{name}: a folder of {seen[clash]!r} has the name of a picture; rename one of them.")
    if not kept:
        raise PudNetError(f"{name} holds no picture; expected one folder a class with pictures in it.")
    return kept


def _entry_problem(entry: zipfile.ZipInfo, limits: ArchiveLimits) -> str:
    """What is wrong with one entry; empty if nothing is."""
    raw = getattr(entry, "orig_filename", entry.filename)  # before zipfile cuts it at a NUL or turns separators
    path, shown = PurePosixPath(raw), repr(raw[:80])
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if path.is_absolute() or "\\" in raw or re.match(r"^[A-Za-z]:", raw) or ".." in path.parts:
        return f"{shown} leads out of the folder"
    if _FORBIDDEN.search(raw) or any(_RESERVED.match(p) or p.endswith((" ", ".")) for p in path.parts):
        return f"{shown} has a name that not every system can store"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"{shown} is a link or a special file"
    if entry.flag_bits & 1:
        return f"{shown} is encrypted"
    if len(path.parts) > limits.depth + 1:
        return f"{shown} lies {len(path.parts) - 1} folders deep (at most {limits.depth})"
    if entry.file_size > limits.file_mb * _MB:
        return f"{shown} unpacks to {entry.file_size / _MB:.0f} MB (at most {limits.file_mb:g})"
    if entry.file_size > _MB and entry.file_size > limits.ratio * max(entry.compress_size, 1):
        return f"{shown} unpacks to {entry.file_size / max(entry.compress_size, 1):.0f} times its size, as bombs do"
    return ""


def unpack_zip(source: Path | str | bytes, folder: Path | str, limits: ArchiveLimits | None = None) -> Path:
    """Unpack a zip of pictures into a new folder.

    Args:
        source: The file, or its content.
        folder: Where to; must not exist or be empty.
        limits: How much the zip may hold.

    Returns:
        The folder that holds one folder a class: ``folder``, or what a single wrapping folder in the zip became.

    Raises:
        PudNetError: If the zip is none, damaged or fails a check, or the folder is in use. Then nothing stays behind.
    """
    folder = Path(folder)
    name = "The zip" if isinstance(source, bytes) else str(source)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PudNetError(f"{folder} exists already; give a new or an empty folder.")
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            for entry in check_zip(archive, name, limits):
                target = beside / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as packed, target.open("xb") as file:
                    shutil.copyfileobj(packed, file)  # never more than the directory's size, whose checksum must fit
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    except FileNotFoundError as error:
        raise PudNetError(f"There is no file {name}.") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, PudNetError):
            raise
        raise PudNetError(f"{name} is damaged or no zip ({error}). Make it anew.") from error
    except OSError as error:
        raise PudNetError(f"{name} could not be unpacked into {folder}: {error.strerror or error}.") from error
    except Exception as error:  # zlib.error and lzma's, which have no common base
        raise PudNetError(f"{name} is damaged ({type(error).__name__}: {error}). Make it anew.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _unwrapped(folder)


def _unwrapped(folder: Path) -> Path:
    """Step through folders that hold one folder of folders and nothing else."""
    while True:
        inside = list(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir() or not any(p.is_dir() for p in inside[0].iterdir()):
            return folder
        folder = inside[0]
