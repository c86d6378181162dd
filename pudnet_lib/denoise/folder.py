"""A folder of noisy pictures in, the cleaned pictures and the network that cleaned them out.

Our choice; the paper has no counterpart. Pictures keep their size; no clean picture is needed, and nothing is trained.
"""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from pudnet_lib.core.model import ParameterModel
from pudnet_lib.denoise.predict import Denoiser, DenoiserConfig, predict_denoiser
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import write_atomically
from pudnet_lib.images.decode import decode_whole
from pudnet_lib.images.folder import files_below

TILE, MARGIN = 512, 32  # pixels; a U-Net of depth 2 looks less than 32 pixels far


@dataclass(frozen=True)
class CleanedFolder:
    """What came out.

    Attributes:
        network: The predicted denoiser.
        files: Cleaned pictures, in the order of the noisy ones.
        change: Mean root of the squared difference between a noisy picture and its cleaned one, in 8-bit units; near
            the noise's σ if noise is all that was taken away.
    """

    network: Denoiser
    files: tuple[Path, ...]
    change: float


def clean_folder(model: ParameterModel, folder: Path, out: Path, config: DenoiserConfig | None = None) -> CleanedFolder:
    """Predict a denoiser for a folder of noisy pictures and clean them all.

    Args:
        model: PudNet with a U-Net as its target.
        folder: Pictures, at any depth, of any sizes from ``config.patch`` pixels on.
        out: Where ``cleaned/…png`` and ``network.safetensors`` go.
        config: How the network is predicted.

    Returns:
        Network and files.

    Raises:
        PudNetError: If there is no picture, one is no image or too small, or ``out`` lies in ``folder``.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise PudNetError(f"{folder} is not a folder; expected a folder with noisy pictures.")
    if out.resolve().is_relative_to(folder.resolve()):
        raise PudNetError(
            f"{out} lies in {folder}: cleaned pictures would be taken for noisy ones. Name another --out."
        )
    paths = [Path(p) for p in files_below(folder)]
    if not paths:
        raise PudNetError(f"{folder} holds no file; expected noisy pictures (PNG, JPEG, …).")
    config = config or DenoiserConfig()
    pictures = [torch.from_numpy(decode_whole(path)) for path in paths]
    for path, picture in zip(paths, pictures, strict=True):
        if min(picture.shape[1:]) < config.patch:
            height, width = picture.shape[1:]
            raise PudNetError(
                f"{path} has {width}×{height} pixels; expected at least {config.patch}×{config.patch}. Remove "
                "it, or set DenoiserConfig.patch (8 or more)."
            )
    network = predict_denoiser(model, [picture.expand(3, -1, -1) for picture in pictures], config)
    network = Denoiser(network.backbone, network.target, {**network.origin, "folder": folder.name}, network.seconds)
    files, changes = [], []
    for picture, name in zip(pictures, _names(paths, folder), strict=True):
        cleaned = clean_picture(network, picture)
        write_atomically(out / "cleaned" / name, _png(cleaned))
        files.append(out / "cleaned" / name)
        changes.append(float((cleaned.float() - picture.float()).square().mean().sqrt()))
    network.save(out / "network.safetensors")
    return CleanedFolder(network, tuple(files), sum(changes) / len(changes))


def clean_picture(network: Denoiser, picture: Tensor, tile: int = TILE, margin: int = MARGIN) -> Tensor:
    """Clean one picture of any size, a tile at a time; the tiles' borders leave no trace.

    Args:
        network: The denoiser.
        picture: (C, H, W) uint8, C of 1 or 3.
        tile: Side of a tile in pixels, a multiple of 4.
        margin: Pixels that a tile sees around itself, a multiple of 4.

    Returns:
        (C, H, W) uint8; a gray picture stays gray.
    """
    channels, height, width = picture.shape
    colour, cleaned = picture.expand(3, -1, -1), torch.empty_like(picture)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            y, x = max(0, top - margin), max(0, left - margin)
            seen = colour[:, y : top + tile + margin, x : left + tile + margin]
            out = network(seen[None])[0, :, top - y :, left - x :][:, :tile, :tile]
            out = out.mean(0, keepdim=True) if channels == 1 else out
            cleaned[:, top : top + tile, left : left + tile] = (out * 255).round().to(torch.uint8)
    return cleaned


def _names(paths: list[Path], folder: Path) -> list[Path]:
    """Name the cleaned files: the noisy ones' names with .png, or with .png behind where two would meet."""
    relative = [path.relative_to(folder) for path in paths]
    count = Counter(path.with_suffix(".png") for path in relative)
    return [
        path.with_suffix(".png") if count[path.with_suffix(".png")] == 1 else path.with_name(f"{path.name}.png")
        for path in relative
    ]


def _png(picture: Tensor) -> bytes:
    buffer = io.BytesIO()
    pixels = picture.permute(1, 2, 0).squeeze(2) if picture.shape[0] == 1 else picture.permute(1, 2, 0)
    Image.fromarray(pixels.contiguous().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()
