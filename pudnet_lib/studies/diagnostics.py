"""Diagnostics of a predictor: what its parameters depend on, and whether that is of use.

Our choice; the paper has no counterpart. Four questions: how far do predictions spread within a dataset and between
datasets; how many directions do they use; how much does each layer react to another sketch; and how do parameters
predicted for A do on B?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pudnet_lib.core.episodes import Episode, EpisodeSampler
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig
from pudnet_lib.evaluate import (
    Swap,
    Swapper,
    crossed_interval,
    effective_rank,
    episode_dataset,
    evaluate_episodes,
    interval,
    predicted_weights,
    spread,
)

#: Change of the sketch → what is put in its place.
CHANGES = ("same classes, other images", "other classes", "other source")


def sensitivity(
    model: ParameterModel, episode: Episode, names: Sequence[str], index: int, swapper: Swapper
) -> pd.DataFrame:
    """Relative change of each layer when the sketch is another.

    Args:
        model: The predictor.
        episode: The episode; its support images take the sketch's place in ``"same classes, other images"``.
        names: Its class names.
        index: Its number.
        swapper: Draws other classes' and other sources' sketches.

    Returns:
        One row a layer and change: layer, change, value (length of the difference over the layer's length, in %).
    """
    base = predicted_weights(model, *episode.given(PredictConfig().support(model)))
    sketches = {CHANGES[0]: (episode.support, episode.support_labels)}
    sketches[CHANGES[1]] = swapper.sketch(episode, names, index, "near", PredictConfig().support(model))
    if len(swapper.sources) > 1:
        sketches[CHANGES[2]] = swapper.sketch(episode, names, index, "far", PredictConfig().support(model))
    rows = []
    for change, (images, labels) in sketches.items():
        other = predicted_weights(model, images, labels)
        for layer, weight in base.items():
            value = 100 * float((other[layer] - weight).norm() / weight.norm().clamp_min(1e-12))
            rows.append({"layer": layer, "change": change, "value": value})
    return pd.DataFrame(rows)


class OtherSource(Swapper):
    """Gives, as a far swap, the sketch of one named source's episode of the same number.

    Args:
        sampler: The episodes.
        source: Index of the source from which parameters are predicted.
    """

    def __init__(self, sampler: EpisodeSampler, source: int) -> None:
        super().__init__(sampler.pool, sampler.config.sketch_per_class)
        self._sampler, self._source = sampler, source

    def sketch(
        self, episode: Episode, names: Sequence[str], index: int, swap: Swap, support: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The other source's sketch of episode ``index``; see ``Swapper.sketch``."""
        return self._sampler.episode(index, source=self._source).given(support)


def swap_matrix(model: ParameterModel, sampler: EpisodeSampler, episodes: int, sources: Sequence[int]) -> pd.DataFrame:
    """Accuracy of parameters predicted for A on B, batch norm and class means taken on B.

    Args:
        model: The predictor.
        sampler: Unseen episodes.
        episodes: Episodes a pair of sources.
        sources: Indices of the sources.

    Returns:
        One row a pair and episode: predicted_for, dataset (tested on), episode, value (accuracy in %), chance in %.
    """
    tables = []
    for a in sources:
        found = evaluate_episodes(model, sampler, episodes, OtherSource(sampler, a), ("far",), sources=sources)
        tables.append(found.assign(predicted_for=sampler.pool[a].name).drop(columns=["swap", "seconds"]))
    return pd.concat(tables, ignore_index=True)


def diagnose(
    models: Mapping[str, Sequence[ParameterModel]],
    sampler: EpisodeSampler,
    swapper: Swapper,
    episodes: int,
    sources: Sequence[int],
) -> pd.DataFrame:
    """All diagnostics of several predictors.

    Args:
        models: Method to its models, one a seed.
        sampler: Unseen episodes.
        swapper: Sketches of other classes and other sources.
        episodes: Episodes a source.
        sources: Indices of the sources that take part.

    Returns:
        Long form: method, seed, metric ("spread within", "spread between", "effective rank", "sensitivity",
        "accuracy"), layer, change, predicted_for, dataset, episode, value.
    """
    tables = []
    for method, seeds in models.items():
        for seed, model in enumerate(seeds):
            tables += [
                table.assign(method=method, seed=seed)
                for table in (
                    _predictions(model, sampler, swapper, episodes, sources),
                    swap_matrix(model, sampler, episodes, sources).assign(metric="accuracy"),
                )
            ]
    return pd.concat(tables, ignore_index=True)


def _predictions(
    model: ParameterModel, sampler: EpisodeSampler, swapper: Swapper, episodes: int, sources: Sequence[int]
) -> pd.DataFrame:
    weights, datasets, reactions = [], [], []
    for source in sources:
        data = sampler.pool[source]
        for index in range(episodes):
            episode = sampler.episode(index, source=source)
            weights.append(predicted_weights(model, *episode.given(PredictConfig().support(model))))
            datasets.append(data.name)
            found = sensitivity(model, episode, episode_dataset(episode, data).class_names, index, swapper)
            reactions.append(found.assign(dataset=data.name, episode=index, metric="sensitivity"))
    rows: list[dict[str, Any]] = []
    layers = {name: torch.stack([w[name] for w in weights]) for name in weights[0]}  # each (G, P_l)
    for layer, stacked in (layers | {"all layers": torch.cat(list(layers.values()), 1)}).items():
        rows += [{"layer": layer, "metric": f"spread {k}", "value": v} for k, v in spread(stacked, datasets).items()]
        rows.append({"layer": layer, "metric": "effective rank", "value": effective_rank(stacked)})
    return pd.concat([pd.DataFrame(rows), *reactions], ignore_index=True)


def summarise_diagnostics(table: pd.DataFrame) -> pd.DataFrame:
    """Means with 95 % intervals, crossed over seeds and episodes where both were measured.

    Args:
        table: From ``diagnose``.

    Returns:
        One row a method, metric, layer, change, predicted_for and dataset: mean, low, high, n, seeds.
    """
    keys = ["method", "metric", "layer", "change", "predicted_for", "dataset"]
    # A change of the sketch is averaged over sources: episodes of one number stand together.
    table = table.assign(dataset=table["dataset"].where(table["metric"] == "accuracy"))
    rows = []
    for values, part in table.groupby(keys, sort=False, dropna=False):
        grid = part.assign(episode=part["episode"].fillna(0)).pivot_table(
            index="seed", columns="episode", values="value"
        )
        found = _interval(grid.to_numpy())
        rows.append(dict(zip(keys, values, strict=True)) | found)
    return pd.DataFrame(rows)


def to_publish(summary: pd.DataFrame) -> pd.DataFrame:
    """Name the rows for a result file: what belongs to the metric becomes a part of its name.

    Args:
        summary: From ``summarise_diagnostics``.

    Returns:
        method, dataset, metric, mean, low, high, n, seeds.
    """
    names = summary["metric"].where(
        summary["metric"] != "accuracy", "accuracy, parameters of " + summary["predicted_for"]
    )
    parts = [", " + summary[c] for c in ("layer", "change")]
    named = names + parts[0].fillna("") + parts[1].fillna("")
    return summary.assign(metric=named).drop(columns=["layer", "change", "predicted_for"])


def _interval(values: np.ndarray) -> dict[str, float]:
    """Interval of (S, G) values; a property of all episodes together, G = 1, varies over seeds alone."""
    seeds, episodes = values.shape
    if values.size == 1:
        return {"mean": float(values[0, 0]), "low": np.nan, "high": np.nan, "n": 1, "seeds": 1}
    found = interval(values[:, 0]) if episodes == 1 else crossed_interval(values)
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n, "seeds": seeds}
