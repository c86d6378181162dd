"""Tables of the large-scale experiment: accuracies with intervals, gains over the controls, how much faster.

Our choice. Intervals are crossed over seeds of meta-training and unseen classes; differences are paired over them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pudnet_lib.evaluate import Interval
from pudnet_lib.results import Headline
from pudnet_lib.studies import intra_tables
from pudnet_lib.studies.intra_tables import ALL, DESIGNS, reference

TOP1, TOP5 = METRICS = ("top-1 accuracy", "top-5 accuracy")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracies of each method with their 95 % intervals, and what they cost.

    Args:
        table: From ``imagenet.run``.

    Returns:
        One row a metric and method, as ``intra_tables.summary`` has them; n is classes times seeds.
    """
    parts = [intra_tables.summary(table[table["metric"] == metric]).assign(metric=metric) for metric in METRICS]
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows["dataset"] != ALL].reset_index(drop=True)


def gains(table: pd.DataFrame, metric: str = TOP1) -> pd.DataFrame:
    """What each PudNet gains over the controls and over training from scratch, paired over classes, in points."""
    rows = intra_tables.gains(table[table["metric"] == metric])
    return rows[rows["dataset"] != ALL].reset_index(drop=True)


def rows_to_publish(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracies and gains in one table for the result file; infinite break-evens become empty."""
    named = []
    for metric in METRICS:
        rows = gains(table, metric)
        named.append(rows.assign(metric=rows["metric"] + f", {metric[:5]}"))
    return pd.concat([summary(table), *named], ignore_index=True).replace([np.inf], np.nan)


def speed(table: pd.DataFrame, metric: str = TOP5) -> pd.DataFrame:
    """How much faster than training from scratch each PudNet is.

    Args:
        table: From ``imagenet.run``.
        metric: Which accuracy must be reached.

    Returns:
        One row a design: method, metric, predicted (accuracy in %), predicted_seconds, scratch (the longest GC run's
        accuracy), scratch_seconds, ratio of the seconds, first_method (the shortest GC run that is at least as good;
        empty if none is), first_seconds and first_ratio (NaN if none is).
    """
    rows = _by_method(table, metric)
    full = rows[reference(table)]
    scratch = sorted((r for m, r in rows.items() if m.startswith("GC, ")), key=lambda r: float(r["prediction_seconds"]))
    found: list[dict[str, Any]] = []
    for mine in (rows[design] for design in DESIGNS if design in rows):
        first = next((r for r in scratch if r["mean"] >= mine["mean"]), None)
        seconds, of_first = mine["prediction_seconds"], first["prediction_seconds"] if first else math.nan
        row = {"method": mine["method"], "metric": metric, "predicted": mine["mean"], "predicted_seconds": seconds}
        row |= {"scratch": full["mean"], "scratch_seconds": full["prediction_seconds"]}
        row |= {"ratio": full["prediction_seconds"] / seconds, "first_method": first["method"] if first else ""}
        found.append(row | {"first_seconds": of_first, "first_ratio": of_first / seconds})
    return pd.DataFrame(found)


def _by_method(table: pd.DataFrame, metric: str) -> dict[str, dict[Hashable, Any]]:
    rows = summary(table)
    return {str(row["method"]): row for row in rows[rows["metric"] == metric].to_dict(orient="records")}


def _interval(row: Mapping[Hashable, Any]) -> Interval:
    return Interval(float(row["mean"]), float(row["low"]), float(row["high"]), int(row["n"]), int(row["seeds"]))


def answer(table: pd.DataFrame) -> str:
    """Say in a few sentences what came out; a stand-in for the source is named first."""
    dataset, target, ways = (table[name].iloc[0] for name in ("dataset", "target", "ways"))
    ones, fives, full = _by_method(table, TOP1), _by_method(table, TOP5), reference(table)
    parts = []
    if "stands in for" in dataset:
        wanted = dataset.partition("stands in for ")[2].rstrip(")")
        parts.append(
            f"{wanted} is not on this machine: this is the embedded pack {dataset.partition(' (')[0]} with few steps, "
            "which shows that the experiment runs, not what it would find."
        )
    for row in speed(table).to_dict(orient="records"):
        design = str(row["method"])
        one, five, scratch = _interval(ones[design]), _interval(fives[design]), _interval(fives[full])
        reached = (
            f"GC reaches its top-5 accuracy with {row['first_method']}, in {row['first_ratio']:.1f} times its seconds"
            if row["first_method"]
            else "no GC run reaches its top-5 accuracy"
        )
        found = [gain for gain in gains(table).to_dict(orient="records") if gain["method"] == design]
        controls = "; ".join(f"{gain['metric']} {_interval(gain).signed()}" for gain in found)
        parts.append(
            f"{design} predicts a {target} for {ways} unseen classes of {dataset} in {row['predicted_seconds']:.2f} s: "
            f"top-1 {one} %, top-5 {five} %, against top-5 {scratch} % of {full} in {row['scratch_seconds']:.1f} s "
            f"({row['ratio']:.3g} times as long); {reached}. Top-1 in points: {controls}."
        )
    return " ".join(parts)


def headline(table: pd.DataFrame) -> list[Headline]:
    """The report's headline line, beside the abstract's claim: the best GC run against the first design, top-5."""
    rows = _by_method(table, TOP5)
    design = next((d for d in DESIGNS if d in rows), None)
    if design is None or "stands in for" in table["dataset"].iloc[0]:  # no claim speaks of a stand-in
        return []
    mine, full = rows[design], rows[reference(table)]
    dataset, target, ways = (table[name].iloc[0] for name in ("dataset", "target", "ways"))
    return [
        Headline(
            f"{target}, {ways} unseen classes of {dataset}, {reference(table)} against {design}",
            "top-5 accuracy, %",
            float(full["mean"]),
            float(full["prediction_seconds"]),
            float(mine["mean"]),
            float(mine["prediction_seconds"]),
            float(mine["chance"]),
            (float(full["low"]), float(full["high"])),
            (float(mine["low"]), float(mine["high"])),
            "imagenet",
        )
    ]
