"""The denoising figures: pictures at pixel scale, PSNR of all methods, against σ and against seconds, before and after.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pudnet_lib.denoise.metrics import scores
from pudnet_lib.plots import colour_of, figure, intervals
from pudnet_lib.studies.denoising_cases import BM3D, NOISY, PUDNET, SHARED
from pudnet_lib.studies.denoising_tables import ALL, SCRATCH, summary

#: The methods of the figures by σ and of the pictures, with their colours; Noise2Void is drawn with its most steps.
COLOURS = {
    PUDNET: "#0072B2",
    f"{PUDNET}, far swap": "#56B4E9",
    SHARED: "#009E73",
    f"{PUDNET}, Noise2Void meta-training": "#CC79A7",
    SCRATCH: "#D55E00",
    BM3D: "#8C6D31",
    "non-local means": "#E69F00",
    "total variation": "#5B4B8A",
    NOISY: "#7F7F7F",
}
SHORT = {
    f"{PUDNET}, Noise2Void meta-training": "PudNet, N2V",
    f"{PUDNET}, far swap": "far swap",
    "non-local means": "NLM",
    "total variation": "TV",
    NOISY: "noisy",
    SHARED: "shared",
}


def figure_pictures(columns: Mapping[str, Tensor], shown: tuple[str, ...] | None = None) -> Figure:
    """Show pictures side by side, one column a method, each pixel a square, with its PSNR.

    Args:
        columns: Method to pictures (N, C, H, W), floating point; one is called ``"clean"``.
        shown: Which columns; by default those with a colour in ``COLOURS``, and the clean one.

    Returns:
        The figure.
    """
    clean = columns["clean"]
    names = shown or tuple(n for n in (NOISY, *COLOURS) if n in columns)
    names = (*dict.fromkeys(names), "clean")
    drawn, axes = figure(1.25 * len(names), 1.42 * len(clean) + 0.25, len(clean), len(names))
    for j, name in enumerate(names):
        pixels = columns[name].expand(-1, 3, -1, -1).permute(0, 2, 3, 1).clamp(0, 1).cpu().numpy()
        found = None if name == "clean" else scores(columns[name], clean)["PSNR"]
        for i, ax in enumerate(axes[:, j]):
            ax.imshow(pixels[i], interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(visible=False)
            for side in ax.spines.values():
                side.set_visible(False)
            if found is not None:
                ax.set_xlabel(f"{found[i]:.1f} dB", fontsize=8, labelpad=2)
        axes[0, j].set_title(SHORT.get(name, name), fontsize=9, loc="center")
    return drawn


def figure_psnr(table: pd.DataFrame, sigma: float) -> Figure:
    """Draw each method's PSNR at one noise level, all sources together, best at the top.

    Args:
        table: From ``denoising.run``.
        sigma: The noise level.

    Returns:
        The figure; bars are 95 % intervals over images.
    """
    means = _means(table, sigma).sort_values("mean", ascending=False)
    few = int(means["n"].max())
    means["method"] = [f"{m} (n = {n:.0f})" if n < few else m for m, n in zip(means["method"], means["n"], strict=True)]
    drawn, axes = figure(7.6, 0.36 * len(means) + 0.9)
    unit = f"PSNR at σ = {sigma:g} (dB), mean over {few} images of all sources"
    intervals(means, axes[0, 0], unit=unit, colours=lambda name, _: _colour(name.partition(" (n = ")[0]))
    return drawn


def figure_by_source(table: pd.DataFrame) -> Figure:
    """Draw the gain over the noisy input against the noise level, one panel a source.

    Args:
        table: From ``denoising.run``.

    Returns:
        The figure; the key stands under the panels.
    """
    rows = summary(table[table["metric"] == "PSNR"])
    datasets = [d for d in dict.fromkeys(rows["dataset"]) if d != ALL]
    drawn, axes = figure(2.1 * len(datasets) + 0.6, 3.7, 1, len(datasets))
    methods = [m for m in COLOURS if m != NOISY and m in set(rows["method"])]
    for ax, dataset in zip(axes[0], datasets, strict=True):
        means = rows[rows["dataset"] == dataset].set_index(["method", "sigma"])
        for method in methods:
            part = means.loc[method]
            base = means.loc[NOISY, "mean"].reindex(part.index)
            ax.plot(part.index, part["mean"] - base, "o-", color=COLOURS[method], markersize=4, label=method)
        ax.set_title(dataset, fontsize=10)
        ax.set_xticks(sorted(set(rows["sigma"])))
        ax.set_xlabel("noise σ (of 255)")
    lowest, highest = (pick(ax.get_ylim()[i] for ax in axes[0]) for i, pick in ((0, min), (1, max)))
    for ax in axes[0]:
        ax.set_ylim(lowest, highest)
    axes[0, 0].set_ylabel("gain over the noisy input (dB)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=9)
    return drawn


def figure_seconds(table: pd.DataFrame, sigma: float) -> Figure:
    """Draw PSNR against the seconds that a method takes to get ready and clean 100 images, all sources together.

    Args:
        table: From ``denoising.run``.
        sigma: The noise level.

    Returns:
        The figure; Noise2Void's budgets are joined by a line.
    """
    means = _means(table, sigma)
    means["seconds"] = means["prediction_seconds"] + means["seconds_per_100"]
    rows: dict[str, dict[Any, Any]] = {str(row["method"]): row for row in means.to_dict(orient="records")}
    drawn, axes = figure(7.2, 4.0)
    ax = axes[0, 0]
    scratch = sorted((m for m in rows if m.startswith(SCRATCH)), key=lambda m: float(rows[m]["seconds"]))
    labelled = [m for m in COLOURS if m in rows and m != NOISY] + scratch
    if scratch:
        line = [rows[m]["seconds"] for m in scratch], [rows[m]["mean"] for m in scratch]
        ax.plot(*line, "-", color=COLOURS[SCRATCH])
    for method in labelled:
        row = rows[method]
        error = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        ax.errorbar(row["seconds"], row["mean"], error, fmt="o", color=_colour(method), markersize=6, capsize=2)
    ax.set_xscale("log")
    _label_apart(ax, [(rows[m]["seconds"], rows[m]["mean"], m) for m in labelled])
    if NOISY in rows:
        ax.axhline(rows[NOISY]["mean"], color=COLOURS[NOISY], linestyle="--", linewidth=1)
        ax.annotate(NOISY, (1, rows[NOISY]["mean"]), (-2, 3), xycoords=("axes fraction", "data"),
                    textcoords="offset points", ha="right", fontsize=9, color="#6a6a6a")  # fmt: skip
    ax.set_xlabel("seconds to get ready and clean 100 images (logarithmic)")
    ax.set_ylabel(f"PSNR at σ = {sigma:g} (dB)")
    return drawn


def _colour(method: str) -> str:
    return COLOURS[SCRATCH] if method.startswith(SCRATCH) else COLOURS.get(method) or colour_of(method, 7)


def _label_apart(ax: Axes, points: list[tuple[float, float, str]]) -> None:
    """Write names to the right of points, pushed apart upwards where they would meet."""
    low, high = ax.get_ylim()
    left, right = ax.get_xlim()
    ax.set_xlim(left, right * (right / left) ** 0.45)  # room for the names
    step, taken = 0.055 * (high - low), float("-inf")
    for x, y, name in sorted(points, key=lambda point: point[1]):
        place = max(y, taken + step)
        taken = place
        colour = _colour(name)
        ax.annotate(
            name.replace("from scratch, ", ""), (x, y), (right * 1.15, place), textcoords="data", va="center",
            color=colour, fontsize=9, arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35, "shrinkB": 4},
        )  # fmt: skip


def figure_before_after(before: Tensor, after: Tensor, clean: Tensor, share: float, title: str) -> Figure:
    """Show a picture whose left part is noisy and whose right part is cleaned, with a line between the two.

    Args:
        before: (C, H, W) noisy, about [0, 1].
        after: (C, H, W) cleaned.
        clean: (C, H, W), for the two PSNR values.
        share: Where the line stands, 0 (all cleaned) to 1 (all noisy).
        title: Which method.

    Returns:
        The figure.
    """
    shown = before_after(before, after, share)
    values = [float(scores(image[None], clean[None])["PSNR"]) for image in (before, after)]
    drawn, axes = figure(5.2, 5.2 * shown.shape[0] / shown.shape[1] + 0.5)
    ax = axes[0, 0]
    ax.imshow(shown, interpolation="nearest")
    ax.axvline(share * shown.shape[1] - 0.5, color="white", linewidth=1.5)
    ax.set_axis_off()
    ax.set_title(f"left: noisy {values[0]:.1f} dB · right: {title} {values[1]:.1f} dB", fontsize=10)
    return drawn


def before_after(before: Tensor, after: Tensor, share: float) -> np.ndarray:
    """Put the left part of one picture beside the right part of another.

    Args:
        before: (C, H, W) floating point.
        after: (C, H, W) floating point.
        share: Share of the width that is taken from ``before``, 0 to 1.

    Returns:
        (H, W, 3) in [0, 1].
    """
    column = round(min(1.0, max(0.0, share)) * before.shape[2])
    both = after.clone()
    both[:, :, :column] = before[:, :, :column]
    out: np.ndarray = both.expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).cpu().numpy()
    return out


def _means(table: pd.DataFrame, sigma: float) -> pd.DataFrame:
    rows = summary(table[(table["sigma"] == sigma) & (table["metric"] == "PSNR")])
    return rows[rows["dataset"] == ALL].copy()
