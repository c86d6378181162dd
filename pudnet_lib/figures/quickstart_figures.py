"""The quick start's figures: sketch, predicted filters, features before and after, accuracy over seconds, confusion.

Our choice; the paper has no counterpart. Plain functions: a widget calls them, and so does a batch run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from pudnet_lib.batch.results import summarise
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.predict import Classification, PredictedNetwork, extract_features
from pudnet_lib.plots import PALETTE, colour_of, figure, intervals

MARKERS = "osD^vPX*"


def mosaic(images: Tensor, columns: int) -> np.ndarray:
    """Arrange images in a grid with one pixel of white between them.

    Args:
        images: (N, C, H, W) uint8.
        columns: Images a row.

    Returns:
        (rows · (H + 1) - 1, columns · (W + 1) - 1, 3) uint8.
    """
    n, _, height, width = images.shape
    rows = -(-n // columns)
    grid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, np.uint8)
    pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    for position in range(n):  # a few dozen pictures of a figure
        top, left = (position // columns) * (height + 1), (position % columns) * (width + 1)
        grid[top : top + height, left : left + width] = pixels[position]
    return grid


def figure_sketch(dataset: ImageDataset, per_class: int = 10, seed: int = 0, max_classes: int = 10) -> Figure:
    """Show the sketch: one row of images a class.

    Args:
        dataset: The dataset.
        per_class: Images a class.
        seed: Seed of the draw, as in ``PredictConfig``.
        max_classes: At most so many rows; the title says if there are more.

    Returns:
        The figure.
    """
    images, labels = dataset.sketch_with_labels(per_class, seed)
    shown = min(dataset.num_classes, max_classes)
    drawn, axes = figure(6.4, 0.55 * shown + 0.5, shown, 1)
    for c, ax in enumerate(axes[:, 0]):
        ax.imshow(mosaic(images[labels == c], per_class))
        ax.set_axis_off()
        ax.set_anchor("W")
        ax.annotate(
            dataset.class_names[c],
            (0, 0.5),
            (-6, 0),
            "axes fraction",
            textcoords="offset points",
            ha="right",
            va="center",
        )
    more = f", the first {shown} of {dataset.num_classes} classes" if shown < dataset.num_classes else ""
    drawn.suptitle(f"The sketch of {dataset.name}{more}", fontsize=11)
    return drawn


def first_filters(network: PredictedNetwork) -> Tensor:
    """Take a network's first convolution weight, (out, in, k, k)."""
    conv = next(m for m in network.backbone.modules() if isinstance(m, nn.Conv2d))
    return conv.weight.detach().cpu()


def figure_filters(networks: Mapping[str, PredictedNetwork], columns: int = 16) -> Figure:
    """Show the first layer's filters of several networks, one panel each, all on one colour scale.

    Args:
        networks: Title to network.
        columns: Filters a row.

    Returns:
        The figure; red, green and blue are the three input channels, gray is weight 0.
    """
    weights = {name: first_filters(network) for name, network in networks.items()}
    rows = -(-len(next(iter(weights.values()))) // columns)
    drawn, axes = figure(6.4, (0.45 * rows + 0.45) * len(weights), len(weights), 1)
    for ax, (name, weight) in zip(axes[:, 0], weights.items(), strict=True):
        bound = float(weight.abs().max())
        ax.imshow(mosaic(((weight / bound + 1) * 127.5).to(torch.uint8), columns), interpolation="nearest")
        ax.set_title(f"{name}: weights from {-bound:.2f} to {bound:.2f}")
        ax.set_axis_off()
    return drawn


def figure_features(networks: Mapping[str, PredictedNetwork], images: ImageDataset, most: int = 600) -> Figure:
    """Show where images lie in feature space: the first two principal components of unit-length features.

    Args:
        networks: Title to network, one panel each.
        images: Test images.
        most: At most so many points.

    Returns:
        The figure; the share of variance is on the axes.
    """
    subset = images.at_most(max(1, most // images.num_classes))
    shown = min(images.num_classes, len(MARKERS))
    drawn, axes = figure(3.4 * len(networks), 3.5, 1, len(networks))
    for ax, (name, network) in zip(axes[0], networks.items(), strict=True):
        features = nn.functional.normalize(extract_features(network.backbone, subset.images), dim=1).cpu().numpy()
        pca = PCA(2, random_state=0)
        points = pca.fit_transform(features)
        for c in range(shown):
            mine = subset.labels.numpy() == c
            ax.scatter(
                *points[mine].T, s=9, alpha=0.45, color=PALETTE[c], marker=MARKERS[c], linewidths=0, rasterized=True
            )
        for c in range(shown):
            centre = np.median(points[subset.labels.numpy() == c], axis=0)
            label = ax.annotate(images.class_names[c], centre, ha="center", fontsize=8, color="black")
            label.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": PALETTE[c], "boxstyle": "round,pad=0.15"})
        share = 100 * pca.explained_variance_ratio_
        ax.set(title=name, xlabel=f"component 1 ({share[0]:.0f} % of variance)")
        ax.set_ylabel(f"component 2 ({share[1]:.0f} %)")
    return drawn


def figure_curve(curve: pd.DataFrame, predicted: pd.DataFrame, chance: float) -> Figure:
    """Draw accuracy against seconds: training from scratch as a curve, the prediction as a point.

    Args:
        curve: Columns method, seed, seconds, value (accuracy in %).
        predicted: One row: seconds, mean, low, high.
        chance: Chance level in %.

    Returns:
        The figure, seconds on a logarithmic axis.
    """
    drawn, axes = figure(6.4, 3.6)
    ax = axes[0, 0]
    last = curve[curve["step"] == curve["step"].max()].sort_values("value")
    best = last["method"].iloc[-1]  # its label goes up and the other's down, or they would meet
    for method, part in curve.groupby("method", sort=False):
        steps = part.groupby("step", sort=True)
        mean, low, high = steps["value"].mean(), steps["value"].min(), steps["value"].max()
        seconds = steps["seconds"].mean()
        colour = colour_of(str(method))
        ax.plot(seconds, mean, color=colour, marker="o", markersize=3)
        ax.fill_between(seconds, low, high, color=colour, alpha=0.18, linewidth=0)
        ax.annotate(
            f"{method}\n{mean.iloc[-1]:.1f} %", (seconds.iloc[-1], mean.iloc[-1]),
            (6, 12 if method == best else -14),
            textcoords="offset points", color=colour, va="center", fontsize=9, annotation_clip=False,
        )  # fmt: skip
    row = predicted.iloc[0]
    error = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
    ax.errorbar(row["seconds"], row["mean"], error, fmt="s", color=colour_of("PudNet"), capsize=3, markersize=7)
    ax.annotate(
        f"PudNet\n{row['mean']:.1f} %, {row['seconds']:.2f} s", (row["seconds"], row["mean"]), (9, 9),
        textcoords="offset points", color=colour_of("PudNet"), fontsize=9,
    )  # fmt: skip
    ax.axhline(chance, color=colour_of("chance"), linestyle="--", linewidth=1)
    ax.annotate(
        "chance", (0.01, chance), (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=9
    )
    ax.set(
        xscale="log", xlabel="seconds (logarithmic), meta-training not counted", ylabel="accuracy on test images (%)"
    )
    return drawn


def figure_confusion(network: PredictedNetwork, images: ImageDataset, most: int = 20) -> Figure:
    """Draw the confusion matrix in % of each true class.

    Args:
        network: The classifier.
        images: Test images.
        most: At most so many classes, the first ones.

    Returns:
        The figure.
    """
    with torch.no_grad():
        guesses = torch.cat(
            [network(part.to(network.means.device)).argmax(1).cpu() for part in images.images.split(256)]
        )
    shown = min(most, images.num_classes)
    matrix = 100 * confusion_matrix(images.labels, guesses, labels=range(shown), normalize="true")
    side = 2.2 + 0.45 * shown
    drawn, axes = figure(side, side * 0.86)
    ax = axes[0, 0]
    picture = ax.imshow(matrix, vmin=0, vmax=100)
    if shown <= 12:
        for (i, j), value in np.ndenumerate(matrix):
            ax.text(
                j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color="white" if value < 55 else "black"
            )
    names = list(images.class_names[:shown])
    ax.set_xticks(range(shown), names, rotation=40, ha="right")
    ax.set_yticks(range(shown), names)
    ax.set(xlabel="predicted class", ylabel="true class")
    ax.grid(visible=False)
    drawn.colorbar(picture, ax=ax, shrink=0.75, label="% of the true class")
    return drawn


METHODS = (
    "PudNet",
    "PudNet, far swap",
    "PudNet, near swap",
    "PudNet, plain",
    "PudNet, plain, far swap",
    "PudNet, plain, near swap",
    "shared network, refined",
    "shared network",
    "fine-tuned",
    "from scratch",
)


def figure_methods(table: pd.DataFrame) -> Figure:
    """Draw each method's mean accuracy on episodes with its 95 % interval.

    Args:
        table: Long form with method, value (accuracy in %) and chance.

    Returns:
        The figure.
    """
    summary = summarise(table, ("method",)).set_index("method")
    rows = summary.loc[[m for m in METHODS if m in summary.index]].reset_index()
    drawn, axes = figure(6.4, 0.5 * len(rows) + 0.9)
    intervals(rows, axes[0, 0], unit="accuracy on episodes of unseen classes (%), mean and 95 % interval")
    return drawn


def figure_classification(image: Tensor, found: Classification, truth: str, most: int = 5) -> Figure:
    """Show one picture beside its most probable classes.

    Args:
        image: (C, H, W) uint8.
        found: What the network says.
        truth: Its true class.
        most: At most so many bars.

    Returns:
        The figure.
    """
    drawn, axes = figure(6.4, 2.2, 1, 2)
    axes[0, 0].imshow(mosaic(image[None], 1))
    axes[0, 0].set_axis_off()
    axes[0, 0].set_title(f"truth: {truth}")
    names = list(found.probabilities)[:most]
    values = [100 * found.probabilities[name] for name in names]
    axes[0, 1].barh(names, values, color=[PALETTE[0]] + [PALETTE[7]] * (len(names) - 1))
    for i, value in enumerate(values):
        axes[0, 1].annotate(f"{value:.0f} %", (value, i), (3, 0), textcoords="offset points", va="center", fontsize=9)
    axes[0, 1].invert_yaxis()
    axes[0, 1].set(xlabel="probability (%)", xlim=(0, 112))
    axes[0, 1].grid(visible=False, axis="y")
    return drawn
