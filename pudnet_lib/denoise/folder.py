"""A folder or zip of noisy pictures in, the cleaned pictures and the network that cleaned them out.

Our choice. Pictures keep their size, 16-bit gray its depth, transparency its alpha; every page of a file is cleaned.
What can't be kept (16 bit a colour, CMYK, EXIF) is said in one sentence. Patches for the sketch are drawn first, then
one picture at a time is cleaned, so that memory does not grow with the folder.
"""

import io
import itertools
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pudnet_lib.core.model import ParameterModel
from pudnet_lib.denoise.predict import Denoiser, DenoiserConfig, patches, predict_denoiser
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import write_atomically
from pudnet_lib.images.archive import unpack_zip
from pudnet_lib.images.decode import MAX_PIXELS, quiet_bombs
from pudnet_lib.images.folder import refuse_inside, walk


class Picture(NamedTuple):
    """A page: (C, H, W) uint8, or float in 0..65535 for 16-bit gray; alpha, colour profile, and what was dropped."""

    pixels: Tensor
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    dropped: tuple[str, ...] = ()

    @property
    def deep(self) -> bool:
        """Whether it has 16 bits."""
        return self.pixels.is_floating_point()


class CleanedFolder(NamedTuple):
    """What came out."""

    network: Denoiser
    files: tuple[Path, ...]  # cleaned pictures, in the order of the noisy ones
    change: float  # root of the mean squared difference to the noisy pictures, in 8-bit units
    skipped: tuple[tuple[str, str], ...] = ()  # files that were passed over, each with the reason
    notes: tuple[str, ...] = ()  # what could not be kept, one sentence each

    def lines(self) -> list[str]:
        """The result in words, a line each."""
        found = f"{len(self.files)} pictures cleaned; they differ from the noisy ones by {self.change:.1f} of 255 "
        found += "(root mean square), which is near the noise's σ if noise is all that went"
        return [found, *(f"skipped {name}: {why}" for name, why in self.skipped), *self.notes]


def clean_folder(
    model: ParameterModel, folder: Path, out: Path, config: DenoiserConfig | None = None,
    on_error: Literal["raise", "skip"] = "skip",
) -> CleanedFolder:  # fmt: skip
    """Predict a denoiser for a folder of noisy pictures and clean them all."""
    folder, out, config = Path(folder), Path(out), config or DenoiserConfig()
    skipped: list[tuple[str, str]] = []
    if folder.suffix.lower() == ".zip" and folder.is_file():
        with tempfile.TemporaryDirectory() as unpacked:
            root = unpack_zip(folder, Path(unpacked) / "pictures", name=folder.name, skipped=skipped)
            return _clean(model, root, folder.stem, out, config, skipped, on_error)
    if not folder.is_dir():
        raise PudNetError(f"{folder} is not a folder; expected a folder, or a zip, with noisy pictures.")
    refuse_inside(out, folder)
    return _clean(model, folder, folder.name, out, config, skipped, on_error)


def _clean(
    model: ParameterModel, root: Path, name: str, out: Path, config: DenoiserConfig, skipped: list[tuple[str, str]],
    on_error: str,
) -> CleanedFolder:  # fmt: skip
    tree, generator = walk(root), torch.Generator().manual_seed(config.seed)
    files, skipped = tree.below(), [*skipped, *tree.passed_over()]
    usable: list[tuple[str, int, str]] = []  # file, page, the name of what becomes of it
    cut, highest = list[Tensor](), 0.0
    for file in files:
        try:
            for page, (label, picture) in enumerate(read_pages(root / file, file)):
                height, width = picture.pixels.shape[1:]
                if min(height, width) < config.patch:
                    skipped.append((label, f"{width}×{height} pixels; expected at least {config.patch}×{config.patch}"))
                    continue
                highest = max(highest, float(picture.pixels.max())) if picture.deep else highest
                share = -(-config.sketch_images // len(files))
                cut.extend(patches([picture.pixels.expand(3, -1, -1)], share, config.patch, generator))
                usable.append((file, page, label))
        except PudNetError as error:
            if on_error == "raise":
                raise PudNetError(f"{file}: {error}. Repair or remove it, or pass on_error='skip'.") from error
            skipped.append((file, str(error)))
    if not usable:
        why = f": {skipped[0][0]}: {skipped[0][1]}" if skipped else "; expected noisy pictures (PNG, JPEG, …)"
        raise PudNetError(f"{name} holds no picture that can be cleaned{why}.")
    # One scale for the whole folder; a camera's 16-bit file may really hold fewer bits.
    levels = next(2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if highest < 2**bits)
    drawn = [cut[i] for i in torch.randperm(len(cut), generator=generator)[: config.sketch_images].tolist()]
    sketch = torch.stack([p / levels if p.is_floating_point() else p / 255 for p in drawn])
    network = predict_denoiser(model, sketch, config)
    network.origin |= {"images": len(usable), "folder": name}
    targets = dict(zip([u[:2] for u in usable], distinct_names([u[2] for u in usable]), strict=True))
    written, changes, dropped = [], [], Counter[str]()
    for file in dict.fromkeys(u[0] for u in usable):
        for page, (_, picture) in enumerate(read_pages(root / file, file)):
            if (file, page) in targets:
                written.append(out / "cleaned" / targets[file, page])
                changes.append(_write_cleaned(network, picture, levels, written[-1]))
                dropped.update(picture.dropped)
    network.save(out / "network.safetensors")
    notes = [f"{count} of {len(written)} pictures: {what}." for what, count in dropped.items()]
    return CleanedFolder(network, tuple(written), sum(changes) / len(changes), tuple(skipped), tuple(notes))


def _write_cleaned(network: Denoiser, picture: Picture, levels: float, file: Path) -> float:
    """Clean and write one picture; returns how much it changed. All that it held in memory goes when it is done."""
    most = levels if picture.deep else 255.0
    noisy = picture.pixels / levels if picture.deep else picture.pixels
    cleaned = (clean_picture(network, noisy) * most).round_()
    array = cleaned.permute(1, 2, 0).numpy().astype(np.uint16 if picture.deep else np.uint8)
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", icc_profile=picture.profile)
    write_atomically(file, buffer.getvalue())
    return 255 / most * float(cleaned.sub_(picture.pixels).square_().mean().sqrt())


def read_pages(source: Path | io.BytesIO, name: str) -> Iterator[tuple[str, Picture]]:
    """Read a file's pages, upright, one after the other, each with its name; errors' words leave out the name."""
    try:
        with quiet_bombs(), Image.open(source) as image:
            pages = getattr(image, "n_frames", 1)
            for page in range(pages):
                image.seek(page)
                if image.width * image.height > MAX_PIXELS:
                    raise PudNetError(f"more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller first")
                path = PurePosixPath(name)
                label = name if pages == 1 else str(path.with_name(f"{path.stem}-page{page + 1}{path.suffix}"))
                yield label, _picture(image)
    except PudNetError:
        raise
    except UnidentifiedImageError:
        raise PudNetError("not an image that Pillow can read") from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, … on damaged files
        raise PudNetError(f"damaged or truncated ({type(error).__name__})") from error


def _picture(image: Image.Image) -> Picture:
    stored = str(getattr(image, "tile", ""))  # how the file holds its pixels; gone once they are loaded
    notes = set() if image.format == "TIFF" else set(image.getexif()) - {0x0112}  # a TIFF's tags, the orientation: none
    dropped = ["the camera's notes (EXIF) are left out"] if notes else []
    upright = ImageOps.exif_transpose(image)
    mode, profile = upright.mode, image.info.get("icc_profile")
    if mode == "F" or (mode.startswith("I") and (values := np.asarray(upright)).size and values.max() > 65535):
        raise PudNetError("floating-point or 32-bit pixels; save it as 8 or 16 bit")
    if mode.startswith("I"):
        return Picture(torch.from_numpy(np.asarray(upright).astype(np.float32))[None], None, profile, tuple(dropped))
    if "16" in stored and mode in ("RGB", "RGBA", "LA"):
        dropped.append("16 bit a colour were read as 8")
    if mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        dropped.append(f"{mode} became RGB")
        profile = None
    alpha = None
    if "A" in mode.upper() or "transparency" in upright.info:
        alpha = np.asarray((upright := upright.convert("RGBA")).getchannel("A"))
    plain = upright.convert("L" if mode in ("1", "L", "LA", "La") else "RGB")
    pixels = np.atleast_3d(np.asarray(plain)).transpose(2, 0, 1).copy()
    return Picture(torch.from_numpy(pixels), alpha, profile, tuple(dropped))


def clean_picture(network: Denoiser, picture: Tensor, tile: int = 512, margin: int = 40) -> Tensor:
    """Clean a (C, H, W) picture of any size, uint8 or about [0, 1], tile by tile without a trace: float in [0, 1]."""
    # A U-Net of depth 2 and its local means look less than 40 pixels far.
    channels, height, width = picture.shape
    colour, cleaned = picture.expand(3, -1, -1), torch.empty(picture.shape)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            y, x = max(0, top - margin), max(0, left - margin)
            seen = colour[:, y : top + tile + margin, x : left + tile + margin]
            out = network(seen[None])[0, :, top - y :, left - x :][:, :tile, :tile]
            cleaned[:, top : top + tile, left : left + tile] = out.mean(0, keepdim=True) if channels == 1 else out
    return cleaned


def distinct_names(names: Sequence[str]) -> list[str]:
    """Name the cleaned files: .png for the suffix; where two would meet on any system, a longer name or a number."""

    def fold(name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold()

    short = [str(PurePosixPath(name).with_suffix(".png")) for name in names]
    count = Counter(fold(name) for name in short)
    taken = {fold(str(folder)) for name in names for folder in PurePosixPath(name).parents}  # no file may be called so
    chosen: dict[int, str] = {}
    for index in sorted(range(len(names)), key=lambda i: count[fold(short[i])] > 1):  # those without a rival first
        tries = [short[index]] * (count[fold(short[index])] == 1) + [f"{names[index]}.png"]
        numbered = (f"{short[index].removesuffix('.png')}-{number}.png" for number in itertools.count(len(tries) + 1))
        chosen[index] = next(name for name in itertools.chain(tries, numbered) if fold(name) not in taken)
        taken.add(fold(chosen[index]))
    return [chosen[index] for index in range(len(names))]
