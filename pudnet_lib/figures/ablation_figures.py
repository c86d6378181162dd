"""The ablations' figure: each variant's effect, and its far and near gains, as dots with intervals.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pudnet_lib.plots import PALETTE, figure


def _dots(ax: Axes, rows: pd.DataFrame, places: dict[str, int], colour: str, offset: float = 0.0) -> None:
    y = [places[m] + offset for m in rows["method"]]
    error = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
    ax.errorbar(rows["mean"], y, xerr=error, fmt="o", color=colour, markersize=5, elinewidth=2, alpha=0.9)


def figure_effects(effects: pd.DataFrame, base: str = "PudNet") -> Figure:
    """Draw what each variant changes, and its far and near gains, in the order of the factors.

    Args:
        effects: From ``ablations.effects``.
        base: The variant that the others are compared with.

    Returns:
        The figure, in points: left the paired difference from the base, right the gains; bars are 95 % intervals over
        episodes and seeds.
    """
    accuracy = effects[effects["metric"] == "accuracy"]
    places = {str(method): place for place, method in enumerate(accuracy["method"])}
    drawn, axes = figure(9.0, 0.3 * len(places) + 1.2, 1, 2)
    left, right = axes[0]
    blind = {m for m in places if m.startswith(("shared", "constant"))}
    rows = effects[effects["metric"] == "effect"]
    _dots(left, rows[~rows["method"].isin(blind)], places, PALETTE[0])
    _dots(left, rows[rows["method"].isin(blind)], places, PALETTE[2])
    if base in places:
        level = float(accuracy[accuracy["method"] == base]["mean"].iloc[0])
        left.plot(0, places[base], "D", color=PALETTE[0], markersize=5)
        left.annotate(
            f"base, {level:.1f} %", (0, places[base]), (7, 0), textcoords="offset points", va="center", fontsize=9
        )
    left.axvline(0, color=PALETTE[7], linestyle="--", linewidth=1)
    left.set_yticks(range(len(places)), list(places))
    left.set_ylim(len(places) - 0.5, -0.7)
    left.set_xlabel("accuracy minus the base's (points)")
    left.set_title("on unseen classes; green: sees no data", fontsize=10)
    for metric, colour, offset in (("far gain", PALETTE[1], -0.14), ("near gain", PALETTE[3], 0.14)):
        _dots(right, effects[effects["metric"] == metric], places, colour, offset)
        place = (0.0 if metric == "far gain" else 0.35, 1.02)
        right.annotate(metric, place, xycoords="axes fraction", color=colour, fontsize=10, va="bottom")
    right.axvline(0, color=PALETTE[7], linestyle="--", linewidth=1)
    right.set_yticks(range(len(places)), [])
    right.set_ylim(left.get_ylim())
    right.set_xlabel("own minus swapped sketch (points)")
    return drawn
