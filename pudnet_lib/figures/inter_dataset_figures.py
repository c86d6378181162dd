"""The inter-dataset comparison's figures: gains on each unseen source, whole datasets, distance and gain, reliability.

Our choice; the paper has no counterpart. Accuracies over all sources are drawn as in the intra-dataset comparison.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pudnet_lib.evaluate import interval
from pudnet_lib.plots import METHOD_COLOURS, PALETTE, colour_of, figure
from pudnet_lib.studies.inter_tables import NEW, rank_correlation
from pudnet_lib.studies.intra_tables import ALL, DESIGNS
from pudnet_lib.studies.trust_calibration import calibration_error, reliability
from pudnet_lib.trust import TrustConfig

_GREY = PALETTE[7]
#: Drawn for whole datasets, where they took part; the network trained from scratch comes last.
_WHOLE = ("PudNet (kit)", "PudNet (paper)", "PudNet (kit), far swap", "shared network", "ProtoNet")


def _designs(rows: pd.DataFrame) -> list[str]:
    """The designs of a table, always in one order, so that each keeps its colour."""
    return [design for design in DESIGNS if design in set(rows["method"])]


def _dots(ax: Axes, rows: pd.DataFrame, y: list[float], colour: str, label: str) -> None:
    error = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
    ax.errorbar(rows["mean"], y, xerr=error, fmt="o", color=colour, markersize=4, elinewidth=2, label=label)


def figure_gains(gains: pd.DataFrame, ways: str) -> Figure:
    """Draw what each design gains on each unseen source, one panel a rival, and what a new source may expect.

    Args:
        gains: From ``inter_dataset.gains``.
        ways: K as text, the episodes to show.

    Returns:
        The figure, in percentage points; bars are 95 % intervals.
    """
    rows = gains[gains["ways"] == ways]
    sources = [d for d in dict.fromkeys(rows["dataset"]) if d not in (ALL, NEW)]
    places = {d: float(i) for i, d in enumerate(sources)} | {
        d: len(sources) + 0.4 + i for i, d in enumerate((ALL, NEW))
    }
    metrics, designs = list(dict.fromkeys(rows["metric"])), _designs(rows)
    drawn, axes = figure(1.9 * len(metrics) + 1.4, 0.34 * len(places) + 1.3, 1, len(metrics))
    for column, metric in enumerate(metrics):
        ax = axes[0, column]
        for d, design in enumerate(designs):
            part = rows[(rows["metric"] == metric) & (rows["method"] == design) & rows["dataset"].isin(list(places))]
            offset = 0.26 * (d - (len(designs) - 1) / 2)
            _dots(ax, part, [places[name] + offset for name in part["dataset"]], colour_of(design), design)
        ax.axvline(0, color=_GREY, linestyle="--", linewidth=1)
        ax.axhline(len(sources) - 0.3, color=_GREY, linewidth=0.6)
        ax.set_yticks(list(places.values()), list(places) if column == 0 else [])
        ax.set_ylim(max(places.values()) + 0.5, -0.5)
        ax.set_title(metric, fontsize=10)
        ax.set_xlabel("points")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    return drawn


def figure_whole(summary: pd.DataFrame, ways: str = "all") -> Figure:
    """Draw the accuracy on each unseen source as a whole, all of its classes at once.

    Args:
        summary: From ``inter_dataset.summary``.
        ways: The value of ``ways`` that stands for a whole dataset.

    Returns:
        The figure; bars are 95 % intervals over draws and seeds, short lines the chance level.
    """
    rows = summary[(summary["ways"] == ways) & (summary["dataset"] != ALL)]
    methods = [m for m in _WHOLE if m in set(rows["method"])]
    methods += [m for m in dict.fromkeys(rows["method"]) if " epoch" in m][:1]
    sources = list(dict.fromkeys(rows["dataset"]))
    drawn, axes = figure(7.2, 0.62 * len(sources) + 1.4)
    ax = axes[0, 0]
    for m, method in enumerate(methods):
        part = rows[rows["method"] == method]
        y = [sources.index(d) + 0.13 * (m - (len(methods) - 1) / 2) for d in part["dataset"]]
        _dots(ax, part, y, colour_of(method), method)
    chance = rows.groupby("dataset", sort=False)["chance"].mean()
    for name, value in chance.items():
        place = sources.index(str(name))
        ax.plot([value, value], [place - 0.42, place + 0.42], color=_GREY, linewidth=1.5)
    ax.set_yticks(range(len(sources)), [f"{d}\n({100 / chance[d]:.0f} classes)" for d in sources])
    ax.set_ylim(len(sources) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("accuracy on all classes of the unseen source (%); short line: chance")
    ax.grid(visible=False, axis="y")
    drawn.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return drawn


def figure_similarity(similarity: pd.DataFrame) -> Figure:
    """Draw each unseen source's gain against its distance to the pool, one panel a design and rival.

    Args:
        similarity: From ``inter_tables.similarity``.

    Returns:
        The figure; bars are 95 % intervals of the gain, horizontally the range over seeds.
    """
    designs, metrics = _designs(similarity), list(dict.fromkeys(similarity["metric"]))
    drawn, axes = figure(8.4, 2.9 * len(metrics), len(metrics), len(designs))
    for column, design in enumerate(designs):
        for line, metric in enumerate(metrics):
            ax = axes[line, column]
            rows = similarity[(similarity["method"] == design) & (similarity["metric"] == metric)]
            x, y = rows["distance"], rows["mean"]
            across = [x - rows["distance_low"], rows["distance_high"] - x]
            up = [y - rows["low"], rows["high"] - y]
            ax.errorbar(
                x, y, xerr=across, yerr=up, fmt="o", color=colour_of(design), markersize=4, elinewidth=1, alpha=0.8
            )
            _name_points(ax, rows)
            ax.axhline(0, color=_GREY, linestyle="--", linewidth=1)
            ax.set_xscale("log")
            ax.margins(x=0.16)
            rho, p = rank_correlation(rows)
            found = f"ρ = {rho:+.2f}, p = {p:.2f}, n = {len(rows)}" if np.isfinite(rho) else f"n = {len(rows)}"
            ax.set_title(f"{design}: {found}", fontsize=10)
            ax.set_ylabel(f"{metric}\n(points)")
            ax.set_xlabel("distance to the pool (1: as far as within it)")
            low, high = ax.get_xlim()
            ticks = [tick for tick in (0.5, 1, 2, 3, 5, 10, 20, 50, 100) if low <= tick <= high]
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            ax.minorticks_off()
    return drawn


def _name_points(ax: Axes, rows: pd.DataFrame) -> None:
    """Name each source straight above its bar, on four levels over the points, so that neighbours don't meet."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.42 * (high - low))
    for place, row in enumerate(rows.sort_values("distance").to_dict(orient="records")):
        ax.annotate(
            row["dataset"], (row["distance"], 0.98 - 0.075 * (place % 4)), xycoords=("data", "axes fraction"),
            ha="center", va="top", fontsize=8.5,
        )  # fmt: skip


def figure_reliability(trust: pd.DataFrame) -> Figure:
    """Draw the trust report's estimate against the accuracy on test images, one panel a design.

    Args:
        trust: From ``inter_dataset.trust``.

    Returns:
        The figure: pale dots are reports, large ones bins with the 95 % interval of their mean; on the line, the
        estimate is right.
    """
    designs = _designs(trust)
    drawn, axes = figure(3.9 * len(designs) + 0.4, 3.9, 1, len(designs))
    for column, design in enumerate(designs):
        ax, rows = axes[0, column], trust[trust["method"] == design]
        bins = reliability(rows)
        ax.plot([0, 100], [0, 100], color=_GREY, linestyle="--", linewidth=1)
        ax.scatter(rows["estimate"], rows["accuracy"], s=9, color=colour_of(design), alpha=0.25, linewidths=0)
        error = [bins["accuracy"] - bins["low"], bins["high"] - bins["accuracy"]]
        ax.errorbar(bins["estimate"], bins["accuracy"], yerr=error, fmt="o", color=colour_of(design), elinewidth=2)
        ax.annotate("estimate too high", (97, 4), ha="right", fontsize=9, color="#6a6a6a")
        ax.annotate("estimate too low", (3, 93), fontsize=9, color="#6a6a6a")
        ax.set_xlim(0, 101)
        ax.set_ylim(0, 101)
        ax.set_aspect("equal")
        ax.set_title(f"{design}: off by {calibration_error(rows)}", fontsize=10)
        ax.set_xlabel("estimated accuracy, cross-validated (%)")
        ax.set_ylabel("accuracy on test images (%)" if column == 0 else "")
    return drawn


def figure_when_to_train(trust: pd.DataFrame, config: TrustConfig | None = None) -> Figure:
    """Draw what fine-tuning and training from scratch gain over the prediction, by images a class.

    Args:
        trust: From ``inter_dataset.trust``.
        config: Whose thresholds are drawn; by default the trust report's own.

    Returns:
        The figure, in percentage points, one panel a design; bars are 95 % intervals over episodes.
    """
    config, known = config or TrustConfig(), trust.dropna(subset=["fine_tuned", "scratch"])
    designs, sizes = _designs(known), sorted(set(known["per_class"]))
    drawn, axes = figure(3.9 * len(designs) + 0.4, 3.3, 1, len(designs))
    for column, design in enumerate(designs):
        ax, rows = axes[0, column], known[known["method"] == design]
        for name, field, colour, shift in (
            ("fine-tuned", "fine_tuned", METHOD_COLOURS["fine-tuned"], 0.95),
            ("from scratch", "scratch", METHOD_COLOURS["from scratch"], 1.05),
        ):  # fmt: skip
            off = [(part[field] - part["accuracy"]).to_numpy() for _, part in rows.groupby("per_class")]
            found = [interval(values) for values in off]
            x, mean = shift * np.array(sizes), np.array([i.mean for i in found])
            error = [mean - [i.low for i in found], [i.high for i in found] - mean]
            ax.errorbar(x, mean, yerr=error, fmt="o-", color=colour, markersize=4, elinewidth=2, label=name)
        ax.axhline(0, color=_GREY, linestyle="--", linewidth=1)
        for threshold, text in ((config.fine_tune_from, "fine-tune"), (config.scratch_from, "scratch")):
            ax.axvline(threshold, color=_GREY, linestyle=":", linewidth=1)
            ax.annotate(
                text, (threshold, 1), (-3, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
                rotation=90, ha="right", va="top", fontsize=8, color="#6a6a6a",
            )  # fmt: skip
        ax.set_xscale("log")
        ax.set_xticks(sizes, [str(size) for size in sizes])
        ax.minorticks_off()
        ax.margins(x=0.15)
        ax.set_title(design, fontsize=10)
        ax.set_xlabel("training images a class")
        ax.set_ylabel("minus predicted (points)" if column == 0 else "")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    return drawn
