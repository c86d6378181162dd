"""Tables of the ablations: each variant's effect, its far and near gains, and the sentence that reads them.

Our choice. An effect is the paired difference from the base on the same unseen episodes, crossed over seeds and
episodes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from pudnet_lib.evaluate import Interval, difference


def effects(table: pd.DataFrame, base: str = "PudNet") -> pd.DataFrame:
    """Each variant minus the base on the same unseen episodes, and its far and near gains.

    Args:
        table: From ``run``.
        base: The variant to compare with.

    Returns:
        One row a variant and quantity ("effect", "far gain", "near gain", "accuracy", "validation"): mean, low, high in
        points or %, n, seeds.
    """
    unseen = table[table["classes"] == "unseen"]
    own = unseen[unseen["swap"] == "own"]
    validation = table[(table["classes"] == "validation") & (table["swap"] == "own")]
    rows = []

    def add(variant: str, quantity: str, found: Interval) -> None:
        rows.append({"method": variant, "metric": quantity, **vars(found)})

    for variant, part in unseen.groupby("method", sort=False):
        name = str(variant)
        add(name, "accuracy", difference(pd.concat([own, _zero(own)]), name, "zero"))
        if name in set(validation["method"]):
            add(name, "validation", difference(pd.concat([validation, _zero(validation)]), name, "zero"))
        if name != base and base in set(own["method"]):
            add(name, "effect", difference(own, name, base))
        for swap in ("far", "near"):
            if swap in set(part["swap"]):
                both = part.assign(method=part["swap"])
                add(name, f"{swap} gain", difference(both, "own", swap))
    return pd.DataFrame(rows)


def _zero(table: pd.DataFrame) -> pd.DataFrame:
    """A method that is never right, so that an accuracy is a difference and gets the same interval."""
    one: pd.DataFrame = table[table["method"] == table["method"].iloc[0]]
    return one.assign(method="zero", value=0.0)


def answer(table: pd.DataFrame) -> str:
    """Say in one sentence which factors have an effect, and what the best variant gains over the rivals."""
    found = effects(table)
    clear = found[(found["metric"] == "effect") & ((found["low"] > 0) | (found["high"] < 0))]
    named = ", ".join(f"{row['method']} {_signed(row)}" for row in clear.to_dict(orient="records"))
    compared = int((found["metric"] == "effect").sum())
    moved = (
        f"{len(clear)} differ{'s' * (len(clear) == 1)} clearly from the base ({named})"
        if len(clear)
        else "none differs clearly from the base"
    )
    sentence = f"Of {compared} variants {moved}; one in twenty would by chance"
    chosen = found[found["metric"] == "validation"]
    validation = {str(m): float(v) for m, v in zip(chosen["method"], chosen["mean"], strict=True)}
    rivals = [m for m in validation if m.startswith(("shared", "constant"))]
    ours = max((m for m in validation if m not in rivals), key=validation.__getitem__)
    if not rivals:
        return f"{sentence}; the best on held-out training classes is “{ours}”."
    rival = max(rivals, key=validation.__getitem__)
    unseen = table[table["classes"] == "unseen"]
    gain = difference(unseen[unseen["swap"] == "own"], ours, rival)
    mine = unseen[unseen["method"] == ours]
    swapped = mine.assign(method=mine["swap"])
    far, near = difference(swapped, "own", "far"), difference(swapped, "own", "near")
    return (
        f"{sentence}. The best on held-out training classes is “{ours}”: on unseen classes it differs from the best "
        f"rival that sees no data, “{rival}”, by {gain.signed()} points (n = {gain.n}, {gain.seeds} seeds), with a far "
        f"gain of {far.signed()} and a near gain of {near.signed()}."
    )


def _signed(row: Mapping[Hashable, Any]) -> str:
    return Interval(float(row["mean"]), float(row["low"]), float(row["high"]), int(row["n"])).signed()
