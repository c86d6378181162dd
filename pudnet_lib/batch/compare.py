"""``pudnet compare``: which numbers moved beyond their intervals between two sets of results.

Our choice; the paper has no counterpart. Two rows are the same measurement if everything that names them is equal; they
moved if their 95 % intervals do not overlap, or, where one has none, if the other's leaves it out.
"""

from pathlib import Path

import pandas as pd

from pudnet_lib.errors import PudNetError
from pudnet_lib.results import read_results

#: Columns that are measured, and so do not name a row.
MEASURED = {"mean", "low", "high", "n", "seeds", "chance", "prediction_seconds", "meta_training_seconds", "seconds"}
KEY = ["experiment", "run", "what", "metric"]


def _rows(folder: Path) -> pd.DataFrame:
    if not folder.is_dir():
        raise PudNetError(f"{folder} is no folder of result files; expected one such as reports/results.")
    rows = []
    for result in read_results(folder):
        for row in result["rows"]:
            names = {k: v for k, v in row.items() if k not in MEASURED and isinstance(v, str | bool | int)}
            what = ", ".join(str(v) for k, v in sorted(names.items()) if k != "metric")
            run = " ".join(filter(None, [result["profile"], result["variant"]]))
            bounds = row.get("low"), row.get("high")
            low, high = (row["mean"], row["mean"]) if None in bounds else bounds
            rows.append((result["experiment"], run, what, row["metric"], row["mean"], low, high))
    if not rows:
        raise PudNetError(f"{folder} holds no result files (*.json).")
    table = pd.DataFrame(rows, columns=[*KEY, "mean", "low", "high"]).drop_duplicates(KEY, keep="last")
    return table.astype(dict.fromkeys(("mean", "low", "high"), float))


def compare(before: Path, after: Path) -> pd.DataFrame:
    """Compare two folders of result files."""
    table = _rows(before).merge(_rows(after), "outer", KEY, suffixes=("", "_b"), indicator="status", sort=False)
    moved = (table["low_b"] > table["high"]) | (table["high_b"] < table["low"])
    moved |= table["mean"].isna() != table["mean_b"].isna()
    table["status"] = table["status"].astype(str).map({"both": "within", "left_only": "gone", "right_only": "new"})
    table.loc[moved & (table["status"] == "within"), "status"] = "moved"
    table = table.rename(columns={"mean": "before", "mean_b": "after"})
    table["change"] = table["after"] - table["before"]
    order = table["status"].map({"moved": 0, "gone": 1, "new": 2, "within": 3})
    sizes = (table["change"] / table["before"].where(table["before"] != 0, 1.0)).abs().fillna(0.0)
    table = table.assign(_o=order, _r=-sizes).sort_values(["_o", "_r"], kind="stable")
    return table[[*KEY, "before", "after", "change", "status"]]
