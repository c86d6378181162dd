"""The denoising figures: pictures side by side at pixel scale, and PSNR of all methods.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from pudnet_lib.report.figures import PALETTE, figure, intervals
from pudnet_lib.report.results import summarise


def figure_pictures(columns: Mapping[str, Tensor], rows: int = 4) -> Figure:
    """Show pictures side by side, one column a method, without interpolation.

    Args:
        columns: Title to pictures (N, C, H, W), floating point in [0, 1] or uint8.
        rows: How many pictures.

    Returns:
        The figure.
    """
    count = min(rows, *(len(images) for images in columns.values()))
    drawn, axes = figure(1.5 * len(columns), 1.5 * count + 0.4, count, len(columns))
    for j, (title, images) in enumerate(columns.items()):
        values = images[:count].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().numpy()
        pixels = values if values.dtype == np.uint8 else np.clip(values, 0, 1)
        for i in range(count):
            axes[i, j].imshow(pixels[i], interpolation="nearest")
            axes[i, j].set_axis_off()
        axes[0, j].set_title(title, fontsize=9, loc="center")
    return drawn


def figure_psnr(table: pd.DataFrame, sigma: float) -> Figure:
    """Draw each method's PSNR at one noise level, all sources together, best at the top.

    Args:
        table: From ``denoising.run``.
        sigma: The noise level.

    Returns:
        The figure; bars are 95 % intervals over images.
    """
    rows = table[(table["sigma"] == sigma) & (table["metric"] == "PSNR")]
    means = summarise(rows, ("method",)).sort_values("mean", ascending=False)
    drawn, axes = figure(7.4, 0.36 * len(means) + 0.9)
    intervals(means, axes[0, 0], unit=f"PSNR at σ = {sigma:g} (dB), mean over images of all sources")
    return drawn


def figure_by_source(table: pd.DataFrame, methods: tuple[str, ...]) -> Figure:
    """Draw PSNR against the noise level, one panel a source.

    Args:
        table: From ``denoising.run``.
        methods: Which methods to draw.

    Returns:
        The figure.
    """
    rows = table[table["metric"] == "PSNR"]
    datasets = list(dict.fromkeys(rows["dataset"]))
    drawn, axes = figure(2.3 * len(datasets) + 0.8, 3.1, 1, len(datasets))
    for column, dataset in enumerate(datasets):
        ax = axes[0, column]
        means = summarise(rows[rows["dataset"] == dataset], ("method", "sigma"))
        for m, method in enumerate(methods):
            part = means[means["method"] == method].sort_values("sigma")
            ax.plot(part["sigma"], part["mean"], "o-", color=PALETTE[m], markersize=4)
            ax.fill_between(part["sigma"], part["low"], part["high"], color=PALETTE[m], alpha=0.18, linewidth=0)
            if column == 0:
                place = (0.02, -0.34 - 0.1 * m)
                ax.annotate(
                    method, place, xycoords="axes fraction", color=PALETTE[m], fontsize=9, annotation_clip=False
                )
        ax.set_title(dataset)
        ax.set_xlabel("noise σ (8-bit)")
        ax.set_ylim(rows["value"].quantile(0.01), rows["value"].quantile(0.99))
    axes[0, 0].set_ylabel("PSNR (dB)")
    return drawn
