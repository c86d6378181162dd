"""The intra-dataset comparison's figures: accuracies of all methods, and what each PudNet gains over the controls.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from pudnet_lib.experiments.intra_tables import ALL
from pudnet_lib.report.figures import PALETTE, colour_of, figure, intervals


def figure_accuracies(summary: pd.DataFrame, ways: int | str, unit: str = "") -> Figure:
    """Draw each method's accuracy, the mean over sources, best at the top.

    Args:
        summary: From ``intra_dataset.summary``.
        ways: K, the size of the groups to show.
        unit: Another label of the axis.

    Returns:
        The figure; bars are 95 % intervals over groups and seeds.
    """
    rows = summary[(summary["ways"] == ways) & (summary["dataset"] == ALL)].sort_values("mean", ascending=False)
    drawn, axes = figure(7.2, 0.25 * len(rows) + 0.9)
    intervals(rows, axes[0, 0], unit=unit or f"accuracy on groups of {ways} unseen classes (%), mean over sources")
    return drawn


def figure_gains(gains: pd.DataFrame, ways: int) -> Figure:
    """Draw the paired gains of each design over the controls, one panel a source.

    Args:
        gains: From ``intra_dataset.gains``.
        ways: K, the size of the groups to show.

    Returns:
        The figure, in percentage points; bars are 95 % intervals.
    """
    rows = gains[gains["ways"] == ways]
    datasets, metrics = list(dict.fromkeys(rows["dataset"])), list(dict.fromkeys(rows["metric"]))
    designs = list(dict.fromkeys(rows["method"]))
    drawn, axes = figure(2.2 * len(datasets) + 1.6, 0.42 * len(metrics) + 1.2, 1, len(datasets))
    for column, dataset in enumerate(datasets):
        ax = axes[0, column]
        for d, design in enumerate(designs):
            part = rows[(rows["dataset"] == dataset) & (rows["method"] == design)].set_index("metric")
            part = part.loc[[m for m in metrics if m in part.index]]
            y = [metrics.index(str(m)) + 0.24 * (d - (len(designs) - 1) / 2) for m in part.index]
            error = [part["mean"] - part["low"], part["high"] - part["mean"]]
            ax.errorbar(
                part["mean"], y, xerr=error, fmt="o", color=colour_of(design), markersize=4, elinewidth=2, label=design
            )
        ax.axvline(0, color=PALETTE[7], linestyle="--", linewidth=1)
        ax.set_yticks(range(len(metrics)), metrics if column == 0 else [])
        ax.set_ylim(len(metrics) - 0.5, -0.5)
        ax.set_title(dataset)
        ax.set_xlabel("points")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    return drawn
