"""A value beside its null, and two similarities that fit nothing: linear CKA and the Mantel test.

Our choice; the paper has no counterpart. They are second opinions on held-out episodes: do the two descriptions of the
same episodes agree on which episodes resemble each other? Their null shuffles which parameters belong to which dataset.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.distance import pdist, squareform

from pudnet_lib.errors import PudNetError


@dataclass(frozen=True)
class Against:
    """A value beside its permutation null.

    Attributes:
        value: The observed value.
        low: Lower end of its 95 % interval (bootstrap over held-out episodes); NaN if none was asked for.
        high: Upper end.
        null: (B,) values under shuffled pairings.
        transfer_null: (B,) values where only the training pairs were shuffled; empty where nothing was fitted.
    """

    value: float
    low: float
    high: float
    null: np.ndarray
    transfer_null: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def p(self) -> float:
        """One-sided p-value: how often a shuffled pairing does as well, the observed one counted."""
        return _share_above(self.null, self.value)

    @property
    def p_transfer(self) -> float:
        """The same against the null of shuffled training pairs; NaN where nothing was fitted."""
        return _share_above(self.transfer_null, self.value) if len(self.transfer_null) else np.nan

    @property
    def null_mean(self) -> float:
        """Mean of the null."""
        return float(self.null.mean())

    @property
    def null_high(self) -> float:
        """The value that 95 % of the null stay below."""
        return float(np.quantile(self.null, 0.95))


def _share_above(null: np.ndarray, value: float) -> float:
    return float((1 + (null >= value - 1e-12).sum()) / (1 + len(null)))


def linear_cka(x: np.ndarray, y: np.ndarray, orders: np.ndarray) -> Against:
    """Linear centred kernel alignment of two descriptions of the same episodes, with its permutation null.

    Args:
        x: (m, p).
        y: (m, q).
        orders: (B, m) shuffled pairings.

    Returns:
        CKA in 0..1 beside its null; without an interval (duplicates of a bootstrap sample would raise it).
    """
    a, b = (_centred_gram(s) for s in (x, y))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    if size < 1e-12:
        raise PudNetError("CKA: one side is constant over the episodes; a constant aligns with nothing.")
    return Against(float(np.vdot(a, b)) / size, np.nan, np.nan, _aligned(a, b, orders) / size)


def mantel(x: np.ndarray, y: np.ndarray, orders: np.ndarray) -> Against:
    """Mantel test: do episodes that lie far apart on one side lie far apart on the other?

    Args:
        x: (m, p).
        y: (m, q).
        orders: (B, m) shuffled pairings.

    Returns:
        Pearson correlation of the two sides' Euclidean distances, beside its null.
    """
    a, b = pdist(x), pdist(y)
    if a.std() < 1e-12 or b.std() < 1e-12:
        raise PudNetError("Mantel test: all episodes lie equally far apart on one side; nothing can correlate.")
    left, right = (squareform((d - d.mean()) / d.std(), checks=False) for d in (a, b))  # every pair twice
    size = 2 * len(a)
    return Against(float(np.vdot(left, right)) / size, np.nan, np.nan, _aligned(left, right, orders) / size)


def _aligned(a: np.ndarray, b: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Inner products of (m, m) with (m, m) whose rows and columns are shuffled alike, (B,)."""
    return np.array([np.vdot(a, b.take(order, 0).take(order, 1)) for order in orders])


def _centred_gram(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(0)
    gram: np.ndarray = centred @ centred.T
    return gram
