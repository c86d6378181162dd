"""One look for all figures: palette, style, and two drawings that every experiment needs (intervals and curves).

Our choice; the paper has no counterpart. The palette is Okabe and Ito's, safe for colour-blind readers; a method keeps
its colour in every figure. Lines and points are labelled where they end, not in a legend.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
#: A method has one colour in all figures, and methods of one kind share it; others take the palette in order.
METHOD_COLOURS = {
    "PudNet": "#0072B2",
    "PudNet (kit)": "#0072B2",
    "plain": "#332288",
    "PudNet (paper)": "#332288",
    "refined": "#8C6D31",
    "far swap": "#56B4E9",
    "near swap": "#CC79A7",
    "shared network": "#009E73",
    "constant embedding": "#009E73",
    "specialist": "#009E73",
    "from scratch": "#D55E00",
    "fine-tuned": "#E69F00",
    "pretrained": "#E69F00",
    **dict.fromkeys(("ProtoNet", "MatchingNet", "Meta-Baseline", "Meta-DeepBDC", "MUSML"), "#7F7F7F"),
    "chance": "#7F7F7F",
}
STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#b0b0b0",
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
    "axes.prop_cycle": cycler(color=PALETTE),
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "image.cmap": "cividis",
}


class NotebookFigure(Figure):
    """A figure that a notebook shows as PNG without pyplot, and so without its global list of open figures."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def figure(width: float = 6.4, height: float = 3.4, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """Make an empty figure in the kit's style, without touching matplotlib's global state.

    Args:
        width: Width in inches.
        height: Height in inches.
        rows: Rows of axes.
        columns: Columns of axes.

    Returns:
        The figure and its axes, always an array (rows, columns).
    """
    with mpl.rc_context(STYLE):
        drawn = NotebookFigure(figsize=(width, height))
        axes = drawn.subplots(rows, columns, squeeze=False)
    return drawn, axes


def colour_of(method: str, position: int = 0) -> str:
    """Give a method its colour: the fixed one ("PudNet, far swap" has that of "far swap"), or the palette's.

    "GC, 30 epochs" has that of "from scratch".
    """
    kind = method.rpartition(", ")[2]
    if kind.endswith((" epoch", " epochs")):
        kind = "from scratch"
    return METHOD_COLOURS.get(kind, PALETTE[position % len(PALETTE)])


def intervals(
    rows: pd.DataFrame,
    axes: Axes,
    label: str = "method",
    unit: str = "accuracy (%)",
    colours: Callable[[str, int], str] = colour_of,
) -> Axes:
    """Draw means with their 95 % intervals as labelled dots, one line a row; chance as a dashed line.

    Args:
        rows: Table with ``label``, mean, low, high and possibly ``chance``; the numbers as they shall be drawn.
        axes: Where to draw.
        label: The column that names a row.
        unit: The value axis's label, with the unit.
        colours: A row's name and position to its colour.

    Returns:
        The same axes.
    """
    names = [str(name) for name in rows[label]]
    for position, (name, row) in enumerate(zip(names, rows.to_dict(orient="records"), strict=True)):
        mean, colour = row["mean"], colours(name, position)
        low, high = row.get("low", mean), row.get("high", mean)
        axes.plot([low, high], [position, position], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
        axes.plot(mean, position, "o", color=colour, markersize=7)
        axes.annotate(
            f"{mean:.1f}", (max(high, mean), position), (6, 0), textcoords="offset points", va="center", fontsize=9
        )
    if "chance" in rows and rows["chance"].notna().any():
        axes.axvline(float(rows["chance"].mean()), color=METHOD_COLOURS["chance"], linestyle="--", linewidth=1)
        # Under the axes' top edge, beside its line, whatever the rows are.
        axes.annotate(
            "chance", (float(rows["chance"].mean()), 1.0), (3, -2), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="top", fontsize=9, color="#6a6a6a",
        )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.9)
    axes.margins(x=0.08)  # room for the last number
    axes.set_xlabel(unit)
    axes.grid(visible=False, axis="y")
    return axes


def curve(axes: Axes, x: Sequence[float], rows: pd.DataFrame, method: str, position: int = 0) -> Axes:
    """Draw a mean curve with its 95 % band and the method's name at its end.

    Args:
        axes: Where to draw; its labels are the caller's.
        x: Places on the horizontal axis, one a row.
        rows: Table with mean, low, high.
        method: Name and colour.
        position: Palette position for a method without a colour of its own.

    Returns:
        The same axes.
    """
    colour = colour_of(method, position)
    axes.plot(x, rows["mean"], color=colour)
    axes.fill_between(x, rows["low"], rows["high"], color=colour, alpha=0.18, linewidth=0)
    end = (list(x)[-1], rows["mean"].iloc[-1])
    axes.annotate(method, end, (5, 0), textcoords="offset points", color=colour, va="center", fontsize=9)
    return axes
