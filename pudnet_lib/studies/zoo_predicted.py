"""What the shipped PudNet predicts for the episodes of a zoo: points of the atlas, and a place to start from.

Our choice. An episode's sketch is its first ten training images a class; a zoo that starts from the mean prediction
makes predicted and trained parameters comparable, which those from a random start are not: filters would stand in
another order.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import torch

from pudnet_lib.core.model import Parameters
from pudnet_lib.errors import PudNetError
from pudnet_lib.shipped import load_pudnet
from pudnet_lib.studies.zoo_episodes import Part, ZooEpisodes

SKETCH_PER_CLASS = 10
MEAN_OF = 20  # training episodes whose predictions are averaged


@lru_cache(maxsize=1)
def _predictor_state() -> tuple[int, str]:
    model, digest = load_pudnet(), hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return model.config.target.width, digest.hexdigest()[:16]


def predictor_fingerprint() -> str:
    """Tell one shipped predictor from another."""
    return _predictor_state()[1]


def predictor_width() -> int:
    """Width of the ConvNet-3 that the shipped predictor predicts."""
    return _predictor_state()[0]


def predict_episodes(episodes: ZooEpisodes, part: Part, rows: np.ndarray) -> Parameters:
    """Predict the parameters of episodes, one after the other, each in one forward pass.

    Args:
        episodes: The sampler.
        part: Training or held-out episodes.
        rows: (G,) their numbers.

    Returns:
        Name to (G, *shape).
    """
    model = load_pudnet()
    ids = torch.from_numpy(episodes.image_ids(part, rows)).unflatten(1, (episodes.ways, -1))[:, :, :SKETCH_PER_CLASS]
    labels = torch.arange(episodes.ways).repeat_interleave(ids.shape[2])
    with torch.no_grad():
        drawn = [model(episodes.train.images[sketch.flatten()], labels) for sketch in ids]
    return {name: torch.stack([p[name].detach() for p in drawn]) for name in drawn[0]}


def predicted_mean(episodes: ZooEpisodes, width: int) -> Parameters:
    """Average the predictions for the first training episodes.

    Raises:
        PudNetError: If the shipped predictor predicts a ConvNet-3 of another width.
    """
    if width != predictor_width():
        raise PudNetError(
            f"The shipped PudNet predicts a ConvNet-3 of width {predictor_width()}, not {width}; a zoo that starts "
            f"from its predictions needs training.width = {predictor_width()}."
        )
    return {name: t.mean(0) for name, t in predict_episodes(episodes, "train", np.arange(MEAN_OF)).items()}
