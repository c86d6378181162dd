"""The refinement of the last block against that of all layers, and against the shared network without: seconds."""

from __future__ import annotations

import copy
from typing import Any

import torch
from timing import alternate, row

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import predict
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.images.pool import Pool
from pudnet_lib.shipped import load_shipped


def with_refinement(model: ParameterModel, refinement: LastBlock | None) -> ParameterModel:
    """A copy that is refined in this way."""
    found = copy.deepcopy(model)
    found.refine = refinement
    return found.eval()


def run() -> list[dict[str, Any]]:
    episode = Pool().unseen_episodes(EpisodeConfig(4)).episode(0, 0)
    images, labels = episode.given(10)
    data, shared = ImageDataset(images, labels, ("a", "b", "c", "d")), load_shipped("shared")
    ways = {"last block": LastBlock(), "all layers": LastBlock(10, 0.1, 0.85, layers="all"), "none": None}
    models = {name: with_refinement(shared, way) for name, way in ways.items()}
    calls = {name: lambda m=model: predict(m, data) for name, model in models.items()}  # type: ignore[misc]
    seconds = alternate(calls, repeats=9)
    kit = f"prediction from {len(labels)} images, last block refined"
    return [
        row(kit, seconds["last block"], "all layers refined in ten steps", seconds["all layers"], 4.0, at_most=False),
        row(kit, seconds["last block"], "not refined", seconds["none"], 3.0, at_most=True),
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in run():
        print(line)
