"""When does one curve reach another: the first crossing, with an interval, said plainly where there is none.

Our choice. The interval is an inversion of the paired difference's: its ends are the crossings of Student's 95 % bounds
over episodes. A rival that is never as good within its budget gives an infinite end, one that is as good from the first
measurement on gives the first place; both are censored, and read so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from pudnet_lib.errors import PudNetError


@dataclass(frozen=True)
class Crossing:
    """Where a rival reaches the level.

    Attributes:
        at: The place; infinite if the rival never gets there.
        low: First place at which the rival may be there already.
        high: First place at which it surely is; infinite if that can't be said within its budget.
        first: The first place measured: at it, the crossing may have come before.
        last: The last place measured: beyond it, nothing is known.
    """

    at: float
    low: float
    high: float
    first: float
    last: float

    @property
    def censored(self) -> str:
        """Empty for a crossing within the places measured, else "before" or "never"."""
        return "never" if math.isinf(self.at) else ("before" if self.at <= self.first else "")

    def scaled(self, factor: float) -> Crossing:
        """The same crossing in another unit: every place times a factor."""
        return Crossing(*(factor * place for place in (self.at, self.low, self.high, self.first, self.last)))

    def text(self, digits: int = 0) -> str:
        """As text: "12 [8, 20]", "more than 60 [more than 60, …]", "at most 3 [at most 3, 5]"."""
        return f"{self._place(self.at, digits)} [{self._place(self.low, digits)}, {self._place(self.high, digits)}]"

    def _place(self, value: float, digits: int) -> str:
        if math.isinf(value):
            return f"more than {self.last:,.{digits}f}"
        return f"{'at most ' if value <= self.first else ''}{value:,.{digits}f}"


def student_bounds(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, lower and upper 95 % bound of each column.

    Args:
        values: (G, E): G independent episodes, E places.

    Returns:
        Three arrays (E,).

    Raises:
        PudNetError: If there are fewer than two episodes.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or len(x) < 2:
        raise PudNetError(f"An interval needs at least two episodes; got an array of shape {x.shape}.")
    mean = x.mean(0)
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(0, ddof=1) / math.sqrt(len(x))
    return mean, mean - half, mean + half


def first_reach(places: ArrayLike, values: ArrayLike, log: bool = False, stay: bool = False) -> float:
    """First place at which a curve is at least zero, by interpolation between the measured places.

    Args:
        places: (E,) ascending.
        values: (E,).
        log: Interpolate over the logarithm of the places (seconds).
        stay: The curve must stay there up to its end.

    Returns:
        The place; infinite if the curve is never there.
    """
    x, y = np.asarray(places, dtype=float), np.asarray(values, dtype=float)
    there = y >= 0
    if stay:
        there = np.logical_and.accumulate(there[::-1])[::-1]
    if not there.any():
        return math.inf
    index = int(there.argmax())
    if index == 0:
        return float(x[0])
    share = -y[index - 1] / (y[index] - y[index - 1])
    ends = np.log(x[index - 1 : index + 1]) if log else x[index - 1 : index + 1]
    place = ends[0] + share * (ends[1] - ends[0])
    return float(np.exp(place) if log else place)


def crossing(places: ArrayLike, differences: ArrayLike, log: bool = False, stay: bool = False) -> Crossing:
    """Find where a rival's curve reaches the level that was subtracted from it.

    Args:
        places: (E,) ascending: steps or seconds.
        differences: (G, E) rival minus level, paired by episode.
        log: Interpolate over the logarithm of the places.
        stay: The rival must stay there up to its end ("overtakes"), not only get there once ("reaches").

    Returns:
        The crossing of the mean difference, and of its 95 % bounds.
    """
    mean, lower, upper = student_bounds(differences)
    x = np.asarray(places, dtype=float)
    at, early, late = (first_reach(x, curve, log, stay) for curve in (mean, upper, lower))
    return Crossing(at, early, late, float(x[0]), float(x[-1]))


def earliest(crossings: Sequence[Crossing]) -> Crossing:
    """The crossing of the best of several rivals: each end is the earliest of theirs.

    Args:
        crossings: At least one.

    Returns:
        The earliest ends; ``first`` is that of the rival that is there first, ``last`` the last of all.
    """
    winner = min(crossings, key=lambda c: c.at)
    low, high, last = min(c.low for c in crossings), min(c.high for c in crossings), max(c.last for c in crossings)
    return Crossing(winner.at, low, high, winner.first, last)
