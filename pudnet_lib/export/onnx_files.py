"""A predicted network as an ONNX file, checked with onnxruntime before anyone relies on it.

Our choice; the paper has no counterpart. Class names, image size and the preparation of pictures are in the file's
metadata, so that it needs nothing beside it; with ``any_size`` the file prepares a picture itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.program import example_images, facts, torch_export
from pudnet_lib.files import write_atomically

#: Largest difference of a logit between PyTorch and onnxruntime.
TOLERANCE = 1e-4
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_export() -> None:
    """Raise an error that tells how to install what is missing for ONNX."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise PudNetError(f"ONNX export needs {', '.join(missing)}. Install with: pip install 'pudnet-kit[export]'")


def onnx(network: PredictedNetwork, path: Path | str, images: Tensor | None = None, any_size: bool = False) -> float:
    """Write an ONNX file after checking it with onnxruntime."""
    require_export()
    content = onnx_bytes(network)
    checked = example_images(network, 3) if images is None else images[:64].to(network.means.device)
    checked = checked.float() / 255 if checked.dtype == torch.uint8 else checked
    difference = max(_difference(network, content, checked), _difference(network, content, checked[:1]))
    if any_size and difference <= TOLERANCE:
        content = with_preparation(content, network)
        difference = max(difference, _difference_of_pictures(network, content, checked))
    if not difference <= TOLERANCE:
        raise PudNetError(
            f"onnxruntime's logits differ from PyTorch's by {difference:.2g}, more than {TOLERANCE:g}; {path} was not "
            "written. Use torch_export instead."
        )
    write_atomically(Path(path).expanduser(), content)
    return difference


def onnx_bytes(network: PredictedNetwork) -> bytes:
    """Make the ONNX file's content: input ``images``, output ``logits``, metadata ``pudnet`` (JSON of ``facts``)."""
    program = torch_export(network)
    try:
        with _quiet():
            exported = torch.onnx.export(
                program,
                input_names=["images"],
                output_names=["logits"],
                dynamo=True,
                verbose=False,
                external_data=False,
            )
    except Exception as error:  # each operator without a counterpart has its own error
        raise PudNetError(
            f"{type(network.backbone).__name__} has an operation that ONNX lacks: {str(error).splitlines()[0]}. "
            "Use torch_export instead."
        ) from error
    assert exported is not None
    return _with_facts(exported.model_proto, facts(network))


def _with_facts(proto: Any, about: dict[str, Any]) -> bytes:
    entry = proto.metadata_props.add()
    entry.key, entry.value = "pudnet", json.dumps(about)
    content: bytes = proto.SerializeToString()
    return content


def with_preparation(content: bytes, network: PredictedNetwork) -> bytes:
    """Put the preparation of one picture, (H, W, 1, 3 or 4) uint8, before an ONNX network."""
    import onnx as onnx_package
    from onnx import TensorProto, compose, helper, numpy_helper

    size, channels = network.image_size, network.channels
    model = onnx_package.load_model_from_string(content)
    numbers = {
        "zero": [0], "one": [1], "two": [2], "three": [3], "four": [4], "axes": [0, 1], "last": [2], "image": [0],
        "shape": [1, channels, size, size],
    }  # fmt: skip
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    floats = {"full": 255.0, "shift": 0.5, "opaque_value": 1.0}
    constants += [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in floats.items()]
    node = helper.make_node
    colour = (
        [node("Expand", ["square", "rgb"], ["coloured"]), node("Concat", ["sides", "three"], ["rgb"], axis=0)][::-1]
        if channels == 3
        else [node("ReduceMean", ["square", "last"], ["coloured"], keepdims=1)]
    )
    nodes = [
        node("Cast", ["picture"], ["floats"], to=TensorProto.FLOAT),
        # Transparent pixels on white: a missing alpha channel is opaque.
        node("Slice", ["floats", "zero", "three", "last"], ["colours"]),
        node("Slice", ["floats", "three", "four", "last"], ["alphas"]),
        node("Shape", ["picture"], ["sides"], start=0, end=2),
        node("Concat", ["sides", "one"], ["plane"], axis=0),
        node("Expand", ["full", "plane"], ["opaque"]),
        node("Concat", ["alphas", "opaque"], ["with_opaque"], axis=2),
        node("Slice", ["with_opaque", "zero", "one", "last"], ["alpha255"]),
        node("Div", ["alpha255", "full"], ["alpha"]),
        node("Sub", ["colours", "full"], ["below_white"]),
        node("Mul", ["below_white", "alpha"], ["shaded"]),
        node("Add", ["shaded", "full"], ["on_white"]),
        # The middle square.
        node("ReduceMin", ["sides"], ["short"], keepdims=1),
        node("Sub", ["sides", "short"], ["spare"]),
        node("Div", ["spare", "two"], ["begin"]),
        node("Add", ["begin", "short"], ["end"]),
        node("Slice", ["on_white", "begin", "end", "axes"], ["square_sides"]),
        node("Identity", ["square_sides"], ["square"]),
        *colour,
        node("Transpose", ["coloured"], ["planes"], perm=[2, 0, 1]),
        node("Unsqueeze", ["planes", "image"], ["batch"]),
        node("Resize", ["batch", "", "", "shape"], ["small"], mode="linear", antialias=1),
        node("Add", ["small", "shift"], ["shifted"]),
        node("Floor", ["shifted"], ["whole"]),
        node("Div", ["whole", "full"], ["prepared"]),
    ]
    if channels == 3:  # the square's own sides, not the picture's
        nodes.insert(nodes.index(colour[0]), node("Shape", ["square"], ["square_shape"], start=0, end=2))
        colour[0].input[0] = "square_shape"
    graph = helper.make_graph(
        nodes,
        "preparation",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["height", "width", "channels"])],
        [helper.make_tensor_value_info("prepared", TensorProto.FLOAT, [1, channels, size, size])],
        constants,
    )
    before = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    before = compose.add_prefix(before, "prepare/", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_models(before, model, [("prepared", "images")])
    del merged.metadata_props[:]
    about = facts(network) | {"input": "one upright picture: uint8 (H, W, C), C = 1, 3 or 4", "output": "logits (1, K)"}
    return _with_facts(merged, about | {"prepare": ["turn it upright by its EXIF orientation; the file does the rest"]})


def _difference(network: PredictedNetwork, content: bytes, images: Tensor) -> float:
    ours = _run(content, {"images": images.cpu().numpy()})
    with torch.no_grad():
        theirs = network(images).cpu().numpy()
    return float(np.abs(ours - theirs).max())


def _difference_of_pictures(network: PredictedNetwork, content: bytes, images: Tensor) -> float:
    """Pictures that have the network's size already must give the very same; at most eight are tried."""
    found = 0.0
    for image in (images[:8] * 255).round().to(torch.uint8).cpu():
        ours = _run(content, {"picture": image.permute(1, 2, 0).contiguous().numpy()})
        with torch.no_grad():
            theirs = network(image[None].to(network.means.device)).cpu().numpy()
        found = max(found, float(np.abs(ours - theirs).max()))
    return found


def _run(content: bytes, given: dict[str, Any]) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(["logits"], given)[0]
    return logits


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and deprecation warnings from the user's screen."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
