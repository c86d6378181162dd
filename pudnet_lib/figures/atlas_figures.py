"""The atlas's figures: how far predicted parameters lie from trained ones, and a map of both.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from pudnet_lib.batch.results import summarise
from pudnet_lib.plots import PALETTE, figure
from pudnet_lib.studies.atlas import GUESSES, MEAN_TRAINED, STARTS, AtlasConfig, Start, landscape

GREY = PALETTE[7]


def figure_distances(distances: pd.DataFrame) -> Figure:
    """Draw how far guesses lie from trained parameters, over the distance of their mean; one panel a start.

    Args:
        distances: From ``atlas.distances``.

    Returns:
        The figure: means over held-out episodes with 95 % intervals, left of 1 is nearer than the mean.
    """
    rows = summarise(distances, ("start", "dataset", "method"))
    sources, starts = list(dict.fromkeys(rows["dataset"])), list(dict.fromkeys(rows["start"]))
    drawn, axes = figure(8.6, 3.0, 1, len(starts))
    for ax, start in zip(axes[0], starts, strict=True):
        for number, source in enumerate(sources):
            part = rows[(rows["start"] == start) & (rows["dataset"] == source)].set_index("method").loc[list(GUESSES)]
            y = np.arange(len(GUESSES)) + 0.2 * (number - (len(sources) - 1) / 2)
            error = [part["mean"] - part["low"], part["high"] - part["mean"]]
            ax.errorbar(part["mean"], y, xerr=error, fmt="o", color=PALETTE[number], markersize=5, label=source)
        ax.axvline(1, color=GREY, linestyle="--", linewidth=1)
        ax.set_yticks(range(len(GUESSES)), GUESSES if ax is axes[0, 0] else [])
        ax.set_ylim(len(GUESSES) - 0.5, -0.5)
        ax.set_xlabel(f"distance over that of the {MEAN_TRAINED}", fontsize=8)
        ax.set_title(start)
        ax.grid(visible=False, axis="y")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3, frameon=False)
    return drawn


def figure_atlas(sources: Sequence[str], config: AtlasConfig, seed: int = 0) -> Figure:
    """Draw the map: trained and predicted convolution weights of one held-out episodes on two principal components.

    Args:
        sources: One panel each.
        config: How many episodes.
        seed: Of the zoo.

    Returns:
        The figure, one row a start of training; components are fitted on trained and predicted parameters of training
        episodes, a thin line joins an episode's two points.
    """
    drawn, axes = figure(3.0 * len(sources) + 0.6, 5.6, len(STARTS), len(sources))
    for row, start in enumerate(STARTS):
        for ax, source in zip(axes[row], sources, strict=True):
            _map(ax, source, start, config, seed)
            ax.set_title(f"{source}, {STARTS[start]}", fontsize=9)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return drawn


def _map(ax: Axes, source: str, start: Start, config: AtlasConfig, seed: int) -> None:
    land = landscape(source, start, config, seed)
    pca = PCA(2, svd_solver="full").fit(np.concatenate([land.trained["train"], land.predicted["train"]]))
    trained, predicted = (pca.transform(side["held-out"]) for side in (land.trained, land.predicted))
    mean = pca.transform(land.trained["train"].mean(0)[None])[0]
    for a, b in zip(trained, predicted, strict=True):  # some dozens of episodes
        ax.plot([a[0], b[0]], [a[1], b[1]], color=GREY, linewidth=0.4, alpha=0.6)
    ax.plot(*trained.T, "o", color=PALETTE[2], markersize=4, label="trained")
    ax.plot(*predicted.T, "^", color=PALETTE[0], markersize=4, label="predicted for the same episode")
    ax.plot(*mean, "P", color=PALETTE[1], markersize=8, label="mean of trained (training episodes)")
    shares = 100 * pca.explained_variance_ratio_
    ax.set_xlabel(f"component 1 ({shares[0]:.0f} %)", fontsize=8)
    ax.set_ylabel(f"component 2 ({shares[1]:.0f} %)", fontsize=8)
