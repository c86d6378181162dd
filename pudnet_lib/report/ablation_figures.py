"""The ablations' figures: accuracy of each variant, and its far and near gains, as dots with intervals.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pudnet_lib.report.figures import PALETTE, figure


def _dots(ax: Axes, rows: pd.DataFrame, places: dict[str, int], colour: str, offset: float = 0.0) -> None:
    y = [places[m] + offset for m in rows["method"]]
    error = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
    ax.errorbar(rows["mean"], y, xerr=error, fmt="o", color=colour, markersize=5, elinewidth=2, alpha=0.9)


def figure_effects(effects: pd.DataFrame, base: str = "PudNet") -> Figure:
    """Draw each variant's accuracy on unseen classes and its far and near gains.

    Args:
        effects: From ``ablations.effects``.
        base: The variant at whose accuracy a line is drawn.

    Returns:
        The figure: left accuracy in %, right gains in points; bars are 95 % intervals over groups and seeds.
    """
    accuracy = effects[effects["metric"] == "accuracy"].sort_values("mean")
    places = {method: place for place, method in enumerate(accuracy["method"])}
    drawn, axes = figure(8.6, 0.32 * len(places) + 1.0, 1, 2)
    left, right = axes[0]
    blind = accuracy["method"].str.startswith(("shared", "constant"))
    _dots(left, accuracy[~blind], places, PALETTE[0])
    _dots(left, accuracy[blind], places, PALETTE[2])
    if base in places:
        level = float(accuracy[accuracy["method"] == base]["mean"].iloc[0])
        left.axvline(level, color=PALETTE[7], linestyle="--", linewidth=1)
    left.set_yticks(range(len(places)), list(places))
    left.set_xlabel("accuracy on unseen classes (%)")
    left.set_title("green: sees no data")
    for metric, colour, offset in (("far gain", PALETTE[1], 0.14), ("near gain", PALETTE[3], -0.14)):
        rows = effects[effects["metric"] == metric]
        _dots(right, rows, places, colour, offset)
        place = (0.0 if metric == "far gain" else 0.35, 1.02)
        right.annotate(metric, place, xycoords="axes fraction", color=colour, fontsize=10, va="bottom")
    right.axvline(0, color=PALETTE[7], linestyle="--", linewidth=1)
    right.set_yticks(range(len(places)), [])
    right.set_ylim(left.get_ylim())
    right.set_xlabel("own sketch minus swapped sketch (points)")
    return drawn
