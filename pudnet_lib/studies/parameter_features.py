"""The parameters' side of the correlation: one vector a trained network, of one layer or of all.

Our choice (the paper flattens and reduces [rec]). Flattened weights depend on which filter ended where; norms and
spectra do not, so they can be compared between networks from different initialisations, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from pudnet_lib.errors import unknown_name

ParameterFeature = Literal["weights", "norms", "spectra"]
PARAMETER_FEATURES: tuple[ParameterFeature, ...] = get_args(ParameterFeature)
LAYERS: dict[str, tuple[str, ...]] = {
    "convolution 1": ("blocks.0.0.weight",),
    "convolution 2": ("blocks.1.0.weight",),
    "convolution 3": ("blocks.2.0.weight",),
    "batch norms": tuple(f"blocks.{b}.1.{t}" for b in range(3) for t in ("weight", "bias")),
}
LAYERS["whole network"] = tuple(name for names in LAYERS.values() for name in names)


def layer_tensors(rows: np.ndarray, shapes: Mapping[str, tuple[int, ...]], layer: str) -> list[np.ndarray]:
    """Cut one layer's tensors out of flattened parameters.

    Args:
        rows: (G, P), all tensors in the order of ``shapes``.
        shapes: Name to shape.
        layer: One of ``LAYERS``.

    Returns:
        Tensors (G, *shape).

    Raises:
        PudNetError: If there is no such layer.
    """
    if layer not in LAYERS:
        raise unknown_name("layer", layer, LAYERS)
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    places = dict(zip(shapes, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    return [rows[:, slice(*places[name])].reshape(len(rows), *shapes[name]) for name in LAYERS[layer]]


def parameter_features(
    rows: np.ndarray, shapes: Mapping[str, tuple[int, ...]], layer: str, feature: ParameterFeature
) -> np.ndarray:
    """Describe trained networks.

    Args:
        rows: (G, P) flattened parameters.
        shapes: Names and shapes of the tensors.
        layer: One of ``LAYERS``.
        feature: ``"weights"``: flattened, as they are. ``"norms"``: of each tensor its Frobenius norm, mean, and the
            sorted norms of its filters (of a batch norm, its sorted values). ``"spectra"``: of each convolution its
            singular values as an (out, in·k·k) matrix and the mean power of its filters at each spatial frequency; of
            a batch norm, its sorted values.

    Returns:
        (G, q) float64.

    Raises:
        PudNetError: If layer or feature is unknown.
    """
    if feature not in PARAMETER_FEATURES:
        raise unknown_name("parameter feature", feature, PARAMETER_FEATURES)
    tensors = [t.astype(float) for t in layer_tensors(rows, shapes, layer)]
    if feature == "weights":
        return np.concatenate([t.reshape(len(t), -1) for t in tensors], 1)
    describe = _norms if feature == "norms" else _spectra
    return np.concatenate([describe(t) for t in tensors], 1)


def _norms(tensor: np.ndarray) -> np.ndarray:
    flat = tensor.reshape(len(tensor), tensor.shape[1], -1)  # (G, out, rest)
    filters = np.sort(np.linalg.norm(flat, axis=2) if tensor.ndim > 2 else flat[..., 0], 1)
    whole = np.linalg.norm(flat, axis=(1, 2))[:, None]
    return np.concatenate([whole, flat.mean((1, 2))[:, None], filters], 1)


def _spectra(tensor: np.ndarray) -> np.ndarray:
    if tensor.ndim == 2:
        return np.sort(tensor, 1)
    singular = np.linalg.svd(tensor.reshape(len(tensor), tensor.shape[1], -1), compute_uv=False)  # (G, out)
    power = np.abs(np.fft.rfft2(tensor)) ** 2  # (G, out, in, k, k // 2 + 1)
    return np.concatenate([singular, power.mean((1, 2)).reshape(len(tensor), -1)], 1)
