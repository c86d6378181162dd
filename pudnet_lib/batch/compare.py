"""``pudnet compare``: which numbers moved beyond their intervals between two sets of results.

Our choice; the paper has no counterpart. Two rows are the same measurement if everything that names them is equal; they
moved if their 95 % intervals do not overlap, or, where one has none, if the other's leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pudnet_lib.errors import PudNetError
from pudnet_lib.results import read_result

#: Columns that are measured, and so do not name a row.
MEASURED = {"mean", "low", "high", "n", "seeds", "chance", "prediction_seconds", "meta_training_seconds", "seconds"}


def _rows(folder: Path) -> dict[tuple[str, str, str, str], Mapping[str, Any]]:
    if not folder.is_dir():
        raise PudNetError(f"{folder} is no folder of result files; expected one such as reports/results.")
    found: dict[tuple[str, str, str, str], Mapping[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        result = read_result(path)
        for row in result["rows"]:
            names = {k: v for k, v in row.items() if k not in MEASURED and isinstance(v, str | bool | int)}
            what = ", ".join(str(v) for k, v in sorted(names.items()) if k != "metric")
            run = " ".join(filter(None, [result["profile"], result["variant"]]))
            found[(result["experiment"], run, what, str(row["metric"]))] = row
    if not found:
        raise PudNetError(f"{folder} holds no result files (*.json).")
    return found


def _interval(row: Mapping[str, Any]) -> tuple[float, float]:
    low, high = row.get("low"), row.get("high")
    return (row["mean"], row["mean"]) if low is None or high is None else (low, high)


def compare(before: Path, after: Path) -> pd.DataFrame:
    """Compare two folders of result files."""
    old, new = _rows(before), _rows(after)
    lines = []
    for key in dict.fromkeys([*old, *new]):
        first, second = old.get(key), new.get(key)
        line = dict(zip(("experiment", "run", "what", "metric"), key, strict=True))
        a, b = (row["mean"] if row else None for row in (first, second))
        status = "gone" if second is None else "new"
        if first is not None and second is not None:
            status = "within"
            if (a is None) != (b is None):
                status = "moved"
            elif a is not None:
                (low_a, high_a), (low_b, high_b) = _interval(first), _interval(second)
                status = "moved" if low_b > high_a or high_b < low_a else "within"
        change = b - a if a is not None and b is not None else None
        lines.append({**line, "before": a, "after": b, "change": change, "status": status})
    table = pd.DataFrame(lines)
    scale = table["before"].abs().astype(float).where(lambda size: size > 0, 1.0)
    relative = (table["change"].abs().astype(float) / scale).fillna(0.0)
    order = table["status"].map({"moved": 0, "gone": 1, "new": 2, "within": 3})
    return table.assign(_o=order, _r=-relative).sort_values(["_o", "_r"], kind="stable").drop(columns=["_o", "_r"])
