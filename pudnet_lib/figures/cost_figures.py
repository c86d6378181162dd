"""The cost figures: accuracy against total seconds, ratios beside the claims, break-even, the clock's parts, scaling.

Our choice; the claims 238 × and 2,305 × are the abstracts' [abs].
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pudnet_lib.batch.labels import end_labels
from pudnet_lib.plots import METHOD_COLOURS, PALETTE, figure
from pudnet_lib.studies.cost_tables import CLAIMED_RATIOS, PUDNET, SCRATCH, middle_size, points
from pudnet_lib.studies.prediction_cost import PARTS

COLOURS = {
    PUDNET: PALETTE[0],
    "shared network": PALETTE[2],
    f"Adam, {SCRATCH}": PALETTE[1],
    f"SGD, {SCRATCH}": PALETTE[4],
    f"GC, {SCRATCH}": PALETTE[6],
    f"{PUDNET}, plain design": METHOD_COLOURS["plain"],
    "constant embedding": PALETTE[3],
}
_TUNED = {f"{PUDNET}, fine-tuned": PUDNET, "shared network, fine-tuned": "shared network"}


def figure_fronts(table: pd.DataFrame) -> Figure:
    """Draw accuracy against total seconds: rows are dataset sizes, columns sources.

    Args:
        table: From ``cost.run``.

    Returns:
        The figure; bars are 95 % intervals over datasets, large pale rings mark the Pareto front.
    """
    found = points(table)
    sources, sizes = list(dict.fromkeys(found["dataset"])), sorted(set(found["size"]))
    drawn, axes = figure(2.7 * len(sources) + 1.9, 2.3 * len(sizes) + 0.4, len(sizes), len(sources))
    drawn.suptitle(
        "squares: predicted; triangles: fine-tuned from it; circles: from scratch, by epochs; pale rings: Pareto front",
        fontsize=9,
    )
    shown = found[~found["method"].str.endswith("swap")]
    spans = shown["seconds"].min() / 1.4, shown["seconds"].max() * 1.4
    floor = max(0.0, float(shown["chance"].min()) - 7)
    for r, size in enumerate(sizes):
        for c, source in enumerate(sources):
            ax = axes[r, c]
            here = shown[(shown["dataset"] == source) & (shown["size"] == size)]
            ends = _front_panel(ax, here)
            ax.set(xscale="log", xlim=spans, ylim=(floor, 103))
            ax.axhline(float(here["chance"].mean()), color=PALETTE[7], linestyle="--", linewidth=1)
            ax.set_title(f"{source}, {here['images'].median():.0f} images")
            ax.tick_params(labelbottom=r == len(sizes) - 1, labelleft=c == 0)
            if r == len(sizes) - 1:
                ax.set_xlabel("seconds, all counted")
            if c == 0:
                ax.set_ylabel("accuracy (%)")
            if c == len(sources) - 1:
                end_labels(ax, {n: (spans[1], y, colour) for n, (y, colour) in ends.items()}, size=8)
    return drawn


def _front_panel(ax: Axes, here: pd.DataFrame) -> dict[str, tuple[float, str]]:
    """One source and size; returns each method's last accuracy and colour."""
    ends: dict[str, tuple[float, str]] = {}
    for method, part in here.groupby("method", sort=False):
        name = str(method)
        tuned = name in _TUNED
        colour = COLOURS.get(_TUNED.get(name, name), PALETTE[7])
        part = part.sort_values("seconds")
        error = [part["mean"] - part["low"], part["high"] - part["mean"]]
        marker = "s" if part["prediction_seconds"].gt(0).all() and not tuned else ("^" if tuned else "o")
        ax.errorbar(
            part["seconds"], part["mean"], error, fmt=f"{marker}-", color=colour, markersize=5, elinewidth=1.2,
            linewidth=1.2, alpha=0.95,
        )  # fmt: skip
        front = part[part["front"].astype(bool)]
        ax.plot(front["seconds"], front["mean"], "o", color=colour, markersize=12, alpha=0.25, markeredgewidth=0)
        ends[name] = (float(part["mean"].iloc[-1]), colour)
    return ends


def figure_ratios(ratios: pd.DataFrame, method: str = PUDNET) -> Figure:
    """Draw how many times faster a prediction is at equal accuracy, beside the abstracts' claims.

    Args:
        ratios: From ``cost.ratios``.
        method: The prediction.

    Returns:
        The figure, ratios on a logarithmic axis; an arrow means that the ratio is a bound.
    """
    rows = ratios[ratios["method"] == method].reset_index(drop=True)
    drawn, axes = figure(7.4, 0.36 * len(rows) + 1.3)
    ax = axes[0, 0]
    least = rows[["low", "ratio"]].replace([np.inf], np.nan).min().min()
    right = 4000.0
    for y, row in enumerate(rows.to_dict(orient="records")):
        ratio, high = min(row["ratio"], row["limit"]), min(row["high"], row["limit"])
        ax.plot([row["low"], high], [y, y], color=PALETTE[0], linewidth=3, alpha=0.45, solid_capstyle="round")
        marker = {"never": ">", "before": "<"}.get(str(row["censored"]), "o")
        ax.plot(ratio, y, marker, color=PALETTE[0], markersize=8)
        if math.isinf(row["high"]):
            ax.annotate("", (high * 1.5, y), (high, y), arrowprops={"arrowstyle": "->", "color": PALETTE[0], "lw": 1.5})
        text = f"{'> ' if row['censored'] == 'never' else ('≤ ' if row['censored'] else '')}{ratio:.1f} ×"
        ax.annotate(text, (ratio, y), (0, 7), textcoords="offset points", ha="center", fontsize=8.5)
    for name, value in CLAIMED_RATIOS.items():
        ax.axvline(value, color=PALETTE[1], linestyle=":", linewidth=1.4)
        ax.annotate(
            name, (value, 1.0), (-3, -2), xycoords=("data", "axes fraction"), textcoords="offset points", ha="right",
            va="top", rotation=90, fontsize=8.5, color=PALETTE[1],
        )  # fmt: skip
    ax.axvline(1, color=PALETTE[7], linestyle="--", linewidth=1)
    ax.set_yticks(
        range(len(rows)), [f"{d}, {n:.0f} images" for d, n in zip(rows["dataset"], rows["images"], strict=True)]
    )
    ax.set(xscale="log", xlim=(min(0.8, 0.7 * least), right), ylim=(len(rows) - 0.5, -0.7))
    ax.set_xlabel("times faster than training from scratch at equal accuracy")
    ax.grid(visible=False, axis="y")
    return drawn


def figure_break_even(ratios: pd.DataFrame) -> Figure:
    """Draw total seconds against the number of datasets, meta-training counted, one panel a source.

    Args:
        ratios: From ``cost.ratios``, with meta_training_seconds; the middle size is drawn.

    Returns:
        The figure, both axes logarithmic; the band is the 95 % interval of scratch's seconds at equal accuracy.
    """
    rows = ratios[ratios["size"] == middle_size(ratios)]
    sources = list(dict.fromkeys(rows["dataset"]))
    drawn, axes = figure(2.8 * len(sources) + 1.3, 3.2, 1, len(sources))
    numbers = np.logspace(0, 5, 60)
    for column, source in enumerate(sources):
        ax, ends = axes[0, column], {}
        for row in rows[rows["dataset"] == source].to_dict(orient="records"):
            colour = COLOURS[row["method"]]
            total = row["meta_training_seconds"] + numbers * row["seconds"]
            ax.plot(numbers, total, color=colour)
            ends[str(row["method"])] = (numbers[-1], math.log10(total[-1]), colour)
            if row["method"] != PUDNET:
                continue
            last = row["limit"] * row["seconds"]
            low, at, high = (min(row[k] * row["seconds"], last) for k in ("low", "ratio", "high"))
            ax.plot(numbers, numbers * at, color=PALETTE[1], linestyle="-" if not row["censored"] else "--")
            ax.fill_between(numbers, numbers * low, numbers * high, color=PALETTE[1], alpha=0.15, linewidth=0)
            ends["from scratch"] = (numbers[-1], math.log10(numbers[-1] * at), PALETTE[1])
            if math.isfinite(row["break_even"]):
                ax.axvline(row["break_even"], color=PALETTE[7], linestyle=":", linewidth=1.2)
        ax.set(xscale="log", yscale="log", title=source, xlabel="datasets")
        ax.set_xlim(numbers[0], numbers[-1])
        if column:
            ax.tick_params(labelleft=False)
        else:
            ax.set_ylabel("seconds in all, meta-training counted")
        if column == len(sources) - 1:
            for name, (x, y, colour) in ends.items():
                ax.annotate(
                    name, (x, 10**y), (4, {"from scratch": 5, PUDNET: 1}.get(name, -6)), textcoords="offset points",
                    color=colour, fontsize=9, va="center", annotation_clip=False,
                )  # fmt: skip
    low = min(ax.get_ylim()[0] for ax in axes[0])
    high = max(ax.get_ylim()[1] for ax in axes[0])
    for ax in axes[0]:
        ax.set_ylim(low, high)
    return drawn


def figure_clock(table: pd.DataFrame, method: str = PUDNET) -> Figure:
    """Draw what is inside the clock of a prediction: the mean seconds of each part, for each size.

    Args:
        table: From ``cost.run``.
        method: The prediction.

    Returns:
        The figure, in milliseconds.
    """
    rows = table[table["method"] == method]
    means = 1000 * rows.groupby("size")[list(PARTS)].median()
    drawn, axes = figure(7.0, 0.5 * len(means) + 1.3)
    ax, left = axes[0, 0], np.zeros(len(means))
    names = [f"{rows[rows['size'] == size]['images'].median():.0f} images" for size in means.index]
    for position, part in enumerate(PARTS):
        label = part.replace("_", " ")
        ax.barh(names, means[part], left=left, color=PALETTE[(0, 1, 2, 3, 4)[position]], label=label, height=0.6)
        left += means[part].to_numpy()
    for y, total in enumerate(left):
        ax.annotate(f"{total:.0f} ms", (total, y), (4, 0), textcoords="offset points", va="center", fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="milliseconds of a prediction (medians)", xlim=(0, 1.15 * left.max()))
    ax.grid(visible=False, axis="y")
    drawn.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=5, frameon=False)
    return drawn


def figure_scaling(scaling: pd.DataFrame) -> Figure:
    """Draw seconds and memory of a prediction against the target's width, its layers, classes and images.

    Args:
        scaling: From ``prediction_cost.scaling``.

    Returns:
        The figure: seconds above, megabytes below, both axes logarithmic.
    """
    factors = {
        "width": "width of ConvNet-3",
        "layers": "predicted layers",
        "classes": "classes",
        "images": "images of the dataset",
    }
    drawn, axes = figure(9.6, 4.6, 2, len(factors))
    for column, (factor, label) in enumerate(factors.items()):
        rows = scaling[scaling["factor"] == factor].sort_values("place")
        top, bottom = axes[0, column], axes[1, column]
        top.plot(rows["place"], 1000 * rows["seconds"], "o-", color=PALETTE[0], markersize=4)
        top.plot(rows["place"], 1000 * rows["generate"], "s--", color=PALETTE[1], markersize=3.5, linewidth=1.2)
        bottom.plot(rows["place"], rows["megabytes"], "o-", color=PALETTE[2], markersize=4)
        for ax in (top, bottom):
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(rows["place"], rows["level"] if factor != "layers" else [f"{p:.0f}" for p in rows["place"]])
            ax.minorticks_off()
        bottom.set_xlabel(label)
        top.tick_params(labelbottom=False)
    axes[0, 0].set_ylabel("milliseconds")
    axes[1, 0].set_ylabel("megabytes at the peak")
    for row in axes:
        low, high = min(ax.get_ylim()[0] for ax in row), max(ax.get_ylim()[1] for ax in row)
        for ax in row:
            ax.set_ylim(low, high)
            ax.tick_params(labelleft=ax is row[0])
    axes[0, 0].set_title("blue: whole prediction; orange: generation alone", fontsize=9)
    return drawn
