"""A predicted network as a program: ``torch.export`` (loads with PyTorch alone) and ONNX, checked before it is kept.

Both take any number of floating-point images in [0, 1]; normalisation and class means are inside, class names, image
size and the preparation of pictures in the file's metadata. With ``any_size`` an ONNX file prepares a picture itself.
"""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import write_atomically

TOLERANCE, ONNX_TOLERANCE = 1e-5, 1e-4  # largest difference of a logit from torch.export's, from onnxruntime's
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


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
    """What a user of an exported file must know, as JSON can hold it."""
    told = {"input": "float32 (N, C, H, W) in [0, 1]", "prepare": preparation(network), "output": "logits (N, K)"}
    return told | {name: getattr(network, name) for name in ("class_names", "image_size", "channels", "origin")}


def _example_images(network: PredictedNetwork, count: int) -> Tensor:  # always the same
    shape = (count, network.channels, network.image_size, network.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(network.means)


def torch_export(network: PredictedNetwork, path: Path | str | None = None) -> ExportedProgram:
    """Export with ``torch.export``, any number of images, fixed height and width."""
    if network.means.dtype != torch.float32:
        raise PudNetError(f"The network computes in {network.means.dtype}; export it in float32: network.float().")
    example, more = _example_images(network, 2), _example_images(network, 5)
    try:
        with torch.no_grad():
            program = torch.export.export(network, (example,), dynamic_shapes={"images": {0: Dim("n", min=1)}})
    except Exception as error:  # torch.export has many error types, one for each thing it can't trace
        what = f"torch.export can't trace this {type(network.backbone).__name__}: {str(error).splitlines()[0]}"
        remedy = "Avoid branches on pixel values in its forward, or save the network as a .safetensors file."
        raise PudNetError(f"{what}. {remedy}") from error
    with torch.no_grad():
        difference = float((program.module()(more) - network(more)).abs().max())
    if not difference <= TOLERANCE:
        what = f"The exported program's logits differ by {difference:.2g}, more than {TOLERANCE:g}; it was not written"
        why = "A random part (dropout that is always on) or a branch on the number of images would do that."
        raise PudNetError(f"{what}. {why}")
    if path is not None:
        buffer = io.BytesIO()
        torch.export.save(program, buffer, extra_files={"pudnet.json": json.dumps(facts(network))})
        write_atomically(Path(path).expanduser(), buffer.getvalue())
    return program


def require_onnx() -> None:
    """Raise an error that tells how to install what is missing for ONNX."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise PudNetError(f"ONNX export needs {', '.join(missing)}. Install with: pip install 'pudnet-kit[export]'")


def onnx(network: PredictedNetwork, path: Path | str, images: Tensor | None = None, any_size: bool = False) -> float:
    """Write an ONNX file after checking it with onnxruntime; returns the largest difference of a logit."""
    require_onnx()
    content = onnx_bytes(network)
    checked = _example_images(network, 3) if images is None else images[:64].to(network.means.device)
    checked = checked.float() / 255 if checked.dtype == torch.uint8 else checked
    difference = max(_difference(network, content, {"images": part}, part) for part in (checked, checked[:1]))
    if any_size and difference <= ONNX_TOLERANCE:
        content = _with_preparation(content, network)
        for image in (checked[:8] * 255).round().to(torch.uint8):  # of the network's size: the very same logits
            picture = {"picture": image.permute(1, 2, 0).contiguous()}
            difference = max(difference, _difference(network, content, picture, image[None]))
    if not difference <= ONNX_TOLERANCE:
        what = f"onnxruntime's logits differ from PyTorch's by {difference:.2g}, more than {ONNX_TOLERANCE:g}"
        raise PudNetError(f"{what}; {path} was not written. Use torch_export instead.")
    write_atomically(Path(path).expanduser(), content)
    return difference


def onnx_bytes(network: PredictedNetwork) -> bytes:
    """Make the ONNX file's content: input ``images``, output ``logits``, metadata ``pudnet`` (JSON of ``facts``)."""
    program, named = torch_export(network), dict[str, Any](input_names=["images"], output_names=["logits"])
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its progress lines and deprecation warnings are nothing for the user's screen
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            exported: Any = torch.onnx.export(program, **named, dynamo=True, verbose=False, external_data=False)
    except Exception as error:  # each operator without a counterpart has its own error
        what = f"{type(network.backbone).__name__} has an operation that ONNX lacks: {str(error).splitlines()[0]}"
        raise PudNetError(f"{what}. Use torch_export instead.") from error
    finally:
        logger.setLevel(level)
    return _with_facts(exported.model_proto, facts(network))


def _with_facts(proto: Any, about: dict[str, Any]) -> bytes:
    del proto.metadata_props[:]
    proto.metadata_props.add(key="pudnet", value=json.dumps(about))
    return bytes(proto.SerializeToString())


#: One picture as the network wants it, in ONNX's own syntax; C, S and ``coloured`` are put in.
_PREPARATION = """
preparation (uint8[height, width, channels] picture) => (float[1, C, S, S] prepared)
<int64[1] zero = {0}, int64[1] two = {2}, int64[1] three = {3}, int64[1] four = {4}, int64[2] axes = {0, 1},
 int64[2] three_more = {0, 3}, int64[4] shape = {1, C, S, S}, float full = {255}, float half = {0.5}>
{
    floats = Cast <to = 1> (picture)
    sides = Shape <start = 0, end = 2> (picture)
    # Transparent pixels on white: a missing alpha channel is opaque.
    colours = Slice (floats, zero, three, two)
    padded = Pad (floats, three_more, full, two)
    fourth = Slice (padded, three, four, two)
    alpha = Div (fourth, full)
    below_white = Sub (colours, full)
    shaded = Mul (below_white, alpha)
    on_white = Add (shaded, full)
    # The middle square.
    short = ReduceMin <keepdims = 1> (sides)
    spare = Sub (sides, short)
    begin = Div (spare, two)
    end = Add (begin, short)
    square = Slice (on_white, begin, end, axes)
    COLOURED
    planes = Transpose <perm = [2, 0, 1]> (coloured)
    batch = Unsqueeze (planes, zero)
    small = Resize <mode = "linear", antialias = 1> (batch, "", "", shape)
    shifted = Add (small, half)
    whole = Floor (shifted)
    prepared = Div (whole, full)
}
"""
_RGB = """rgb = Concat <axis = 0> (short, short, three)
    coloured = Expand (square, rgb)"""
_GRAY = "coloured = ReduceMean <keepdims = 1> (square, two)"


def _with_preparation(content: bytes, network: PredictedNetwork) -> bytes:
    from onnx import compose, helper, load_model_from_string, parser

    model, size, channels = load_model_from_string(content), network.image_size, network.channels
    text = _PREPARATION.replace("C, S, S", f"{channels}, {size}, {size}")
    text = text.replace("COLOURED", _RGB if channels == 3 else _GRAY)
    before = helper.make_model(parser.parse_graph(text), opset_imports=model.opset_import, ir_version=model.ir_version)
    before = compose.add_prefix(before, "prepare/", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_models(before, model, [("prepared", "images")])
    about = facts(network) | {"input": "one upright picture: uint8 (H, W, C), C = 1, 3 or 4", "output": "logits (1, K)"}
    return _with_facts(merged, about | {"prepare": ["turn it upright by its EXIF orientation; the file does the rest"]})


def _difference(network: PredictedNetwork, content: bytes, given: dict[str, Tensor], images: Tensor) -> float:
    """Largest difference of a logit between onnxruntime, for what is given, and the network, for images."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    ours = session.run(["logits"], {name: tensor.cpu().numpy() for name, tensor in given.items()})[0]
    with torch.no_grad():
        return float(np.abs(ours - network(images).cpu().numpy()).max())
