"""What a picture is, and one picture file to one small square uint8 array: every decoding rule of the kit is here.

Our choice; the paper does not say how it reads images. The rules:

* The short side is resized to ``size`` and the middle square is kept (antialiased bilinear, as torchvision's Resize).
* EXIF orientation is applied, transparent pixels become white, only the first frame or page counts.
* Deep pictures (16-bit and 32-bit integers, floats) come to 8 bit by one ``Scale`` per folder: the bit depth that its
  brightest picture needs, or the folder's own range where that would leave almost no gray levels.
* Gray becomes RGB by repetition, RGB gray by the mean. More than ``MAX_PIXELS`` is refused; JPEGs are decoded reduced.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from pudnet_lib.core import hooks
from pudnet_lib.core.dataset import check_pixels
from pudnet_lib.errors import PudNetError

Pixels = npt.NDArray[np.uint8]
Scale = tuple[float, float]  # what becomes black and what white in a deep picture
#: The values in deep pictures: lowest, highest, the same without one in a thousand at each end; whether floats.
Range = tuple[float, float, float, float, bool]
MAX_PIXELS = 90_000_000
DECODE_VERSION = 2  # part of every cache's fingerprint: raise it when the pixels that this module returns change
_READ = "png apng jpg jpeg jpe jfif jif jp2 j2k jpx bmp dib gif webp avif tif tiff ppm pgm pbm pnm pfm tga ico pcx psd"
_NOT_READ = {
    "drawings and documents": "svg svgz eps ai pdf wmf emf", "HEIC and JPEG XL": "heic heif hif jxl",
    "raw photographs": "cr2 cr3 nef arw dng raf orf rw2", "scientific formats": "dcm nii fits exr npy npz",
}  # fmt: skip
_MAGIC = re.compile(rb"\x89PNG\r\n|\xff\xd8\xff|GIF8|RIFF....WEBP|II\*\0|MM\0\*", re.DOTALL)
# What file managers, network drives and systems put into folders and zips by themselves: passed over without a word.
_CLUTTER = re.compile(
    r"\..*|~\$.*|__macosx|__pycache__|thumbs\.db|ehthumbs.*\.db|desktop\.ini|icon\r|@eadir|@tmp|@recycle|@__thumb|"
    r"@recently-snapshot|#recycle|#snapshot|lost\+found|found\.\d+|\$recycle\.bin|recycler|\$extend|"
    r"system volume information|network trash folder|temporary items|.*:zone\.identifier",
    re.IGNORECASE,
)


def is_clutter(name: str) -> bool:
    """Tell what a system left behind from what a user put there, by its name."""
    return _CLUTTER.fullmatch(name) is not None


def why_no_picture(name: str, opened: Callable[[], Any]) -> str:
    """The one rule of what a picture is, for folders and zips: empty for a picture, else why it is none."""
    suffix = PurePosixPath(name).suffix.lower()[1:]
    for kind, endings in _NOT_READ.items():
        if suffix in endings.split():
            return f"{kind} (.{suffix}) are not read; save it as PNG or JPEG"
    if suffix in ("part", "partial", "crdownload", "download", "tmp", "temp", "icloud", "opdownload"):
        return "an unfinished download"
    if suffix in _READ.split():
        return ""
    with contextlib.suppress(OSError, RuntimeError), opened() as file:  # RuntimeError: encrypted in a zip
        return "" if _MAGIC.match(file.read(16)) else "no picture"
    return "no picture"


class PictureError(PudNetError):
    """A file that can't be read as a picture: ``why`` it can't, without its name."""

    def __init__(self, path: object, why: str, remedy: str = "Repair or remove it.") -> None:
        super().__init__(f"{'the picture' if hasattr(path, 'read') else path} is {why}. {remedy}")
        self.why = why


def range_of(values: npt.NDArray[Any]) -> Range:
    """Measure a picture's values."""
    if not np.isfinite(values.astype(np.float64)).all():
        raise PudNetError("not usable: it holds NaN or infinite pixels")
    body_low, body_high = np.percentile(values, (0.1, 99.9)).tolist()
    return float(values.min()), float(values.max()), body_low, body_high, values.dtype.kind == "f"


def common_scale(ranges: Sequence[Range]) -> tuple[Scale, str]:
    """Choose one scale for all deep pictures of a folder, and say it in one line (empty for whole 16-bit data)."""
    low, high, body_low, body_high = (f(r[i] for r in ranges) for i, f in enumerate((min, max, min, max)))
    steps = (1.25, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)[0 if all(r[4] for r in ranges) else 1 :]
    most = next((m for m in steps if high <= m), 0.0)
    most = 1.0 if most == 1.25 else most
    clipped = f"; values below 0 (down to {low:g}) are taken as 0" if low < 0 else ""
    if most == 0 or low < -0.3 * high or 0 < body_high - body_low < most / 8:
        scale = (body_low, body_high) if body_high > body_low else (low, high if high > low else low + 1)
        return scale, f"their own range, {scale[0]:g} to {scale[1]:g}, becomes 0 to 255"
    return (0.0, most), f"0 to {most:g} becomes 0 to 255{clipped}" if clipped or most != 65535 else ""


def deep_range(path: Path | str) -> Range | None:
    """Measure a picture of more than 8 bits per value; None for any other, which is told by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(26)
        if head[:3] in (b"\xff\xd8\xff", b"GIF") or (head[:4] == b"\x89PNG" and head[24:26] != b"\x10\0"):
            return None
        with Image.open(path) as image:
            deep = image.mode[0] in "IF" and image.width * image.height <= MAX_PIXELS
            return range_of(np.asarray(image)) if deep else None
    except Exception:  # whatever is wrong with the file, decoding it will say so
        return None


def decode_image(path: Any, size: int, channels: int, scale: Scale | None = None) -> Pixels:
    """Read one picture file (or an open one) as (C, H, W) uint8, H = W = ``size``."""
    try:
        with Image.open(path) as image:
            if image.format == "JPEG":
                ratio = 2 * size / min(image.size)  # twice the size wanted: off the work, not off the quality
                image.draft(None, (int(image.width * ratio) + 1, int(image.height * ratio) + 1))
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            return to_square(image, size, channels, scale)
    except PudNetError as error:
        raise PictureError(path, str(error)) from error
    except Image.DecompressionBombError as error:
        why = f"too large ({str(error).rstrip('.')}; at most {MAX_PIXELS // 1_000_000} million pixels)"
        raise PictureError(path, why, "Make the picture smaller first.") from error
    except FileNotFoundError as error:
        raise PictureError(path, "missing", "Expected an image file.") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, … on damaged files
        why = _what_else(path) or f"damaged or truncated ({type(error).__name__}: {error})"
        raise PictureError(path, why) from error


def _what_else(path: Any) -> str:
    """Name what people find in place of a picture."""
    try:
        with contextlib.nullcontext(path) if hasattr(path, "seek") else open(path, "rb") as file:
            file.seek(0)
            head = file.read(256)
    except OSError as error:
        return f"not readable ({error.strerror})"
    text = head.lstrip().lower()
    if not head:
        return "empty"
    if text.startswith((b"version https://git-lfs", b"/annex/objects", b"../.git/annex")):
        return "a pointer of git-lfs or git-annex, not the picture; run `git lfs pull` (or `git annex get`) there"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page, not a picture: its download failed"
    return "" if _MAGIC.match(head) else "not an image that Pillow can read"


def quiet_bombs() -> warnings.catch_warnings[None]:
    """Silence Pillow's warning about large pictures: ours is an error, at our own limit."""
    return warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)


def to_square(image: Image.Image, size: int, channels: int, scale: Scale | None = None) -> Pixels:
    """Turn a Pillow image of any mode and shape into a small square array (C, H, W) uint8; see ``decode_image``."""
    if channels not in (1, 3) or size < 1:
        raise PudNetError(f"{size} pixels and {channels} channels were asked for; expected at least 1, and 1 or 3.")
    image.load()
    if image.getexif().get(0x0112, 1) != 1:  # after load: some readers turn the picture themselves
        image = ImageOps.exif_transpose(image)
    plain = _plain(image, scale)
    if plain.size != (size, size):
        left, top = ((side - min(plain.size)) / 2 for side in plain.size)
        middle = (left, top, left + min(plain.size), top + min(plain.size))
        plain = plain.resize((size, size), Image.Resampling.BILINEAR, middle, reducing_gap=3.0)
    if plain.mode == "RGBA":  # transparent pixels on white
        plain = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain).convert("RGB")
    pixels: Pixels = np.asarray(plain)  # (H, W) or (H, W, 3)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None].repeat(channels, axis=2)
    elif channels == 1:
        pixels = ((pixels.sum(2, dtype=np.uint16, keepdims=True) + 1) // 3).astype(np.uint8)  # the mean, rounded
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _plain(image: Image.Image, scale: Scale | None) -> Image.Image:
    """Bring any mode to L, RGB or RGBA, 8 bit."""
    if image.mode[0] in "IF":  # 16-bit and 32-bit integers, floats
        values = np.asarray(image)
        found = range_of(values)  # refuses NaN
        low, high = scale or common_scale([found])[0]
        scaled = (values.astype(np.float64) - low) * (255 / (high - low))
        return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return image.convert("RGBA")
    return image.convert("L" if image.mode in "1L" else "RGB")  # also P, CMYK, YCbCr, LAB, HSV, RGBX


def to_pixels(image: Any, size: int, channels: int) -> Pixels:
    """A Pillow image, an array, a file's path, bytes or an open file to (C, size, size) uint8, for ``classify``."""
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3, 4):
            image = image.transpose(1, 2, 0)
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
            raise PudNetError(f"The image has shape {image.shape}; expected (H, W), (H, W, C) or (C, H, W).")
        check_pixels(torch.from_numpy(np.ascontiguousarray(image)), "the image")
        image = image if image.dtype == np.uint8 else (image * 255).round().astype(np.uint8)
        image = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
    if isinstance(image, Image.Image):
        return to_square(image, size, channels)
    image = io.BytesIO(image) if isinstance(image, bytes) else image
    return decode_image(image if hasattr(image, "read") else Path(image).expanduser(), size, channels)


hooks.register(to_pixels=to_pixels)
