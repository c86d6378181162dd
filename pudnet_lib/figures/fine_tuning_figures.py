"""The fine-tuning figures: accuracy against steps and seconds for each start, and accuracies after the last step.

Our choice; paper Section 4.4 [rec] shows curves over steps.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from pudnet_lib.batch.labels import end_labels
from pudnet_lib.plots import PALETTE, figure, intervals
from pudnet_lib.studies.fine_tuning_tables import ALL, curves

START_COLOURS = {
    "predicted": PALETTE[0],
    "shared network": PALETTE[2],
    "random": PALETTE[1],
    "pretrained": PALETTE[4],
    "far swap": PALETTE[5],
    "near swap": PALETTE[3],
    "predicted with noise": PALETTE[6],
}


def figure_curves(table: pd.DataFrame, over: str = "step", trainable: str = "full", dataset: str = ALL) -> Figure:
    """Draw accuracy against steps or seconds, one panel an optimiser, one line a start.

    Args:
        table: From ``fine_tuning.run``.
        over: ``"step"``, or ``"seconds"`` from zero, on a logarithmic axis.
        trainable: ``"full"`` or ``"probe"``.
        dataset: One source, or all.

    Returns:
        The figure; bands are 95 % intervals over episodes.
    """
    rows = table[table["trainable"] == trainable]
    # Only starts that every optimiser has; the others stand in the table.
    kept = [s for s in dict.fromkeys(rows["start"]) if rows[rows["start"] == s]["optimiser"].nunique() > 1]
    kept = kept or list(dict.fromkeys(rows["start"]))
    optimisers = list(dict.fromkeys(rows["optimiser"]))
    drawn, axes = figure(3.0 * len(optimisers) + 1.2, 3.3, 1, len(optimisers))
    chance = float(rows["chance"].mean())
    for column, optimiser in enumerate(optimisers):
        ax, ends = axes[0, column], {}
        found = curves(rows[rows["start"].isin(kept)], optimiser, trainable, over, dataset)
        for start, part in found.groupby("start", sort=False):
            colour = START_COLOURS[str(start)]
            ax.plot(part["place"], part["mean"], color=colour)
            ax.fill_between(part["place"], part["low"], part["high"], color=colour, alpha=0.15, linewidth=0)
            ends[str(start)] = (float(part["place"].iloc[-1]), float(part["mean"].iloc[-1]), colour)
        ax.axhline(chance, color=PALETTE[7], linestyle="--", linewidth=1)
        ax.set(
            title=optimiser, xlabel="steps" if over == "step" else "seconds from zero", ylim=(max(0, chance - 8), 100)
        )
        if over == "seconds":
            ax.set_xscale("log")
        if column:
            ax.tick_params(labelleft=False)
        else:
            ax.annotate(
                "chance",
                (0.98, chance),
                (0, -10),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                fontsize=8,
                ha="right",
                color="#6a6a6a",
            )
            ax.set_ylabel("accuracy on new images (%)")
        if column == len(optimisers) - 1:
            end_labels(ax, ends)
    return drawn


def figure_ends(summary: pd.DataFrame) -> Figure:
    """Draw each method's accuracy after the last step, the mean over sources, best at the top.

    Args:
        summary: From ``fine_tuning.summary``.

    Returns:
        The figure; bars are 95 % intervals over episodes.
    """
    rows = summary[(summary["dataset"] == ALL) & (summary["metric"] == "accuracy")]
    rows = rows.sort_values("mean", ascending=False).reset_index(drop=True)
    drawn, axes = figure(7.2, 0.25 * len(rows) + 0.9)
    intervals(
        rows,
        axes[0, 0],
        unit="accuracy after the last step (%), mean over sources; a colour a start",
        colours=lambda name, _: START_COLOURS[name.partition(", ")[0]],
    )
    return drawn
