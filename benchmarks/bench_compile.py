"""A meta-training step through ``torch.compile`` against the same step without it.

The compiled module must give the same loss; what compiling takes is a row of its own. Where it cannot be, it says why.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

import numpy as np
import torch
from bench_meta_step import stepper
from timing import alternate, row

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaStep
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.images.pool import Pool, PoolConfig

WIDTHS = (16, 64)


def run() -> list[dict[str, Any]]:
    if shutil.which("c++") is None and not torch.cuda.is_available():
        print("  left out: torch.compile needs a C++ compiler on a CPU (Debian: apt-get install g++)")
        return []
    sampler = Pool(PoolConfig(sources=("glyphs",))).training_episodes(EpisodeConfig(5))  # 50 + 50 + 50 images
    episode, rows = sampler.episode(0), []
    for width in WIDTHS:
        model = PudNet(PudNetConfig(target=TargetConfig("convnet3", width)))
        module = MetaStep(model, sampler.num_classes, LossWeights())
        compiled: Any = torch.compile(module, backend="inductor")
        began = time.perf_counter()
        loss = compiled(episode).total
        loss.backward()
        once = time.perf_counter() - began
        torch.testing.assert_close(loss, module(episode).total, rtol=1e-3, atol=1e-3)
        plain, fast = stepper(module, episode), stepper(module, episode, compiled)
        seconds = alternate({"compiled": fast, "plain": plain}, repeats=25)
        name = f"a PudNet training step through torch.compile, ConvNet-3 of width {width}, 100 images"
        rows.append(row(name, seconds["compiled"], "the same step without", seconds["plain"], None, False))
        name = f"compiling that step, width {width}"
        rows.append(row(name, np.array([once]), "one step without", seconds["plain"], None, True))
    return rows


if __name__ == "__main__":
    for line in run():
        print(line)
