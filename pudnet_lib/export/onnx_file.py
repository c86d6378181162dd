"""A predicted network as an ONNX file, checked with onnxruntime before anyone relies on it.

Our choice; the paper has no counterpart. Class names and image size are in the file's metadata, so that it needs
nothing beside it.
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

import numpy as np
import torch
from torch import Tensor

from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.program import example_images, facts, to_torch_export
from pudnet_lib.files import write_atomically

#: Largest difference of a logit between PyTorch and onnxruntime.
TOLERANCE = 1e-4
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_export() -> None:
    """Raise an error that tells how to install what is missing for ONNX."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise PudNetError(f"ONNX export needs {', '.join(missing)}. Install with: pip install 'pudnet-kit[export]'")


def to_onnx(network: PredictedNetwork, path: Path | str, images: Tensor | None = None) -> float:
    """Write an ONNX file, any number of images, after checking it with onnxruntime.

    Args:
        network: The predicted network; not changed.
        path: The file, usually ``*.onnx``.
        images: (N, C, H, W) uint8, or floating point in [0, 1]: real images to check with, at most 64 of them are
            used; by default random ones.

    Returns:
        The largest difference of a logit between PyTorch and onnxruntime over the images that were checked.

    Raises:
        PudNetError: If a needed package is missing, the network can't be exported, the two differ by more than 1e-4,
            or the file can't be written. In each case no file appears.
    """
    require_export()
    content = onnx_bytes(network)
    checked = example_images(network, 3) if images is None else images[:64].to(network.means.device)
    checked = checked.float() / 255 if checked.dtype == torch.uint8 else checked
    difference = max(_difference(network, content, checked), _difference(network, content, checked[:1]))
    if not difference <= TOLERANCE:
        raise PudNetError(
            f"onnxruntime's logits differ from PyTorch's by {difference:.2g}, more than {TOLERANCE:g}; {path} was not "
            "written. Use to_torch_export instead."
        )
    write_atomically(Path(path), content)
    return difference


def onnx_bytes(network: PredictedNetwork) -> bytes:
    """Make the ONNX file's content: input ``images``, output ``logits``, metadata ``pudnet`` (JSON of ``facts``)."""
    program = to_torch_export(network)
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
            "Use to_torch_export instead."
        ) from error
    assert exported is not None
    proto = exported.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "pudnet", json.dumps(facts(network))
    content: bytes = proto.SerializeToString()
    return content


def _difference(network: PredictedNetwork, content: bytes, images: Tensor) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (ours,) = session.run(["logits"], {"images": images.cpu().numpy()})
    with torch.no_grad():
        theirs = network(images).cpu().numpy()
    return float(np.abs(ours - theirs).max())


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
