"""Do datasets and the parameters trained on them correlate? The observation that the method builds on, put to the test.

Paper, Section 1 [rec]: one ConvNet an episode, HOG of its images, CCA. Our choice: held-out episodes with held-out
classes, permutation nulls, intervals, both same and different initialisation, the in-sample value beside its own null.
Fashion has 6 training and 4 held-out classes, hence 20 and 4 different episodes of 3 classes only: its intervals draw
whole sets of classes, and are wide.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from tqdm.auto import tqdm

from pudnet_lib.studies.atlas import AtlasConfig, atlas_rows
from pudnet_lib.studies.correlation_study import CKA, POOLED, WITHIN, Choice, Config, Study, study
from pudnet_lib.studies.parameter_features import LAYERS, PARAMETER_FEATURES
from pudnet_lib.studies.zoo_episodes import PARTS

TITLE = "Do datasets and their trained parameters correlate?"
QUESTION = "Does what a dataset looks like tell which parameters training ends with, for classes never seen before?"
HELD_OUT, SAME_CLASSES, IN_SAMPLE = "held-out classes", "new episodes, same classes", "in-sample"


PROFILES = {
    "smoke": Config(
        ("fashion", "glyphs"),
        train_episodes=40,
        held_out_episodes=20,
        dataset_features=("HOG", "pixel statistics"),
        components=3,
        permutations=100,
        atlas=AtlasConfig(train_episodes=4, held_out_episodes=3, epochs=2),
    ),
    "laptop": Config(),
    "paper": Config(
        train_episodes=2000, held_out_episodes=1000, components=10, permutations=5000, atlas=AtlasConfig(400, 200)
    ),
}


def choices(config: Config) -> list[Choice]:
    """All cells of the table."""
    return [
        Choice(source, initialisation, layer, feature, parameters, config.components)
        for source in study(config).sources
        for initialisation in config.initialisations
        for feature in config.dataset_features
        for parameters in PARAMETER_FEATURES
        for layer in LAYERS
    ]


def run(config: Config) -> pd.DataFrame:
    """Correlate everything with everything.

    Args:
        config: What.

    Returns:
        Long form: method (the dataset feature), dataset, initialisation, layer, parameters, metric, value, low, high,
        null_mean, null_high (95 % of the null stay below), p, p_transfer, n (test episodes), seed, seconds; and
        p_adjusted, the larger p-value after Benjamini and Hochberg over all cells of a metric.
    """
    rows = []
    for choice in tqdm(choices(config), desc="correlations", unit="cell", leave=False):
        rows += _cell_rows(study(config), choice)
    table = pd.DataFrame(rows)
    worst = table[["p", "p_transfer"]].max(axis=1)
    table["p_adjusted"] = worst.groupby(table["metric"]).transform(lambda p: false_discovery_control(p.to_numpy()))
    return table


def _cell_rows(loaded: Study, choice: Choice) -> list[dict[str, object]]:
    began, found = time.perf_counter(), {}
    cell = loaded.canonical(choice)
    found[HELD_OUT], found[IN_SAMPLE] = cell.held_out, cell.in_sample
    if choice.layer == "whole network":
        same = replace(choice, same_classes=True)
        found[SAME_CLASSES] = loaded.canonical(same).held_out
        found |= loaded.similarities(choice)
    seconds = time.perf_counter() - began
    facts: dict[str, object] = {
        "method": choice.dataset_feature,
        "dataset": choice.source,
        "initialisation": choice.initialisation,
    }
    facts |= {"layer": choice.layer, "parameters": choice.parameter_feature, "seed": loaded.config.seed}
    episodes = {part: sum(len(loaded.zoo(s, choice.initialisation).part(part).indices)
                        for s in loaded.members(choice.source)) for part in PARTS}  # fmt: skip
    counts = {IN_SAMPLE: episodes["train"], SAME_CLASSES: episodes["train"] // 3}
    return [
        facts
        | {"metric": metric, "value": a.value, "low": a.low, "high": a.high, "null_mean": a.null_mean}
        | {
            "null_high": a.null_high,
            "p": a.p,
            "p_transfer": a.p_transfer,
            "n": counts.get(metric, episodes["held-out"]),
        }
        | {"seconds": seconds}
        for metric, a in found.items()
    ]


def zoo_table(config: Config) -> pd.DataFrame:
    """Say what was trained: episodes, those left out because training diverged, class sets, accuracy, seconds."""
    return pd.DataFrame(
        {
            "source": source,
            "initialisation": initialisation,
            "part": part,
            "episodes": len(zoo.part(part).indices),
            "diverged": zoo.part(part).diverged,
            "different sets of classes": len(np.unique(zoo.episodes.class_sets(part, zoo.part(part).indices), axis=0)),
            "classes an episode": zoo.episodes.ways,
            "accuracy (%)": float(zoo.part(part).accuracy.mean()),
            "chance (%)": 100 / zoo.episodes.ways,
            "seconds of training": zoo.part(part).seconds,
        }
        for (source, initialisation), zoo in study(config).zoos.items()
        for part in PARTS
    )


def verdict(value: float, p: float, p_transfer: float) -> str:
    """Say in words whether a correlation survives its nulls.

    Args:
        value: The correlation.
        p: Against shuffled pairings.
        p_transfer: Against shuffled training pairs; NaN counts as passed.

    Returns:
        One sentence.
    """
    if p >= 0.05:
        return f"Does not survive the null: r = {value:.2f}; {100 * p:.0f} % of shuffled pairings do as well."
    if p_transfer >= 0.05:
        return (
            f"Survives shuffled pairings (p = {p:.3f}) but not the stricter null: r = {value:.2f} is no better than "
            f"directions fitted to shuffled training pairs (p = {p_transfer:.2f})."
        )
    return f"Survives the null: r = {value:.2f}; {100 * p:.1f} % of shuffled pairings do as well."


def result_rows(table: pd.DataFrame, distances: pd.DataFrame) -> pd.DataFrame:
    """Rows for the result file: the whole network, weights and norms, and the atlas; ``mean`` in place of ``value``."""
    kept = table[(table["layer"] == "whole network") & (table["parameters"] != "spectra")]
    named = kept.assign(
        method=kept["method"] + " × " + kept["parameters"], dataset=kept["dataset"] + ", " + kept["initialisation"]
    )
    columns = ["method", "dataset", "metric", "value", "low", "high", "n", "null_mean", "null_high", "p", "p_transfer"]
    correlations = named[[*columns, "p_adjusted"]].rename(columns={"value": "mean"}).assign(seeds=1)
    return pd.concat([correlations, atlas_rows(distances)], ignore_index=True)


def answer(table: pd.DataFrame) -> str:
    """Answer the question from the numbers: the first feature (HOG) and flattened weights, then all cells."""
    feature, start = table["method"].iloc[0], table["initialisation"].iloc[0]
    whole = table[(table["layer"] == "whole network") & (table["parameters"] == "weights")]
    main = whole[(whole["method"] == feature) & (whole["initialisation"] == start)]
    held_out = main[main["metric"] == HELD_OUT].to_dict(orient="records")
    sources = [f"{row['dataset']} {_words(row)}" for row in held_out if row["dataset"] not in (POOLED, WITHIN)]
    pooled = [_words(row) for row in held_out if row["dataset"] == POOLED]
    within = [_survives(row) for row in held_out if row["dataset"] == WITHIN]
    together = f"; all sources together {pooled[0]}, but shuffled within sources {within[0]}" if pooled else ""
    cka = main[(main["metric"] == CKA) & ~main["dataset"].isin([POOLED, WITHIN])]
    cells = table[(table["metric"] == HELD_OUT) & ~table["dataset"].isin([POOLED, WITHIN])]
    return (
        f"Mean canonical correlation of {feature} and flattened weights on held-out classes, {start} initialisation: "
        f"{'; '.join(sources)}{together}. Of all layers, features and initialisations of single sources "
        f"{int((cells['p_adjusted'] < 0.05).sum())} of {len(cells)} cells survive both nulls after correction. "
        f"Linear CKA, which fits nothing, exceeds its null on {int((cka['p'] < 0.05).sum())} of {len(cka)} sources."
    )


def _survives(row: Mapping[Hashable, Any]) -> str:
    passed = row["p"] < 0.05 and not row["p_transfer"] >= 0.05
    return "it survives" if passed else "it does not survive"


def _words(row: Mapping[Hashable, Any]) -> str:
    value = f"{row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"
    return f"{value}, null up to {row['null_high']:.2f}, {_survives(row).removeprefix('it ')} (n = {row['n']})"
