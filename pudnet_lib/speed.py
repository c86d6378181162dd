"""A hypernetwork's forward pass as a recorded CUDA graph: some hundred small kernels, started as one.

Our choice; the paper has no counterpart. Recorded once for each shape of sketch, refinement included, and replayed
until the shape changes or the model's weights move to another place in memory. Never used unless asked for
(``PredictConfig.cuda_graph``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from pudnet_lib.core.model import ParameterModel, Parameters
from pudnet_lib.errors import PudNetError

Call = Callable[[], Parameters]
#: Records a call whose inputs stay where they are, and gives a call that does the same work again.
Recorder = Callable[[Call], Call]
WARM_UPS = 3  # libraries choose their kernels in the first calls; that may not happen while recording


def record(call: Call) -> Call:
    """Record a call's kernels as a CUDA graph.

    Args:
        call: Reads tensors that stay where they are, and never waits for the GPU.

    Returns:
        A call that replays them; its tensors are the same ones every time.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay() -> Parameters:
        graph.replay()
        return out

    return replay


class RecordedForward:
    """One model's forward pass, recorded for each shape of sketch that it is given.

    Args:
        recorder: Makes recordings.
        kept: At most so many recordings; the oldest goes first.
    """

    def __init__(self, recorder: Recorder = record, kept: int = 4) -> None:
        self.recorder, self.kept = recorder, kept
        self.recordings: dict[Any, tuple[tuple[Tensor, ...], Call]] = {}

    def __call__(self, model: ParameterModel, sketch: Tensor, labels: Tensor | None) -> Parameters:
        """Predict parameters, as ``model(sketch, labels)`` does.

        Args:
            model: In evaluation mode; always the same one.
            sketch: (S, C, H, W) uint8, on the model's device.
            labels: (S,) or None.

        Returns:
            Name to tensor, copies of their own.

        Raises:
            PudNetError: If the sketch is not uint8: a check of its pixels would have to wait for the GPU.
        """
        if sketch.dtype != torch.uint8:
            raise PudNetError(f"The sketch has dtype {sketch.dtype}; a CUDA graph reads uint8. Leave cuda_graph off.")
        given = (sketch,) if labels is None else (sketch, labels)
        places = tuple(t.data_ptr() for t in (*model.parameters(), *model.buffers()))
        key = (tuple((t.shape, t.dtype, t.device) for t in given), places)
        if key not in self.recordings:
            while len(self.recordings) >= self.kept:
                del self.recordings[next(iter(self.recordings))]
            own = tuple(t.clone() for t in given)
            with torch.no_grad():
                self.recordings[key] = (own, self.recorder(lambda: model(*own)))
        own, replay = self.recordings[key]
        for tensor, new in zip(own, given, strict=True):
            tensor.copy_(new)
        with torch.no_grad():
            return {name: tensor.detach().clone() for name, tensor in replay().items()}


_FORWARDS: WeakKeyDictionary[ParameterModel, RecordedForward] = WeakKeyDictionary()


def forward(model: ParameterModel, sketch: Tensor, labels: Tensor | None) -> Parameters:
    """Predict parameters through the model's recorded forward pass; see ``RecordedForward``.

    Raises:
        PudNetError: If the model is not on a CUDA device.
    """
    if model.device.type != "cuda":
        raise PudNetError(
            f"PredictConfig.cuda_graph is on and the model is on {model.device}; a CUDA graph needs a CUDA device. "
            "Move it with model.to('cuda'), or leave cuda_graph off."
        )
    return _FORWARDS.setdefault(model, RecordedForward())(model, sketch, labels)
