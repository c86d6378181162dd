"""The module-based publish of notebooks that are not written anew yet; goes with the last of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from pudnet_lib import results
from pudnet_lib.errors import PudNetError
from pudnet_lib.results import Headline

COUNTERS = ("value", "seed", "episode", "index", "fold")


def summarise(table: pd.DataFrame, by: Sequence[str] = ("method", "dataset", "metric")) -> pd.DataFrame:
    """Turn raw values into means with intervals that take all values of a row as independent."""
    if "value" not in table or table.empty:
        raise PudNetError(f"summarise needs rows with a 'value' column; got {list(table.columns)}.")
    keys = [name for name in by if name in table]
    numeric = [c for c in table.select_dtypes("number") if c not in (*keys, *COUNTERS)]
    rows = []
    for values, part in table.groupby(keys, sort=False, dropna=False):
        sample = part["value"].dropna().to_numpy(dtype=float)
        n = len(sample)
        mean = float(sample.mean()) if n else np.nan
        half = float(stats.t.ppf(0.975, n - 1) * stats.sem(sample)) if n > 1 else np.nan
        row = dict(zip(keys, values, strict=True)) | {"mean": mean, "low": mean - half, "high": mean + half, "n": n}
        row["seeds"] = int(part["seed"].nunique()) if "seed" in part else 1
        rows.append(row | {name: float(part[name].mean()) for name in numeric})
    return pd.DataFrame(rows)


def publish(
    experiment: ModuleType,
    table: pd.DataFrame,
    config: Any,
    profile: str,
    *,
    answer: str,
    figures: Mapping[str, tuple[Figure, str]] | None = None,
    headline: Sequence[Headline] = (),
    by: Sequence[str] = ("method", "dataset", "metric"),
    variant: str = "",
) -> Path:
    """Hand over an experiment module's result."""
    return results.publish(
        experiment.__name__.rpartition(".")[2],
        table if "mean" in table else summarise(table, by),
        figures,
        question=experiment.QUESTION,
        answer=answer,
        config=config,
        profile=profile,
        title=experiment.TITLE,
        headline=headline,
        variant=variant,
    )
