"""Speed, off the reader's path: what core calls through a hook if this module was imported. Our choice throughout.

Several episodes at once, the narrow product on oneDNN, memory kept between steps, the hypernetwork as a CUDA graph.
Each gives the same numbers as core's plain way, but for the order of sums; docs/speed.md has the measurements.
"""

import copy
import ctypes
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pudnet_lib.core import hooks
from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.episodes import Episode
from pudnet_lib.core.heads import EpisodeLosses
from pudnet_lib.core.meta import MetaStep
from pudnet_lib.core.model import ParameterModel, Parameters
from pudnet_lib.core.pudnet import PudNet
from pudnet_lib.core.targets import ConvNet
from pudnet_lib.errors import PudNetError

# ---- several episodes at once: B networks with different parameters as one network with B-fold channels ----


def episodes_at_once(model: ParameterModel, images: Tensor) -> int:
    """How many episodes of images (N, C, H, W) to take at once; the largest map stays within 32 MiB on a CPU."""
    # A network that mixes channels outside convolutions would mix episodes, as an encoder with batch norm does, and a
    # large one is all arithmetic, which this does not make less.
    if not isinstance(model, PudNet) or not isinstance(model.template, ConvNet):
        return 1
    if model.refine is not None or model.config.encoder_norm == "batch":
        return 1
    largest = 4 * model.feature_dim * len(images) * images.shape[2] * images.shape[3]  # bytes of the first maps
    # Larger blocks are mapped and unmapped one by one, which costs more than batching saves (``kept_memory``).
    return max(1, 32 * 2**20 // largest) if images.device.type == "cpu" else 8


def parts(step: MetaStep, episodes: Sequence[Any]) -> list[Any]:
    """Sort a step's episodes: lists of neighbours of one shape that ``together`` takes at once, or single ones."""
    if not episodes or not isinstance(episodes[0], Episode):  # another task's
        return list(episodes)
    found: list[list[Episode]] = []
    for _, alike in groupby(episodes, lambda e: (e.sketch.shape, e.support.shape, e.query.shape)):
        same = list(alike)
        room = episodes_at_once(step.model, same[0].images)
        found += [same[i : i + room] for i in range(0, len(same), room)]
    return [part if len(part) > 1 else part[0] for part in found]


def together(step: MetaStep, episodes: list[Episode]) -> EpisodeLosses:
    """The mean losses of several episodes of one shape, as ``MetaStep`` gives them one by one."""
    sketches, labels = torch.stack([g.sketch for g in episodes]), torch.stack([g.sketch_labels for g in episodes])
    images = torch.stack([g.images for g in episodes])  # (B, M + Q, C, H, W)
    features = features_of_episodes(step.model.template, of_episodes(step.model, sketches, labels), images)
    losses = [step.losses(g, f) for g, f in zip(episodes, features, strict=True)]
    return EpisodeLosses(*(torch.stack(values).mean() for values in zip(*losses, strict=True)))


def of_episodes(model: Any, sketches: Tensor, labels: Tensor) -> Parameters:
    """A PudNet's parameters for B sketches (B, S, C, H, W) with labels (B, S) at once: name to (B, *shape)."""
    if model.config.embedding == "constant":
        embeddings = model.constant.expand(len(sketches), -1, -1)
    else:
        images = sketches.flatten(0, 1)  # (B·S, C, H, W)
        model.check(images)
        codes = model.encoder.codes(images).unflatten(0, sketches.shape[:2])  # (B, S, G·D)
        embeddings = torch.stack([model.encoder.pool(c, y) for c, y in zip(codes, labels, strict=True)])
    shared = {name: t.expand(len(sketches), *t.shape) for name, t in model.shared_parameters().items()}
    return model.generate(embeddings) | shared  # type: ignore[no-any-return]


def features_of_episodes(target: nn.Module, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
    """Run B networks on the images of B episodes, batch norms on each episode's own statistics."""
    episodes, count = images.shape[:2]
    wide = copy.deepcopy(target)
    for layer in wide.modules():
        if isinstance(layer, nn.Conv2d):
            layer.groups *= episodes
    maps = normalise(images.transpose(0, 1).flatten(1, 2))  # (N, B·C, H, W)
    out: Tensor = functional_call(wide, {n: t.flatten(0, 1) for n, t in parameters.items()}, (maps,))  # (N, B·F)
    return out.view(count, episodes, -1).transpose(0, 1)


# PyTorch has oneDNN on board for its compiler; a build without it lacks this, and the plain product takes its place.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def narrow_product(basis: Tensor, hidden: Tensor) -> Tensor:
    """``basis @ hidden.T`` of a very tall basis (rows, width) and a few columns (columns, width), at memory's speed."""
    # Without gradients only. The library behind ``@`` multiplies into 9 columns at a quarter of the speed of oneDNN.
    if torch.is_grad_enabled() or basis.device.type != "cpu" or basis.dtype != torch.float32 or _ONEDNN is None:
        return basis @ hidden.T
    return _ONEDNN(basis, hidden, None, "none", [], "")  # type: ignore[no-any-return]


# A step's activations are tens of MB. GNU's C library returns such blocks to the operating system, which hands out
# zeroed pages anew: a page fault every 4 kB, a third of a step's time. <malloc.h>: blocks above MMAP_THRESHOLD (at most
# 32 MiB) are mapped by themselves, unmapped when freed; what is free beyond TRIM_THRESHOLD at the heap's end goes back.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEEP = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
# The thresholds that the library itself arrives at after it has freed a large block.
_USUAL = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 64 * 2**20, _TOP_PAD: 128 * 2**10}

_lock, _depth = threading.Lock(), 0


@cache
def _glibc() -> ctypes.CDLL | None:
    """GNU's C library, if this program runs on it."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _set(library: ctypes.CDLL, thresholds: dict[int, int]) -> None:
    for option in thresholds.items():
        library.mallopt(*option)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory within the process while the block runs; give it back at its end. Blocks may be nested."""
    global _depth
    library = _glibc()
    if library is None:
        yield
        return
    with _lock:
        _depth += 1
        if _depth == 1:
            _set(library, _KEEP)
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _set(library, _USUAL)
                library.malloc_trim(0)


# ---- a hypernetwork's forward pass as a recorded CUDA graph: some hundred small kernels, started as one ----

Call = Callable[[], Parameters]


def record(call: Call) -> Call:
    """Record a call's kernels as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # libraries choose their kernels in the first calls; that may not happen while recording
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay() -> Parameters:
        graph.replay()
        return out

    return replay


KEPT = 4  # recordings of one model
_RECORDINGS: WeakKeyDictionary[ParameterModel, dict[Any, tuple[tuple[Tensor, ...], Call]]] = WeakKeyDictionary()


def recorded_forward(
    model: ParameterModel, sketch: Tensor, labels: Tensor | None, recorder: Callable[[Call], Call] = record
) -> Parameters:
    """Predict parameters, as ``model(sketch, labels)`` does; its forward pass is recorded for each shape of sketch."""
    if recorder is record and model.device.type != "cuda":
        what = f"PredictConfig.cuda_graph is on and the model is on {model.device}; a CUDA graph needs a CUDA device."
        raise PudNetError(f"{what} Move it with model.to('cuda'), or leave cuda_graph off.")
    if sketch.dtype != torch.uint8:
        raise PudNetError(f"The sketch has dtype {sketch.dtype}; a CUDA graph reads uint8. Leave cuda_graph off.")
    given, recordings = (sketch,) if labels is None else (sketch, labels), _RECORDINGS.setdefault(model, {})
    places = tuple(t.data_ptr() for t in (*model.parameters(), *model.buffers()))
    key = (tuple((t.shape, t.dtype, t.device) for t in given), places)
    with torch.no_grad():
        if key not in recordings:
            while len(recordings) >= KEPT:
                del recordings[next(iter(recordings))]
            own = tuple(t.clone() for t in given)  # inputs of a recording stay where they are
            recordings[key] = (own, recorder(lambda: model(*own)))
        own, replay = recordings[key]
        for tensor, new in zip(own, given, strict=True):
            tensor.copy_(new)
        return {name: tensor.detach().clone() for name, tensor in replay().items()}


if (_library := _glibc()) is not None:  # from the start: until it got there, a small prediction faulted its pages anew
    _set(_library, _USUAL)
hooks.register(parts=parts, together=together, narrow_product=narrow_product)
hooks.register(kept_memory=kept_memory, recorded_forward=recorded_forward)
