"""Tables of the intra-dataset comparison: accuracies, paired gains, break-even, and the sentence that reads them.

Our choice. Intervals are crossed over seeds and episodes; a difference is always taken over the episodes (and, where
both sides have the same seeds, the seeds) that both methods share.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import Interval, crossed_interval, difference
from pudnet_lib.results import Headline

ALL = "all sources"
DESIGNS = ("PudNet (kit)", "PudNet (paper)")
#: Gain → the rival that is subtracted; {} is the design itself.
GAINS = {
    "far gain": "{}, far swap",
    "near gain": "{}, near swap",
    "gain over shared": "shared network",
    "gain over constant": "constant embedding",
    "gain over refined shared": "shared network, refined",
    "gain over specialist": "specialist",
}


def reference(table: pd.DataFrame) -> str:
    """Name the network trained from scratch that the rest is compared with: GC with 30 epochs, or the most there are.

    Args:
        table: From ``run``.

    Returns:
        The method's name.

    Raises:
        PudNetError: If nothing was trained from scratch.
    """
    trained = [m for m in dict.fromkeys(table["method"]) if " epoch" in m]
    if not trained:
        raise PudNetError("The table has no network trained from scratch; expected a method such as 'GC, 30 epochs'.")
    gc = [m for m in trained if m.startswith("GC")] or trained
    return "GC, 30 epochs" if "GC, 30 epochs" in gc else max(gc, key=lambda m: int(m.split()[1]))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy of each method with its 95 % interval, and what it costs.

    Args:
        table: From ``run``.

    Returns:
        One row a target, ways, method and dataset ("all sources" is their mean): mean, low, high in %, n, seeds,
        chance, prediction_seconds (median), meta_training_seconds, break_even (datasets from which on meta-training
        has paid for itself against GC from scratch; infinite if never, NaN without meta-training).
    """
    rows: list[dict[str, Any]] = []
    for (target, ways), part in table.groupby(["target", "ways"], sort=False):
        scratch = part[part["method"] == reference(part)]
        for method, mine in part.groupby("method", sort=False):
            for dataset in [*dict.fromkeys(mine["dataset"]), ALL]:
                own = mine if dataset == ALL else mine[mine["dataset"] == dataset]
                rival = scratch if dataset == ALL else scratch[scratch["dataset"] == dataset]
                seconds, meta = own["prediction_seconds"].median(), _meta_seconds(own)
                saved = rival["prediction_seconds"].median() - seconds
                paid = math.nan if math.isnan(meta) else (meta / saved if saved > 0 else math.inf)
                row = {"target": target, "ways": ways, "method": method, "dataset": dataset, "metric": "accuracy"}
                row |= vars(_crossed(own)) | {"chance": own["chance"].mean(), "prediction_seconds": seconds}
                rows.append(row | {"meta_training_seconds": meta, "break_even": paid})
    return pd.DataFrame(rows)


def _meta_seconds(rows: pd.DataFrame) -> float:
    return float(rows["meta_training_seconds"].mean()) if "meta_training_seconds" in rows else math.nan


def _crossed(rows: pd.DataFrame) -> Interval:
    """Interval of the mean over sources, episodes of one index averaged so that episodes stay independent."""
    wide = rows.pivot_table(index="seed", columns=["dataset", "episode"], values="value")
    return crossed_interval(wide.T.groupby(level="episode").mean().T.to_numpy())


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What each PudNet gains over the controls and over training from scratch, paired, in percentage points.

    Args:
        table: From ``run``.

    Returns:
        One row a target, ways, method, dataset and metric ("far gain", …): mean, low, high in points, n, seeds.
    """
    rows: list[dict[str, Any]] = []
    for (target, ways), part in table.groupby(["target", "ways"], sort=False):
        rivals = GAINS | {f"gain over {reference(part)}": reference(part)}
        methods = set(part["method"])
        for design in (d for d in DESIGNS if d in methods):
            for metric, pattern in rivals.items():
                rival = pattern.format(design)
                if rival not in methods:
                    continue
                for dataset in [*dict.fromkeys(part["dataset"]), ALL]:
                    found = difference(part, design, rival, None if dataset == ALL else dataset)
                    row = {"target": target, "ways": ways, "method": design, "dataset": dataset, "metric": metric}
                    rows.append(row | vars(found))
    return pd.DataFrame(rows)


def rows_to_publish(table: pd.DataFrame, *more: pd.DataFrame) -> pd.DataFrame:
    """Accuracies and gains in one table for the result file, and more rows; infinite break-evens become empty."""
    return pd.concat([summary(table), gains(table), *more], ignore_index=True).replace([np.inf], np.nan)


def answer(table: pd.DataFrame) -> str:
    """Say in one sentence what the first design gains, over the first target and episode size of the table."""
    first = table[(table["target"] == table["target"].iloc[0]) & (table["ways"] == table["ways"].iloc[0])]
    design = next((d for d in DESIGNS if d in set(first["method"])), None)
    if design is None:
        raise PudNetError(f"The table has no PudNet; expected one of {DESIGNS}.")
    rows = summary(first)
    means = {str(row["method"]): row for row in rows[rows["dataset"] == ALL].to_dict(orient="records")}
    found = gains(first)
    mine = found[(found["method"] == design) & (found["dataset"] == ALL)].to_dict(orient="records")
    parts = [f"{row['metric']} {_interval(row).signed()}" for row in mine]
    scratch = reference(first)
    own = means[design]
    speed, paid = means[scratch]["prediction_seconds"] / own["prediction_seconds"], float(own["break_even"])
    from_when = f"pays from {paid:.0f} datasets on" if math.isfinite(paid) else "never pays"
    return (
        f"On episodes of {first['ways'].iloc[0]} unseen classes of {', '.join(dict.fromkeys(first['dataset']))} "
        f"({first['target'].iloc[0]}) {design} reaches {own['mean']:.1f} % [{own['low']:.1f}, {own['high']:.1f}] "
        f"(n = {own['n']:.0f}, {own['seeds']:.0f} seeds); in points: {'; '.join(parts)}; it takes 1/{speed:.0f} of the "
        f"time of {scratch}, and meta-training {from_when}."
    )


def _interval(row: Mapping[Hashable, Any]) -> Interval:
    return Interval(float(row["mean"]), float(row["low"]), float(row["high"]), int(row["n"]), int(row["seeds"]))


def headline(table: pd.DataFrame) -> list[Headline]:
    """The report's headline lines: the first design beside GC from scratch, one line a target and episode size."""
    lines = []
    for (target, ways), part in summary(table).groupby(["target", "ways"], sort=False):
        rows = {str(row["method"]): row for row in part[part["dataset"] == ALL].to_dict(orient="records")}
        design = next((d for d in DESIGNS if d in rows), None)
        scratch = reference(part)
        if design is None:
            continue
        predicted, trained = rows[design], rows[scratch]
        lines.append(
            Headline(
                f"{target}, episodes of {ways} unseen classes, {scratch} against {design}",
                "top-1 accuracy, %",
                float(trained["mean"]),
                float(trained["prediction_seconds"]),
                float(predicted["mean"]),
                float(predicted["prediction_seconds"]),
                float(predicted["chance"]),
                (float(trained["low"]), float(trained["high"])),
                (float(predicted["low"]), float(predicted["high"])),
            )
        )
    return lines
