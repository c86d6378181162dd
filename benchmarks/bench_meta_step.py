"""A PudNet training step against a shared-network step on the same 100 images, ConvNet-3 of width 64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timing import alternate, row

from pudnet_lib.core import ParameterModel, PudNet, PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.meta import MetaStep
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.norms import BatchNorm, swap
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.images.pool import Pool, PoolConfig


def stepper(module: MetaStep, episode: Any, called: Any = None) -> Callable[[], None]:
    """Make a training step of the module; ``called`` is what computes its loss, by default itself."""
    optimiser = torch.optim.Adam(module.parameters(), 1e-3, fused=True)  # as the trainer does

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        (module if called is None else called)(episode).total.backward()
        optimiser.step()

    return step


def run() -> list[dict[str, Any]]:
    sampler = Pool(PoolConfig(sources=("glyphs",))).training_episodes(EpisodeConfig(5))  # 50 + 50 + 50 images
    episode, target = sampler.episode(0), TargetConfig("convnet3", 64)
    models: dict[str, ParameterModel] = {
        "pudnet": PudNet(PudNetConfig(target=target)),
        "shared": SharedNetwork(SharedConfig(target)),
        "batch norm": PudNet(PudNetConfig(target=target)),
    }
    swap(models["batch norm"], BatchNorm, torch.nn.BatchNorm2d)
    seconds = alternate(
        {name: stepper(MetaStep(m, sampler.num_classes, LossWeights()), episode) for name, m in models.items()},
        repeats=25,
    )
    name = "a PudNet training step, ConvNet-3 of width 64, 100 images"
    rival = "the same with PyTorch's batch norm, whose statistics depend on the threads"
    return [
        row(name, seconds["pudnet"], "a shared-network step", seconds["shared"], 1.15, True),
        row(name, seconds["pudnet"], rival, seconds["batch norm"], 1.1, True),
    ]


if __name__ == "__main__":
    for line in run():
        print(line)
