"""The intra-dataset comparison's figures: accuracies, gains over the controls, accuracy against the episodes' size.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from pudnet_lib.batch.labels import end_labels
from pudnet_lib.methods.contenders import REFINED_SHARED
from pudnet_lib.plots import PALETTE, colour_of, figure, intervals
from pudnet_lib.studies.intra_tables import ALL, reference

#: Drawn against the episodes' size, with training from scratch; the rest stands in the table.
SHOWN = ("PudNet (kit)", "PudNet (paper)", REFINED_SHARED, "shared network", "ProtoNet")


def figure_accuracies(summary: pd.DataFrame, ways: int | str, unit: str = "") -> Figure:
    """Draw each method's accuracy, the mean over sources, best at the top.

    Args:
        summary: From ``intra_dataset.summary``.
        ways: K, the size of the episodes to show.
        unit: Another label of the axis.

    Returns:
        The figure; bars are 95 % intervals over episodes and seeds.
    """
    rows = summary[(summary["ways"] == ways) & (summary["dataset"] == ALL)].sort_values("mean", ascending=False)
    drawn, axes = figure(7.2, 0.25 * len(rows) + 0.9)
    intervals(rows, axes[0, 0], unit=unit or f"accuracy on episodes of {ways} unseen classes (%), mean over sources")
    return drawn


def figure_gains(gains: pd.DataFrame, ways: int) -> Figure:
    """Draw the paired gains of each design over the controls, one panel a source.

    Args:
        gains: From ``intra_dataset.gains``.
        ways: K, the size of the episodes to show.

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


def figure_ways(summary: pd.DataFrame, target: str) -> Figure:
    """Draw accuracy against the size of the unseen episodes, one panel a source.

    Args:
        summary: From ``intra_dataset.summary``.
        target: The target network to show.

    Returns:
        The figure; bars are 95 % intervals, the dashed line is chance. A source stands there with the sizes that it
        has classes for.
    """
    rows = summary[(summary["target"] == target) & (summary["dataset"] != ALL)]
    methods = [m for m in SHOWN if m in set(rows["method"])]
    methods.append(reference(rows))
    datasets, sizes = list(dict.fromkeys(rows["dataset"])), sorted(set(rows["ways"]))
    drawn, axes = figure(2.6 * len(datasets) + 1.8, 3.4, 1, len(datasets))
    ends: dict[str, tuple[float, float, str]] = {}
    for ax, dataset in zip(axes[0], datasets, strict=True):
        here = rows[rows["dataset"] == dataset].sort_values("ways")
        for place, method in enumerate(methods):
            part, colour = here[here["method"] == method], colour_of(method)
            # Side by side, so that intervals don't hide one another.
            x = [sizes.index(w) + 0.07 * (place - (len(methods) - 1) / 2) for w in part["ways"]]
            error = [part["mean"] - part["low"], part["high"] - part["mean"]]
            ax.errorbar(x, part["mean"], yerr=error, fmt="o-", color=colour, markersize=4, elinewidth=1.5)
            if len(part) and dataset == datasets[-1]:
                ends[method] = (x[-1], float(part["mean"].iloc[-1]), colour)
        chance = here.groupby("ways")["chance"].mean()
        ax.plot([sizes.index(w) for w in chance.index], chance, "_--", color=PALETTE[7], linewidth=1, markersize=14)
        ax.set_title(dataset)
        ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        ax.set_xlim(-0.4, len(sizes) - 0.6)
        ax.set_ylim(0, 100)
        ax.set_xlabel("K, classes of an episode")
    axes[0, 0].set_ylabel("accuracy (%); dashed: chance")
    end_labels(axes[0, -1], ends)
    return drawn
