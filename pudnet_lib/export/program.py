"""A predicted network as a ``torch.export`` program: loads with PyTorch alone, for any number of images.

Our choice; the paper has no counterpart. The program takes floating-point images in [0, 1]; the normalisation and the
class means are inside it.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import write_atomically

#: Largest difference of a logit before and after.
TOLERANCE = 1e-5


def preparation(network: PredictedNetwork) -> list[str]:
    """How a picture must be prepared for this network, one step a line, as the kit's own reading does it."""
    size, colour = network.image_size, "RGB" if network.channels == 3 else "gray (mean of RGB)"
    return [
        "turn it upright by its EXIF orientation",
        "put transparent pixels on white",
        "keep the middle square (side: the picture's short side)",
        f"resize it to {size} x {size} pixels, bilinear and antialiased (Pillow's BILINEAR)",
        f"{colour}, uint8 / 255: float32 in [0, 1], channels first",
    ]


def facts(network: PredictedNetwork) -> dict[str, Any]:
    """What a user of an exported file must know, as JSON can hold it: class names, image size, preparation, origin."""
    return {
        "class_names": list(network.class_names),
        "image_size": network.image_size,
        "channels": network.channels,
        "input": "float32 (N, C, H, W) in [0, 1]",
        "prepare": preparation(network),
        "output": "logits (N, K)",
        "origin": network.origin,
    }


def example_images(network: PredictedNetwork, count: int = 2) -> Tensor:
    """Make images to trace with: (count, C, H, H) float in [0, 1], always the same, on its device."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, network.channels, network.image_size, network.image_size)
    return torch.rand(shape, generator=generator, dtype=torch.float32).to(network.means)


def torch_export(network: PredictedNetwork, path: Path | str | None = None) -> ExportedProgram:
    """Export with ``torch.export``, any number of images, fixed height and width."""
    if network.means.dtype != torch.float32:
        raise PudNetError(f"The network computes in {network.means.dtype}; export it in float32: network.float().")
    images = example_images(network)
    try:
        with torch.no_grad():
            program = torch.export.export(network, (images,), dynamic_shapes={"images": {0: Dim("n", min=1)}})
    except Exception as error:  # torch.export has many error types, one for each thing it can't trace
        raise PudNetError(
            f"torch.export can't trace this {type(network.backbone).__name__}: {str(error).splitlines()[0]}. Avoid "
            "branches on pixel values in its forward, or save the network as a .safetensors file."
        ) from error
    more = example_images(network, 5)
    with torch.no_grad():
        difference = float((program.module()(more) - network(more)).abs().max())
    if not difference <= TOLERANCE:
        raise PudNetError(
            f"The exported program's logits differ by {difference:.2g}, more than {TOLERANCE:g}; it was not written. "
            "A random part (dropout that is always on) or a branch on the number of images would do that."
        )
    if path is not None:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={"pudnet.json": json.dumps(facts(network))})
        write_atomically(Path(path).expanduser(), buffer.getvalue())
    return program
