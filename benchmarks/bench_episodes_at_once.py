"""Several episodes a meta-training step, put through the network at once, against one: episodes a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timing import alternate, row

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.episodes import Episode, EpisodeConfig
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaStep
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.speed import parts as parts_of

EPISODES = 8


def stepper(width: int, episodes: Sequence[Episode], classes: int, together: bool) -> Callable[[], None]:
    """One optimiser step over all episodes at once, or one after each."""
    module = MetaStep(PudNet(PudNetConfig(target=TargetConfig("convnet3", width))), classes, LossWeights())
    optimiser = torch.optim.Adam(module.parameters(), 1e-3, fused=True)
    steps: list[list[Any]] = [parts_of(module, episodes)] if together else [[episode] for episode in episodes]

    def run() -> None:
        for parts in steps:
            optimiser.zero_grad(set_to_none=True)
            for part in parts:
                module(part).total.backward()
            optimiser.step()

    return run


def run() -> list[dict[str, Any]]:
    sampler = Pool(PoolConfig(sources=("glyphs",))).training_episodes(EpisodeConfig(5))
    episodes, rows = [sampler.episode(index) for index in range(EPISODES)], []
    for width in (4, 8, 16, 64):
        calls = {name: stepper(width, episodes, sampler.num_classes, name == "at once") for name in ("at once", "one")}
        seconds = alternate(calls, repeats=9)
        name = f"{EPISODES} episodes at once, ConvNet-3 of width {width}"
        rows.append(row(name, seconds["at once"], "one episode a step", seconds["one"], 1.5, at_most=False))
    return rows


if __name__ == "__main__":
    for line in run():
        print(line)
