"""Labels at the ends of lines that do not meet. Our choice; the paper has no counterpart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move places apart until neighbours keep a gap, each as little as possible around its cluster's middle."""
    order = np.argsort(places, kind="stable")
    clusters: list[list[float]] = []  # of each: sum of the wished middles, number of labels
    for place in np.asarray(places, dtype=float)[order]:
        clusters.append([place, 1])
        while len(clusters) > 1:
            (below, n), (above, m) = clusters[-2:]
            if above / m - below / n >= gap * (n + m) / 2:
                break
            clusters[-2:] = [[below + above, n + m]]
    moved = np.concatenate([s / n + gap * (np.arange(n) - (n - 1) / 2) for s, n in clusters])
    result = np.empty(len(moved))
    result[order] = moved
    return [float(place) for place in result]


def end_labels(axes: Axes, ends: Mapping[str, tuple[float, float, str]], size: float = 9) -> None:
    """Write a name at the end of each line, moved up or down so that no two meet; call it last."""
    if not ends:
        return
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # lays the axes out
    low, high = axes.get_ylim()
    height = axes.get_position().height * axes.figure.get_figheight() * 72  # type: ignore[union-attr]
    gap = 1.15 * size * (high - low) / max(height, 1)
    x = max(end[0] for end in ends.values())
    for (name, (_, _, colour)), y in zip(ends.items(), spread([e[1] for e in ends.values()], gap), strict=True):
        axes.annotate(
            name, (x, y), (5, 0), textcoords="offset points", color=colour, va="center", fontsize=size,
            annotation_clip=False,
        )  # fmt: skip
