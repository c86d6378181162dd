"""The parameter atlas: do predicted parameters land near the trained ones of the same group, nearer than the mean does?

Our choice; the paper has no counterpart. Distances are Euclidean over all convolution weights. From a random start the
filters of trained networks stand in another order than predicted ones, so a second zoo starts from the mean prediction:
there "near" has a meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pandas as pd

from pudnet_lib.errors import PudNetError
from pudnet_lib.experiments.zoo import ZooTraining
from pudnet_lib.experiments.zoo_groups import PARTS, Part, ZooGroups
from pudnet_lib.experiments.zoo_predicted import predict_groups, predictor_width
from pudnet_lib.experiments.zoo_store import ZooConfig, load_zoo, parameter_shapes

Start = Literal["same", "predicted"]
STARTS: dict[Start, str] = {"same": "random start", "predicted": "start at the mean prediction"}
OWN, OTHER, MEAN_PREDICTED, MEAN_TRAINED = (
    "own prediction", "another group's prediction", "mean of predictions", "mean of trained parameters",
)  # fmt: skip
GUESSES = (OWN, OTHER, MEAN_PREDICTED, MEAN_TRAINED)


@dataclass(frozen=True)
class AtlasConfig:
    """Size of the atlas.

    Attributes:
        train_groups: Training groups a source, for the means and the map.
        held_out_groups: Held-out groups a source, whose distances are measured.
    """

    train_groups: int = 40
    held_out_groups: int = 20


@dataclass(frozen=True)
class Landscape:
    """Trained and predicted convolution weights of one source's groups.

    Attributes:
        trained: Part to (G, P).
        predicted: Part to (G, P), the same groups.
        groups: The sampler.
        indices: Part to the groups' numbers.
    """

    trained: dict[Part, np.ndarray]
    predicted: dict[Part, np.ndarray]
    groups: ZooGroups
    indices: dict[Part, np.ndarray]


@lru_cache(maxsize=16)
def landscape(source: str, start: Start, config: AtlasConfig, seed: int = 0) -> Landscape:
    """Train the networks of a source's groups (or find them in the cache) and predict the same groups' parameters.

    Args:
        source: The source.
        start: Where training starts.
        config: How many groups.
        seed: Of the zoo.

    Returns:
        Both.
    """
    zoo_config = ZooConfig(source, start, training=ZooTraining(predictor_width()), seed=seed)
    zoo = load_zoo(zoo_config, config.train_groups, config.held_out_groups)
    shapes = parameter_shapes(zoo_config)
    convolutions = np.concatenate([np.full(int(np.prod(s)), len(s) == 4) for s in shapes.values()])
    trained, predicted = {}, {}
    for part in PARTS:
        rows = zoo.part(part)
        trained[part] = rows.parameters[:, convolutions].astype(float)
        found = predict_groups(zoo.groups, part, rows.indices)
        tensors = [found[name].flatten(1).numpy() for name, shape in shapes.items() if len(shape) == 4]
        predicted[part] = np.concatenate(tensors, 1).astype(float)
    return Landscape(trained, predicted, zoo.groups, {part: zoo.part(part).indices for part in PARTS})


def guess_distances(trained: np.ndarray, predicted: np.ndarray, means: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Distances from each group's trained parameters to guesses of them.

    Args:
        trained: (G, P), G at least 2.
        predicted: (G, P), the same groups.
        means: Guesses (P,) that are the same for all groups.

    Returns:
        Guess to (G,): the own prediction, the other groups' predictions (mean distance), and the means.

    Raises:
        PudNetError: If there is one group only.
    """
    if len(trained) < 2:
        raise PudNetError(f"The atlas has {len(trained)} held-out group; expected at least 2, to swap predictions.")
    pairs = np.linalg.norm(trained[:, None] - predicted[None], axis=2)  # (G, G)
    own = np.diag(pairs)
    others = (pairs.sum(1) - own) / (len(pairs) - 1)
    same = {name: np.linalg.norm(trained - mean, axis=1) for name, mean in means.items()}
    return {OWN: own, OTHER: others, **same}


def distances(sources: tuple[str, ...], config: AtlasConfig, seed: int = 0) -> pd.DataFrame:
    """Measure the atlas's distances on held-out groups.

    Args:
        sources: The sources.
        config: How many groups.
        seed: Of the zoo.

    Returns:
        Long form: method (the guess), dataset, start, metric, group, seed, value (distance over that of the mean of
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
                rows += [facts | {"group": group, "value": float(r)} for group, r in enumerate(ratio)]
    return pd.DataFrame(rows)


def atlas_answer(table: pd.DataFrame) -> str:
    """Answer from the distances: is the own prediction nearer than the mean, and nearer than another group's?"""
    parts = []
    for start, part in table.groupby("start", sort=False):
        wide = part.pivot_table(index=["dataset", "group"], columns="method", values="value")
        gain = wide[OTHER] - wide[OWN]
        half = 1.96 * gain.std(ddof=1) / np.sqrt(len(gain))
        nearer = "nearer than" if wide[OWN].mean() < 1 else "farther than"
        parts.append(
            f"{start}: {wide[OWN].mean():.2f} times the mean's distance ({nearer} the mean), {gain.mean():+.4f} "
            f"[{gain.mean() - half:+.4f}, {gain.mean() + half:+.4f}] nearer than another group's prediction"
        )
    return f"Predicted parameters on {len(wide)} held-out groups, {'; '.join(parts)}."
