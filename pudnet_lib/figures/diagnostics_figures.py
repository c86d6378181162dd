"""Figures of the diagnostics: parameters of A on B, and each layer's reaction to another sketch.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pudnet_lib.plots import PALETTE, figure
from pudnet_lib.studies.diagnostics import CHANGES


def matrix(summary: pd.DataFrame, method: str) -> pd.DataFrame:
    """Pick a method's accuracies, predicted for (rows) × tested on (columns), in %."""
    rows = summary[(summary["method"] == method) & (summary["metric"] == "accuracy")]
    names = list(dict.fromkeys(rows["predicted_for"]))
    return rows.pivot_table(index="predicted_for", columns="dataset", values="mean").loc[names, names]


def figure_matrix(summary: pd.DataFrame) -> Figure:
    """Draw "parameters predicted for A, tested on B" as heat maps, one a method.

    Args:
        summary: From ``summarise_diagnostics``.

    Returns:
        The figure: colour is the loss against parameters predicted for the tested source itself, in points; numbers are
        accuracies in % with half their 95 % interval.
    """
    rows = summary[summary["metric"] == "accuracy"]
    methods = list(dict.fromkeys(rows["method"]))
    values = {m: matrix(summary, m) for m in methods}
    losses = {m: v - np.diag(v)[None] for m, v in values.items()}
    bound = max(1.0, max(float(np.abs(v.to_numpy()).max()) for v in losses.values()))
    side = 1.0 * len(next(iter(values.values()))) + 1.0
    drawn, axes = figure((side + 0.6) * len(methods) + 0.8, side, 1, len(methods))
    for ax, method in zip(axes[0], methods, strict=True):
        picture = ax.imshow(losses[method], cmap="PuOr", vmin=-bound, vmax=bound)
        for (a, b), loss in np.ndenumerate(losses[method].to_numpy()):
            names = values[method].index[a], values[method].columns[b]
            cell = rows[
                (rows["method"] == method) & (rows["predicted_for"] == names[0]) & (rows["dataset"] == names[1])
            ]
            half = float((cell["high"] - cell["low"]).iloc[0]) / 2
            text = f"{cell['mean'].iloc[0]:.1f}" + (f"\n± {half:.1f}" if np.isfinite(half) else "")
            colour = "white" if abs(loss) > 0.6 * bound else "black"
            ax.text(b, a, text, ha="center", va="center", fontsize=9, color=colour)
        ax.set_xticks(range(len(values[method])), values[method].columns)
        ax.set_yticks(range(len(values[method])), values[method].index)
        ax.set(title=method, xlabel="tested on", ylabel="parameters predicted for")
        ax.grid(visible=False)
    drawn.colorbar(picture, ax=axes[0].tolist(), shrink=0.8, label="points against own parameters")
    return drawn


def figure_sensitivity(summary: pd.DataFrame) -> Figure:
    """Draw each layer's relative change when the sketch is another, one panel a method.

    Args:
        summary: From ``summarise_diagnostics``.

    Returns:
        The figure, in % of the layer's length; bars are 95 % intervals.
    """
    rows = summary[summary["metric"] == "sensitivity"]
    methods, layers = list(dict.fromkeys(rows["method"])), list(dict.fromkeys(rows["layer"]))
    drawn, axes = figure(3.2 * len(methods) + 1.4, 3.0, 1, len(methods))
    for ax, method in zip(axes[0], methods, strict=True):
        for c, change in enumerate(CHANGES):
            part = rows[(rows["method"] == method) & (rows["change"] == change)].set_index("layer")
            if part.empty:
                continue
            part = part.loc[layers]
            places = np.arange(len(layers)) + 0.1 * (c - 1)
            error = [part["mean"] - part["low"], part["high"] - part["mean"]]
            ax.errorbar(
                places, part["mean"], yerr=error, fmt="o-", color=PALETTE[c], markersize=4, linewidth=1.5, label=change
            )
        ax.set_xticks(range(len(layers)), [str(n + 1) for n in range(len(layers))])
        ax.set_xlim(-0.4, len(layers) - 0.6)
        ax.set_ylim(0, 1.05 * float(rows[rows["method"] == method][["mean", "high"]].max().max()) + 1e-9)
        ax.set(title=method, xlabel="convolution", ylabel="change of the weights (%)")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
    return drawn


def table_of_layers(summary: pd.DataFrame) -> pd.DataFrame:
    """Spread within and between sources and effective rank, one row a method and layer.

    Args:
        summary: From ``summarise_diagnostics``.

    Returns:
        Columns "spread within", "spread between" (in % of the weights' length), "effective rank": mean over seeds.
    """
    rows = summary[~summary["metric"].isin(["accuracy", "sensitivity"])]
    wide = rows.pivot_table(index=["method", "layer"], columns="metric", values="mean", sort=False)
    return wide[["spread within", "spread between", "effective rank"]].round(2)
