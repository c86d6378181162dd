"""The correlations' figures: layers × features, held-out beside in-sample and the null, one pair of directions.

Our choice; the paper has no counterpart. Plain functions: notebook 01 calls them in a batch run, its widgets call them
again with other choices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pudnet_lib.figures.quickstart_figures import mosaic
from pudnet_lib.plots import PALETTE, figure
from pudnet_lib.studies.correlation import Canonical
from pudnet_lib.studies.correlation_study import WITHIN, Choice, Study
from pudnet_lib.studies.parameter_correlations import HELD_OUT, IN_SAMPLE, SAME_CLASSES, verdict
from pudnet_lib.studies.parameter_features import LAYERS, ParameterFeature, layer_tensors

#: What a value was measured on, in the order of a row's three lines.
KINDS = {IN_SAMPLE: PALETTE[1], SAME_CLASSES: PALETTE[4], HELD_OUT: PALETTE[0]}
GREY = PALETTE[7]
IMAGES_SHOWN = 8  # a class, of an episode


def figure_heat(table: pd.DataFrame, parameters: ParameterFeature = "weights") -> Figure:
    """Draw held-out correlations as a map, layer × dataset feature, one panel a source and initialisation.

    Args:
        table: From ``parameter_correlations.run``.
        parameters: Which description of the parameters.

    Returns:
        The figure: in each cell the correlation and, in brackets, what 95 % of its null stay below; bold and framed
        where it survives both nulls, uncorrected.
    """
    cells = table[(table["metric"] == HELD_OUT) & (table["parameters"] == parameters) & (table["dataset"] != WITHIN)]
    sources, starts = list(dict.fromkeys(cells["dataset"])), list(dict.fromkeys(cells["initialisation"]))
    features, layers = list(dict.fromkeys(cells["method"])), list(LAYERS)
    drawn, axes = figure(
        1.5 + len(sources) * (0.4 + 0.62 * len(features)), 1.5 + 1.9 * len(starts), len(starts), len(sources)
    )
    limit = max(0.5, float(cells["value"].abs().max()))
    for row, start in enumerate(starts):
        for column, source in enumerate(sources):
            ax = axes[row, column]
            own = (cells["dataset"] == source) & (cells["initialisation"] == start)
            part = cells[own].set_index(["layer", "method"])
            grid = np.array([[part.loc[(layer, name), "value"] for name in features] for layer in layers])
            image = ax.imshow(grid, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
            for y, layer in enumerate(layers):
                for x, name in enumerate(features):
                    _write_cell(ax, x, y, part.loc[(layer, name)], limit)
            ax.set_yticks(range(len(layers)), layers if column == 0 else [])
            bottom = row == len(starts) - 1
            ax.set_xticks(range(len(features)), features if bottom else [], rotation=35, ha="right")
            ax.set_title(f"{source}\n{start} initialisation", fontsize=9)
            ax.grid(visible=False)
    drawn.colorbar(image, ax=axes, label="held-out correlation", fraction=0.1 / len(sources), pad=0.02)
    return drawn


def _write_cell(ax: Axes, x: int, y: int, cell: pd.Series, limit: float) -> None:
    survives = cell["p"] < 0.05 and cell["p_transfer"] < 0.05
    colour = "white" if abs(cell["value"]) > 0.75 * limit else "black"
    text = f"{cell['value']:+.2f}\n({cell['null_high']:.2f})"
    weight = "bold" if survives else "normal"
    ax.text(x, y, text, ha="center", va="center", fontsize=6.5, color=colour, fontweight=weight)
    if survives:
        ax.plot([x - 0.48, x + 0.48, x + 0.48, x - 0.48, x - 0.48], [y - 0.48, y - 0.48, y + 0.48, y + 0.48, y - 0.48],
                color="black", linewidth=1.2)  # fmt: skip


def figure_honest(table: pd.DataFrame, feature: str = "HOG", parameters: ParameterFeature = "weights") -> Figure:
    """Draw in-sample, new-episodes and held-out correlations beside their nulls: why the first mislead.

    Args:
        table: From ``parameter_correlations.run``.
        feature: The datasets' side.
        parameters: The parameters' side, of the whole network.

    Returns:
        The figure: one panel an initialisation; a dot is a value, with its 95 % interval where it has one, the grey
        band ends where 95 % of its null stay below.
    """
    rows = table[(table["layer"] == "whole network") & (table["parameters"] == parameters)]
    rows = rows[(rows["method"] == feature) & rows["metric"].isin(KINDS) & (rows["dataset"] != WITHIN)]
    sources, starts = list(dict.fromkeys(rows["dataset"])), list(dict.fromkeys(rows["initialisation"]))
    drawn, axes = figure(8.6, 0.75 * len(sources) + 1.3, 1, len(starts))
    for ax, start in zip(axes[0], starts, strict=True):
        part = rows[rows["initialisation"] == start].set_index(["dataset", "metric"])
        for place, source in enumerate(sources):
            for line, (kind, colour) in enumerate(KINDS.items()):
                _value_beside_null(ax, place + 0.27 * (line - 1), part.loc[(source, kind)], colour)
        ax.axvline(0, color=GREY, linewidth=0.8)
        ax.set_yticks(range(len(sources)), sources if ax is axes[0, 0] else [])
        ax.set_ylim(len(sources) - 0.5, -0.5)
        ax.set_title(f"{start} initialisation")
        ax.set_xlim(_range_of(rows))
        ax.set_xlabel("mean canonical correlation")
        ax.grid(visible=False, axis="y")
    marks = [axes[0, 0].plot([], [], "o", color=colour, label=kind)[0] for kind, colour in KINDS.items()]
    marks.append(axes[0, 0].fill_between([], [], [], color=GREY, alpha=0.3, label="null, up to its 95 % quantile"))
    drawn.legend(handles=marks, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return drawn


def _range_of(rows: pd.DataFrame) -> tuple[float, float]:
    """One range for all panels, with room for the numbers at the right."""
    ends = rows[["value", "low", "high", "null_high"]].to_numpy(dtype=float)
    return float(min(np.nanmin(ends), 0)) - 0.05, float(np.nanmax(ends)) + 0.2


def _value_beside_null(ax: Axes, y: float, row: pd.Series, colour: str) -> None:
    ax.fill_betweenx([y - 0.12, y + 0.12], 0, row["null_high"], color=GREY, alpha=0.3, linewidth=0)
    if np.isfinite(row["low"]):
        ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
    ax.plot(row["value"], y, "o", color=colour, markersize=6)
    right = np.nanmax([row["value"], row["high"], row["null_high"]])
    ax.annotate(
        f"{round(row['value'], 2) + 0.0:+.2f}", (right, y), (5, 0), textcoords="offset points", va="center", fontsize=8
    )


def figure_pair(study: Study, choice: Choice, episode: int = 0) -> Figure:
    """Draw the first pair of canonical directions, linked to one episode's images and filters.

    Args:
        study: The study.
        choice: Which cell of it.
        episode: Which held-out episode is marked and shown; counted on from the last to the first again.

    Returns:
        The figure: left all held-out episodes, a point each; then the spectrum beside its null; then the images of the
        marked episode and the first-layer filters of its network; the verdict in words above.
    """
    cell = study.canonical(choice)
    drawn, axes = figure(10.2, 3.7, 1, 4)
    drawn.set_layout_engine("none")  # placing by hand takes a third of the time: a widget draws this
    scatter, spectrum, images, filters = axes[0]
    for ax, left, width in zip(axes[0], (0.075, 0.385, 0.635, 0.9), (0.24, 0.2, 0.25, 0.09), strict=True):
        ax.set_position((left, 0.15, width, 0.62))
    source, row = study.locate(choice, episode)
    strata = study.side(choice, "strata")[1]
    _scatter(scatter, cell, strata - strata.min(), study.members(choice.source), episode % len(strata))
    _spectrum(spectrum, cell)
    zoo = study.zoo(source, choice.initialisation)
    index = int(zoo.held_out.indices[row])
    pictures = zoo.episodes.images("held-out", np.array([index]))[0][0].unflatten(0, (zoo.episodes.ways, -1))
    pictures = pictures[:, :IMAGES_SHOWN]
    _picture(images, mosaic(pictures.flatten(0, 1), pictures.shape[1]), f"episode {index}, {source}:\nits images")
    weights = layer_tensors(zoo.held_out.parameters[row : row + 1], study.shapes, "convolution 1")[0][0]
    _picture(filters, filter_mosaic(weights), "its filters,\nconvolution 1")
    words = verdict(cell.held_out.value, cell.held_out.p, cell.held_out.p_transfer)
    drawn.suptitle(words, x=0.01, ha="left", fontsize=10)
    return drawn


def _scatter(ax: Axes, cell: Canonical, strata: np.ndarray, sources: Sequence[str], marked: int) -> None:
    x, y = cell.scores.T
    for number, source in enumerate(sources):
        own = strata == number
        ax.plot(x[own], y[own], "o", color=PALETTE[number], markersize=4, alpha=0.7, label=source)
    ax.plot(x[marked], y[marked], "o", markersize=12, mfc="none", mec="black", mew=1.6)
    if len(sources) > 1:
        ax.legend(fontsize=7, frameon=False, handletextpad=0.1)
    ax.set_xlabel("datasets, first direction")
    ax.set_ylabel("parameters, first direction")
    ax.set_title(f"first pair, r = {cell.spectrum[0]:+.2f}\n{len(x)} held-out episodes", fontsize=10)


def _spectrum(ax: Axes, cell: Canonical) -> None:
    pairs = np.arange(1, len(cell.spectrum) + 1)
    low, high = np.quantile(cell.spectrum_null, [0.025, 0.975], axis=0)
    ax.fill_between(pairs, low, high, color=GREY, alpha=0.3, linewidth=0)
    ax.plot(pairs, cell.spectrum, "o-", color=PALETTE[0], markersize=5)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_ylim(-1, 1)
    ax.set_xticks(pairs)
    ax.set_xlabel("pair of directions")
    ax.set_title("held-out correlations\ngrey: 95 % of the null", fontsize=10)


def _picture(ax: Axes, pixels: np.ndarray, title: str) -> None:
    ax.imshow(pixels)
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()


def filter_mosaic(weights: np.ndarray, columns: int = 2) -> np.ndarray:
    """Arrange filters in a grid with white between them, all on one scale, mid-grey is zero.

    Args:
        weights: (out, 3, k, k).
        columns: Filters a row.

    Returns:
        (rows · (k + 1) - 1, columns · (k + 1) - 1, 3) in [0, 1].
    """
    out, _, k, _ = weights.shape
    rows = -(-out // columns)
    grid = np.ones((rows * (k + 1) - 1, columns * (k + 1) - 1, 3))
    scaled = 0.5 + 0.5 * weights / max(float(np.abs(weights).max()), 1e-12)
    for number, picture in enumerate(scaled.transpose(0, 2, 3, 1)):
        top, left = number // columns * (k + 1), number % columns * (k + 1)
        grid[top : top + k, left : left + k] = picture
    return grid


def verdict_table(table: pd.DataFrame) -> pd.DataFrame:
    """Put the verdict on the whole network into words, one row a source and initialisation (first feature, weights)."""
    rows = table[(table["metric"] == HELD_OUT) & (table["layer"] == "whole network")]
    rows = rows[(rows["parameters"] == "weights") & (rows["method"] == table["method"].iloc[0])]
    return pd.DataFrame(
        {
            "dataset": row["dataset"],
            "initialisation": row["initialisation"],
            "verdict": verdict(row["value"], row["p"], row["p_transfer"]),
        }
        for row in rows.to_dict(orient="records")
    )
