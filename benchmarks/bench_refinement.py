"""Predictions from labelled images against what else could be done with them: seconds, and peak memory of each alone.

The kit's refinement of the last block against that of all layers and against none; the kit and the predictor for
photographs against ImageNet-pretrained features with class means (where the extra ``pretrained`` is installed).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from timing import alternate, row

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import predict
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.methods import pretrained_features
from pudnet_lib.results import peak_memory_mb
from pudnet_lib.shipped import load_shipped
from pudnet_lib.trust import PRETRAINED

ALL_LAYERS = LastBlock(10, 0.1, 0.85, layers="all")
KIT = "prediction from 80 images of 32 px, last block refined"
PHOTOGRAPHS = "photographs, 100 images of 64 px"


def images(ways: int, size: int) -> ImageDataset:
    """20 labelled images per class; what they show takes no time, so it is noise."""
    pixels = torch.randint(0, 256, (20 * ways, 3, size, size), dtype=torch.uint8)
    return ImageDataset(pixels, torch.arange(ways).repeat_interleave(20), tuple("abcde"[:ways]))


def call(model: str, refinement: LastBlock | None, ways: int, size: int) -> Callable[[], Any]:
    """What predicts with a shipped model that is refined in this way; without a name, the pretrained features."""
    data = images(ways, size)
    if not model:
        return lambda: pretrained_features.fit(data, head="means")
    found = load_shipped(model).eval()
    found.refine = refinement
    return lambda: predict(found, data)


def peak(*given: Any) -> float:
    """Peak memory of a process that does nothing else, MB."""
    call(*given)()
    return peak_memory_mb()


def run() -> list[dict[str, Any]]:
    photographs = load_shipped("photographs").refine
    ways = {
        KIT: ("shared", LastBlock(), 4, 32),
        "all layers refined in ten steps": ("shared", ALL_LAYERS, 4, 32),
        "not refined": ("shared", None, 4, 32),
        f"{PHOTOGRAPHS}, class means": ("photographs", None, 5, 64),
        f"{PHOTOGRAPHS}, last block refined": ("photographs", photographs, 5, 64),
    }
    if pretrained_features.available():
        ways |= {f"{PRETRAINED}, 32 px": ("", None, 4, 32), PRETRAINED: ("", None, 5, 64)}
    seconds = alternate({name: call(*given) for name, given in ways.items()}, repeats=9)
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as alone:
        peaks = {name: alone.submit(peak, *given).result() for name, given in ways.items()}
    compared = [(KIT, "all layers refined in ten steps", 4.0, False), (KIT, "not refined", 3.0, True)]
    if pretrained_features.available():
        compared += [(KIT, f"{PRETRAINED}, 32 px", None, True)]
        compared += [(name, PRETRAINED, 0.2, True) for name in ways if name.startswith(PHOTOGRAPHS)]
    return [
        row(ours, seconds[ours], rival, seconds[rival], goal, at_most)
        | {"peak_memory_mb": peaks[ours], "rival_peak_memory_mb": peaks[rival]}
        for ours, rival, goal, at_most in compared
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in run():
        print(line)
