"""A zip of pictures to an image folder, checked before anything is written.

Our choice. All that the zip's directory tells is checked first: paths that lead out, links, bombs, encryption, too many
files. Then the pictures are written, under names that this system can store, into a folder that is renamed at the end.
"""

import io
import os
import re
import shutil
import stat
import unicodedata
import uuid
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath

from pudnet_lib.errors import PudNetError
from pudnet_lib.files import PREFIX
from pudnet_lib.images.decode import is_clutter, why_no_picture

_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"|?*\\]' if os.name == "nt" else r"[\x00-\x1f]")
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_MB = 2**20
Skipped = list[tuple[str, str]]
# How much a zip may hold: pictures, megabytes of one and of all unpacked, times its packed size, folders deep.
FILES, FILE_MB, TOTAL_MB, RATIO, DEPTH = 10_000, 50.0, 1000.0, 200.0, 32


def check_zip(archive: zipfile.ZipFile, name: str, skipped: Skipped, said: list[str]) -> dict[str, zipfile.ZipInfo]:
    """Check everything that a zip's directory tells; gives its pictures by the path that each is written to."""
    kept, seen = dict[str, zipfile.ZipInfo](), set[str]()
    names, garbled = _names(archive.infolist())
    if garbled:
        one = next(n for n in names if not n.isascii())
        said.append(f"{garbled} names are in an unknown encoding, such as {one!r}; make the zip anew with UTF-8 names.")
    for entry, path in zip(archive.infolist(), names, strict=True):
        parts = PurePosixPath(path).parts
        clutter = path.endswith("/") or any(map(is_clutter, parts))
        why = "" if clutter else why_no_picture(path, partial(archive.open, entry))
        if problem := _problem(entry, path, not (clutter or why)):
            raise PudNetError(f"{name}: {problem}; nothing was unpacked. Remove it from the zip.")
        if why:
            skipped.append((path, why))
        if clutter or why:
            continue
        stem, suffix = os.path.splitext("/".join(map(_stored, parts)))
        ways = (f"{stem}{suffix}", *(f"{stem}~{number}{suffix}" for number in range(2, len(seen) + 3)))
        stored = next(way for way in ways if way.casefold() not in seen)  # no two meet where case does not count
        seen.add(stored.casefold())
        kept[stored] = entry
    if len(kept) > FILES:
        raise PudNetError(f"{name} holds more than {FILES} pictures; make several zips or leave some out.")
    if sum(entry.file_size for entry in kept.values()) > TOTAL_MB * _MB:
        raise PudNetError(f"{name} unpacks to more than {TOTAL_MB:g} MB; leave some pictures out.")
    clash = next((n for n in kept for p in PurePosixPath(n).parents if str(p).casefold() in seen), None)
    if clash:
        raise PudNetError(f"{name}: a folder of {clash!r} has the name of a picture; rename one of them.")
    if not kept:
        inner = [path for path, _ in skipped if path.lower().endswith((".zip", ".tar", ".gz", ".rar", ".7z"))]
        hint = f" It holds {inner[0]!r}: unpack that first." if inner else ""
        raise PudNetError(f"{name} holds no picture; expected one folder a class with pictures in it.{hint}")
    return kept


def _names(entries: list[zipfile.ZipInfo]) -> tuple[list[str], int]:
    """The entries' names as their makers meant them, and how many are in an encoding that nothing tells."""
    names, garbled = [], 0
    for entry in entries:
        raw = getattr(entry, "orig_filename", entry.filename)  # before zipfile cuts it at a NUL or turns separators
        if not entry.flag_bits & 0x800 and not raw.isascii():
            try:
                raw = raw.encode("cp437").decode("utf-8")  # Info-ZIP and macOS write UTF-8 and do not say so
            except UnicodeError:
                garbled += 1
        names.append(unicodedata.normalize("NFC", raw))
    if not any("/" in n for n in names):  # old .NET and PowerShell
        names = [n.replace("\\", "/") for n in names]
    return names, garbled


def _stored(part: str) -> str:  # a name that this system can store
    safe = _FORBIDDEN.sub("_", part)
    if os.name == "nt" and (_RESERVED.match(safe) or safe.endswith((" ", "."))):
        safe = f"{safe.rstrip(' .')}_"
    if len(safe.encode("utf-8", "replace")) <= 250:
        return safe
    stem, suffix = os.path.splitext(safe)
    return stem.encode("utf-8", "replace")[:235].decode("utf-8", "ignore") + suffix[:10]


def _problem(entry: zipfile.ZipInfo, raw: str, picture: bool) -> str:  # of one entry; empty if there is none
    path, kind = PurePosixPath(raw), stat.S_IFMT(entry.external_attr >> 16)
    size, ratio = entry.file_size / _MB, entry.file_size / max(entry.compress_size, 1)
    out = path.is_absolute() or re.match(r"[A-Za-z]:([/\\]|$)|\\", raw) or ".." in re.split(r"[/\\]", raw)
    for wrong, what in (
        (out, "leads out of the folder"),
        (kind not in (0, stat.S_IFREG, stat.S_IFDIR), "is a link or a special file"),
        (picture and entry.flag_bits & 1, "is encrypted"),
        (picture and len(path.parts) > DEPTH + 1, f"lies over {DEPTH} folders deep"),
        (picture and size > FILE_MB, f"unpacks to {size:.0f} MB (at most {FILE_MB:g})"),
        (picture and size > 1 and ratio > RATIO, f"unpacks to {ratio:.0f} times its size, as bombs do"),
    ):
        if wrong:
            return f"{raw[:80]!r} {what}"
    return ""


def unpack_zip(
    source: Path | bytes, folder: Path, name: str, skipped: Skipped | None = None, said: list[str] | None = None
) -> Path:
    """Unpack a zip (a file or its bytes) into a new folder, whole or not at all; what was noticed joins the lists."""
    beside = folder.with_name(f".{PREFIX}{uuid.uuid4().hex}")
    notes = [] if skipped is None else skipped, [] if said is None else said
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            for stored, entry in check_zip(archive, name, *notes).items():
                (beside / stored).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as packed, (beside / stored).open("xb") as file:
                    shutil.copyfileobj(packed, file)  # never more than the directory's size, whose checksum must fit
        beside.rename(folder)
    except PudNetError:
        raise
    except OSError as error:
        raise PudNetError(f"{name} could not be unpacked: {error.strerror or error}.") from error
    except Exception as error:  # zipfile's, zlib's and lzma's have no common base
        raise PudNetError(f"{name} is damaged or no zip ({error}). Make it anew.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder
