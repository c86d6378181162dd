"""One picture file to one small square uint8 array: every decoding rule of the kit is here.

Our choice; the paper does not say how it reads images. The rules:

* The short side is resized to ``size`` and the middle square is kept (antialiased bilinear, as torchvision's Resize).
* EXIF orientation is applied. Transparent pixels become white. 16-bit gray is scaled to 8 bit.
* Gray becomes RGB by repetition; RGB becomes gray by the mean, as in ``ImageDataset.with_channels``.
* A picture of more than ``MAX_PIXELS`` is refused (decompression bombs). A JPEG is decoded at a reduced scale.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pudnet_lib.core import hooks
from pudnet_lib.errors import PudNetError

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 90_000_000
# Part of every cache's fingerprint: raise it when the pixels that this module returns change.
DECODE_VERSION = 1
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REMEDY = "Repair or remove the file, or pass on_error='skip' to leave such files out."


def decode_image(path: Path | str, size: int, channels: int) -> Pixels:
    """Read one picture file.

    Args:
        path: The file, in any format that Pillow reads.
        size: H = W of the result, in pixels.
        channels: C, 1 or 3.

    Returns:
        (C, H, W) uint8.

    Raises:
        PudNetError: If the file is missing, no image, damaged, or too large to decode; the message names it.
    """
    with _named_errors(path), Image.open(path) as image:
        if image.format == "JPEG":
            # twice the size wanted: a power of two off the work, not off the quality
            scale = 2 * size / min(image.size)
            image.draft(None, (int(image.width * scale) + 1, int(image.height * scale) + 1))
        _check_size(path, image)
        return to_square(image, size, channels)


def decode_whole(path: Path | str) -> Pixels:
    """Read one picture file at its own size.

    Args:
        path: The file, in any format that Pillow reads.

    Returns:
        (C, H, W) uint8, C = 1 for a gray picture and 3 for any other; transparent pixels white.

    Raises:
        PudNetError: If the file is missing, no image, damaged, or too large to decode; the message names it.
    """
    with _named_errors(path), Image.open(path) as image:
        _check_size(path, image)
        image.load()
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        plain = _on_white(_plain(image))
        if orientation in _UPRIGHT:
            plain = plain.transpose(_UPRIGHT[orientation])
        pixels: Pixels = np.atleast_3d(np.asarray(plain))  # (H, W, C)
        return pixels.transpose(2, 0, 1).copy()


@contextmanager
def _named_errors(path: Path | str) -> Iterator[None]:
    """Turn whatever reading a picture raises into an error that names the file."""
    try:
        yield
    except PudNetError as error:
        raise error if str(path) in str(error) else PudNetError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        raise PudNetError(f"{path} is not an image that Pillow can read. {_REMEDY}") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error).rstrip(".")) from error
    except FileNotFoundError as error:
        raise PudNetError(f"{path} does not exist; expected an image file.") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, … on damaged files
        raise PudNetError(f"{path} is damaged or truncated ({type(error).__name__}: {error}). {_REMEDY}") from error


def _check_size(path: Path | str, image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path, f"{image.width} x {image.height} pixels")


def _on_white(image: Image.Image) -> Image.Image:
    """Put a picture with transparent pixels on white."""
    if image.mode != "RGBA":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _too_large(path: Path | str, found: str) -> PudNetError:
    return PudNetError(
        f"{path} is too large ({found}); expected at most {MAX_PIXELS // 1_000_000} million pixels. "
        "Make the picture smaller first, or pass on_error='skip' to leave such files out."
    )


def quiet_bombs() -> warnings.catch_warnings[None]:
    """Silence Pillow's warning about large pictures: ours is an error, at our own limit."""
    return warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning)


def to_square(image: Image.Image, size: int, channels: int) -> Pixels:
    """Turn a Pillow image of any mode and shape into a small square array.

    Args:
        image: The image; not changed, except that its pixels are loaded.
        size: H = W of the result, in pixels.
        channels: C, 1 or 3.

    Returns:
        (C, H, W) uint8.

    Raises:
        PudNetError: If the pixels' range is unknown (32-bit integers beyond 16 bit, floats beyond 0..255).
    """
    if channels not in (1, 3):
        raise PudNetError(f"{channels} channels were asked for; expected 1 or 3.")
    if size < 1:
        raise PudNetError(f"A size of {size} pixels was asked for; expected at least 1.")
    image.load()
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)  # after load: some readers turn the picture themselves
    plain = _plain(image)
    short = min(plain.size)
    left, top = (plain.width - short) / 2, (plain.height - short) / 2
    if plain.size != (size, size):
        box = (left, top, left + short, top + short)
        plain = plain.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap=3.0)
    if orientation in _UPRIGHT:  # the middle square of a turned picture is the turned middle square
        plain = plain.transpose(_UPRIGHT[orientation])
    plain = _on_white(plain)
    pixels: Pixels = np.asarray(plain)  # (H, W) or (H, W, 3)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None].repeat(channels, axis=2)
    elif channels == 1:
        pixels = ((pixels.sum(2, dtype=np.uint16, keepdims=True) + 1) // 3).astype(np.uint8)  # the mean, rounded
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _plain(image: Image.Image) -> Image.Image:
    """Bring any mode to L, RGB or RGBA, 8 bit."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_eight_bit(np.asarray(image), mode))
    if "transparency" in image.info or mode in ("RGBA", "RGBa", "LA", "La", "PA"):
        return image.convert("RGBA")
    if mode in ("L", "RGB"):
        return image
    if mode == "1":
        return image.convert("L")
    return image.convert("RGB")  # P, CMYK, YCbCr, LAB, HSV, RGBX


def _eight_bit(values: npt.NDArray[np.generic], mode: str) -> Pixels:
    """Scale 16-bit integers (0..65535) and floats (0..1, 0..255 or 0..65535, whichever fits) to 8 bit."""
    floats = values.astype(np.float64)
    low, high = float(floats.min()), float(floats.max())
    most = 65535.0 if mode != "F" else next((m for m in (1.0, 255.0) if high <= m), 65535.0)
    if not (low >= 0 and high <= most):  # also false for NaN
        raise PudNetError(
            f"pixels range over [{low:g}, {high:g}]; expected 0..{most:g} and no NaN in a {mode} image. "
            "Save it as 8 bit."
        )
    return (floats * (255 / most)).round().astype(np.uint8)


def to_pixels(image: Image.Image | Path | str, size: int, channels: int) -> Pixels:
    """A Pillow image or a file to (C, size, size) uint8, for ``PredictedNetwork.classify``."""
    found = to_square(image, size, channels) if isinstance(image, Image.Image) else decode_image(image, size, channels)
    return np.ascontiguousarray(found)


hooks.register(to_pixels=to_pixels)
