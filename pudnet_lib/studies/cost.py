"""Arithmetic of notebook 07: Pareto fronts, seconds at equal accuracy, break-even, peak memory, energy.

Our choice. A ratio compares a prediction's seconds with those at which a trained rival first reaches its accuracy on
the same datasets; every measured point of every budget counts for the rival. Where it never gets there, or is there at
its first measured point, the ratio is a bound, and is printed as one. Energy is read where NVIDIA's management library
(NVML, the optional ``pynvml``) gives it; the counter is the whole GPU's, so that other work on it counts too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch.profiler import ProfilerActivity, profile

from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import Crossing, crossing, earliest


def pareto(costs: ArrayLike, values: ArrayLike) -> NDArray[np.bool_]:
    """Tell which of (P,) points no other beats: none costs as little and is as good, and better in one of the two."""
    s, v = np.asarray(costs, dtype=float), np.asarray(values, dtype=float)
    no_worse = (s[None] <= s[:, None]) & (v[None] >= v[:, None])
    better = (s[None] < s[:, None]) | (v[None] > v[:, None])
    return np.asarray(~(no_worse & better).any(axis=1))


def equal_accuracy(rivals: pd.DataFrame, level: pd.Series) -> Crossing:
    """Seconds at which the first of several trained rivals reaches a level (by episode) on the same episodes."""
    if rivals.empty or level.empty:
        raise PudNetError(f"equal_accuracy needs both sides; got {len(rivals)} rows of rivals, {len(level)} levels.")
    found = []
    for _, run in rivals.groupby("run", sort=False):
        values = run.pivot_table(index="episode", columns="place", values="value").dropna(axis="columns")
        seconds = run.groupby("place")["seconds"].median()[values.columns].cummax().to_numpy()
        found.append(crossing(seconds, values.to_numpy() - level[values.index].to_numpy()[:, None], log=True))
    return earliest(found)


@dataclass(frozen=True)
class BreakEven:
    """From how many datasets on meta-training has paid for itself; infinite if never.

    ``bound`` is "at most" where scratch never reaches the prediction, "at least" where it is there from its first
    measurement on; ``open_low`` says that the lower end is no more than "at most".
    """

    at: float
    low: float
    high: float
    bound: str = ""
    open_low: bool = False

    def text(self) -> str:
        """As text: "310 [200, 500]", "at most 90", "never"."""
        if math.isinf(self.at):
            return "never"
        low, high = (f"{end:,.0f}" if math.isfinite(end) else "never" for end in (self.low, self.high))
        return f"{self.bound} {self.at:,.0f} [{'at most ' * self.open_low}{low}, {high}]".strip()


def break_even(meta: float, seconds: float, scratch: Crossing) -> BreakEven:
    """Datasets from which on meta-training (its seconds) has paid, against training from scratch to equal accuracy."""
    saved = (min(place, scratch.last) - seconds for place in (scratch.at, scratch.high, scratch.low))
    at, low, high = (meta / each if each > 0 else math.inf for each in saved)
    bound = {"never": "at most", "before": "at least"}.get(scratch.censored, "")
    return BreakEven(at, low, high, bound, math.isinf(scratch.high))


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Peak of the bytes that a call allocates, over those that were allocated before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = call()
    del kept
    assert recorded.profiler is not None
    assert recorded.profiler.kineto_results is not None
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    totals = np.cumsum([event.nbytes() for event in sorted(events, key=lambda e: e.start_ns())])
    return int(max(totals, default=0))


def energy_text(joules: float) -> str:
    """As text: "12.3 J", or "not available" for NaN."""
    return "not available" if math.isnan(joules) else f"{joules:.3g} J"


class EnergyMeter:
    """Joules that a GPU uses within a ``with`` block; NaN where they can't be measured."""

    def __init__(self, device: torch.device | str) -> None:
        self.joules, where = math.nan, torch.device(device)
        self._read: Callable[[], float] = lambda: math.nan
        if where.type != "cuda":
            return
        with suppress(Exception):  # no pynvml, or a GPU without a counter: NVML has an exception class a code
            nvml = import_module("pynvml")
            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByIndex(where.index or 0)
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            self._read = lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000  # millijoules

    def __enter__(self) -> EnergyMeter:
        self._began = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.joules = self._read() - self._began
