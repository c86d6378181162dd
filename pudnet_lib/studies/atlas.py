"""The parameter atlas: do predicted parameters land near the trained ones of one episode, nearer than the mean does?

Our choice; the paper has no counterpart. Distances are Euclidean over all convolution weights, every filter brought to
length 1: a batch norm follows each, so that its length changes nothing. From a random start the filters of trained
networks stand in another order than predicted ones, so a second zoo starts from the mean prediction: there "near" has a
meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import Interval, interval
from pudnet_lib.studies.parameter_features import LAYERS, layer_tensors
from pudnet_lib.studies.zoo import ZooTraining
from pudnet_lib.studies.zoo_episodes import PARTS, Part
from pudnet_lib.studies.zoo_predicted import predict_episodes, predictor_width
from pudnet_lib.studies.zoo_store import ZooConfig, load_zoo, parameter_shapes

Start = Literal["same", "predicted"]
STARTS: dict[Start, str] = {"same": "random start", "predicted": "start at the mean prediction"}
OWN, OTHER, MEAN_PREDICTED, MEAN_TRAINED = (
    "own prediction", "another episode's prediction", "mean of predictions", "mean of trained parameters",
)  # fmt: skip
GUESSES = (OWN, OTHER, MEAN_PREDICTED, MEAN_TRAINED)


@dataclass(frozen=True)
class AtlasConfig:
    """Size of the atlas.

    Attributes:
        train_episodes: Training episodes a source, for the means and the map.
        held_out_episodes: Held-out episodes a source, whose distances are measured.
        epochs: Passes over an episode's images; the other settings of the training are the zoo's.
    """

    train_episodes: int = 15
    held_out_episodes: int = 15
    epochs: int = 10


@dataclass(frozen=True)
class Landscape:
    """Trained and predicted convolution weights of one source's episodes, filters of length 1.

    Attributes:
        trained: Part to (G, P).
        predicted: Part to (G, P), the same episodes.
    """

    trained: dict[Part, np.ndarray]
    predicted: dict[Part, np.ndarray]


@lru_cache(maxsize=16)
def landscape(source: str, start: Start, config: AtlasConfig, seed: int = 0) -> Landscape:
    """Train the networks of a source's episodes (or find them in the cache) and predict the same episodes' parameters.

    Args:
        source: The source.
        start: Where training starts.
        config: How many episodes.
        seed: Of the zoo.

    Returns:
        Both.
    """
    zoo_config = ZooConfig(source, start, training=ZooTraining(predictor_width(), config.epochs), seed=seed)
    zoo = load_zoo(zoo_config, config.train_episodes, config.held_out_episodes)
    shapes = parameter_shapes(zoo_config)
    trained, predicted = {}, {}
    for part in PARTS:
        rows = zoo.part(part)
        found = predict_episodes(zoo.episodes, part, rows.indices)
        layers = [layer for layer in LAYERS if layer.startswith("convolution")]
        trained[part] = unit_filters([layer_tensors(rows.parameters, shapes, layer)[0] for layer in layers])
        predicted[part] = unit_filters([found[LAYERS[layer][0]].numpy() for layer in layers])
    return Landscape(trained, predicted)


def unit_filters(tensors: Sequence[np.ndarray]) -> np.ndarray:
    """Bring every filter to length 1 and flatten: (G, out, in, k, k) each to (G, P) in all."""
    flat = [tensor.reshape(*tensor.shape[:2], -1).astype(float) for tensor in tensors]
    scaled = [t / np.linalg.norm(t, axis=2, keepdims=True).clip(1e-12) for t in flat]
    return np.concatenate([t.reshape(len(t), -1) for t in scaled], 1)


def guess_distances(trained: np.ndarray, predicted: np.ndarray, means: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Distances from each episode's trained parameters to guesses of them.

    Args:
        trained: (G, P), G at least 2.
        predicted: (G, P), the same episodes.
        means: Guesses (P,) that are the same for all episodes.

    Returns:
        Guess to (G,): the own prediction, the other episodes' predictions (mean distance), and the means.

    Raises:
        PudNetError: If there is one episode only.
    """
    if len(trained) < 2:
        raise PudNetError(f"The atlas has {len(trained)} held-out episode; expected at least 2, to swap predictions.")
    pairs = np.linalg.norm(trained[:, None] - predicted[None], axis=2)  # (G, G)
    own = np.diag(pairs)
    others = (pairs.sum(1) - own) / (len(pairs) - 1)
    same = {name: np.linalg.norm(trained - mean, axis=1) for name, mean in means.items()}
    return {OWN: own, OTHER: others, **same}


def distances(sources: tuple[str, ...], config: AtlasConfig, seed: int = 0) -> pd.DataFrame:
    """Measure the atlas's distances on held-out episodes.

    Args:
        sources: The sources.
        config: How many episodes.
        seed: Of the zoo.

    Returns:
        Long form: method (the guess), dataset, start, metric, episode, seed, value (distance over that of the mean of
        trained parameters, so that 1 is no better than the mean), seconds (0: nothing is timed).
    """
    rows = []
    for source in sources:
        for start in STARTS:
            land = landscape(source, start, config, seed)
            means = {
                MEAN_PREDICTED: land.predicted["train"].mean(0),
                MEAN_TRAINED: land.trained["train"].mean(0),
            }
            found = guess_distances(land.trained["held-out"], land.predicted["held-out"], means)
            for method, values in found.items():
                facts: dict[str, object] = {"method": method, "dataset": source, "start": STARTS[start]}
                facts |= {"metric": "relative distance", "seed": seed, "seconds": 0.0}
                ratio = values / found[MEAN_TRAINED]
                rows += [facts | {"episode": episode, "value": float(r)} for episode, r in enumerate(ratio)]
    return pd.DataFrame(rows)


def atlas_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Mean relative distance of each guess with its 95 % interval over episodes, for the table of results."""
    rows = []
    for (start, source, method), part in table.groupby(["start", "dataset", "method"], sort=False):
        found = interval(part["value"].to_numpy())
        facts = {"method": f"atlas: {method}", "dataset": f"{source}, {start}", "metric": "relative distance"}
        rows.append(facts | vars(found) | {"seeds": 1})
    return pd.DataFrame(rows)


def _farther(gap: Interval) -> str:
    """Put a difference of two distances in words."""
    side, sign = ("farther off", 1) if gap.mean >= 0 else ("nearer", -1)
    low, high = sorted((sign * gap.low, sign * gap.high))
    return f"{sign * gap.mean:.4f} [{low:+.4f}, {high:+.4f}] {side}"


def atlas_answer(table: pd.DataFrame) -> str:
    """Answer from the distances: is the own prediction nearer than the mean, and nearer than another episode's?"""
    parts, count = [], 0
    for start, part in table.groupby("start", sort=False):
        wide = part.pivot_table(index=["dataset", "episode"], columns="method", values="value")
        own = interval(wide[OWN].to_numpy())
        gain, still = (interval((wide[rival] - wide[OWN]).to_numpy()) for rival in (OTHER, MEAN_PREDICTED))
        word = "nearer than" if own.high < 1 else "farther than" if own.low > 1 else "as near as"
        parts.append(
            f"{start}: at {own.mean:.3f} [{own.low:.3f}, {own.high:.3f}] times the distance of the mean of trained "
            f"parameters ({word} the mean); another episode's prediction is {_farther(gain)}, the mean of predictions "
            f"{_farther(still)}"
        )
        count = len(wide)
    return f"Predicted parameters beside the trained ones of the same {count} held-out episodes, {'; '.join(parts)}."
