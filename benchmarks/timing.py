"""Side-by-side timing: both sides of a ratio take turns in one process, medians and quartiles are kept."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pudnet_lib.results import peak_memory_mb


def alternate(calls: dict[str, Callable[[], Any]], repeats: int = 15, warm: int = 3) -> dict[str, np.ndarray]:
    """Time several calls in turns, so that a slow moment of the machine hits all of them.

    Args:
        calls: Name to call.
        repeats: Measurements of each.
        warm: Unmeasured calls of each before.

    Returns:
        Name to seconds (repeats,).
    """
    for call in calls.values():
        for _ in range(warm):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    gc.disable()
    try:
        for _ in range(repeats):
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - began)
    finally:
        gc.enable()
    return {name: np.array(values) for name, values in seconds.items()}


def row(
    name: str, ours: np.ndarray, rival_name: str, rival: np.ndarray, goal: float | None, at_most: bool
) -> dict[str, Any]:
    """Make a benchmark's row: medians, quartiles, ratio, and whether the goal is met.

    Args:
        name: What is measured.
        ours: Our seconds.
        rival_name: What it is measured against.
        rival: Its seconds.
        goal: The ratio to reach; None for a row without a goal.
        at_most: True if ours / rival shall be at most the goal; False if rival / ours shall be at least the goal.

    Returns:
        The row.
    """
    ratio = np.median(ours) / np.median(rival) if at_most else np.median(rival) / np.median(ours)
    paired = ours / rival if at_most else rival / ours
    return {
        "name": name,
        "ours_seconds": float(np.median(ours)),
        "spread": float(np.subtract(*np.percentile(ours, [75, 25]))),
        "rival": rival_name,
        "rival_seconds": float(np.median(rival)),
        "rival_spread": float(np.subtract(*np.percentile(rival, [75, 25]))),
        "ratio": float(ratio),
        "ratio_low": float(np.percentile(paired, 25)),
        "ratio_high": float(np.percentile(paired, 75)),
        "goal": "none" if goal is None else f"{'at most' if at_most else 'at least'} {goal:g} ×",
        "met": None if goal is None else bool(ratio <= goal if at_most else ratio >= goal),
        "peak_memory_mb": peak_memory_mb(),
    }
