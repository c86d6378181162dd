"""Do two descriptions of the same episodes correlate? CCA on held-out episodes with permutation nulls.

Paper, Section 1 [rec]: CCA between dataset features and parameters. Our choice, everything that makes it proof: both
sides are reduced by PCA fitted on training episodes, the canonical directions are fitted there too (scikit-learn), and
correlations are taken on held-out episodes with held-out classes. The null keeps all of this and only shuffles which
parameters belong to which dataset; it uses CCA in closed form, all permutations at once (equal to scikit-learn's, see
the tests). A second null shuffles the training pairs only: it asks whether what was fitted carries over better than
directions fitted to noise, and stays honest where held-out episodes share few sets of classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from sklearn.cross_decomposition import CCA
from sklearn.exceptions import ConvergenceWarning

from pudnet_lib.studies.reduction import Reduced
from pudnet_lib.studies.similarity import Against

BLOCK = 250  # permutations at a time, to bound memory


def _fit(x: Reduced, y: Reduced) -> CCA:
    """Canonical directions by scikit-learn, fitted on training episodes."""
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # the tests compare with closed form
        return CCA(x.train.shape[1], scale=False, max_iter=2000, tol=1e-9).fit(x.train, y.train)


class Shuffled(NamedTuple):
    """Canonical correlations under B pairings, (B, k) each.

    Attributes:
        in_sample: On the training episodes, shuffled.
        held_out: On the held-out episodes, shuffled as well.
        transfer: On the held-out episodes in their true pairing, with directions fitted to shuffled training episodes.
    """

    in_sample: np.ndarray
    held_out: np.ndarray
    transfer: np.ndarray


def shuffled_canonical(x: Reduced, y: Reduced, train_orders: np.ndarray, test_orders: np.ndarray) -> Shuffled:
    """CCA for many pairings at once; PCA scores are orthonormal, so it is one k × k SVD a pairing.

    Args:
        x: One side.
        y: The other.
        train_orders: (B, n) which training episode's ``y`` belongs to each ``x``.
        test_orders: (B, m) the same for held-out episodes.

    Returns:
        The correlations.
    """
    cross = x.train.T @ y.train[train_orders] / (len(x.train) - 1)  # (B, k, k)
    left, inside, right = np.linalg.svd(cross)
    u, v = _unit_columns(x.test @ left), _unit_columns(y.test @ right.transpose(0, 2, 1))  # (B, m, k)
    moved = np.take_along_axis(v, test_orders[..., None], 1)
    return Shuffled(np.minimum(inside, 1.0), (u * moved).sum(1), (u * v).sum(1))


def _unit_columns(u: np.ndarray) -> np.ndarray:
    """Centre columns of (…, m, k) and bring them to length 1; a constant one becomes 0."""
    centred = u - u.mean(-2, keepdims=True)
    length = np.sqrt((centred**2).sum(-2, keepdims=True))
    scaled: np.ndarray = np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-9)
    return scaled


def _correlations(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Correlations of the columns of (m, k) with those of (m, k), (k,)."""
    found: np.ndarray = (_unit_columns(u) * _unit_columns(v)).sum(0)
    return found


@lru_cache(maxsize=6)
def shuffles(count: int, size: int, seed: int, strata: tuple[int, ...] | None = None) -> np.ndarray:
    """Draw permutations, (B, size); within strata if there are any, one number a place. Kept: do not write to it."""
    keys = np.random.default_rng((seed, size)).random((count, size))
    if strata is None:
        plain: np.ndarray = keys.argsort(1).astype(np.int32)
        return plain
    order = (keys + np.array(strata)).argsort(1)  # grouped by stratum, shuffled within
    drawn: np.ndarray = np.empty(order.shape, np.int32)
    drawn[:, np.argsort(strata, kind="stable")] = order
    return drawn


@dataclass(frozen=True)
class Canonical:
    """Canonical correlations with everything that tells whether to believe them.

    Attributes:
        held_out: Mean of the k canonical correlations on held-out episodes, with interval and nulls. A mean, because
            the fit's order of directions says little where several are equally strong.
        in_sample: The same on the very episodes that they were fitted on, with its null.
        spectrum: (k,) held-out correlations, in the order of the fit.
        spectrum_null: (B, k) their null.
        scores: (m, 2) held-out episodes along the first pair of directions.
        explained: Share of variance kept on each side.
    """

    held_out: Against
    in_sample: Against
    spectrum: np.ndarray
    spectrum_null: np.ndarray
    scores: np.ndarray
    explained: tuple[float, float]


def canonical(
    x: Reduced,
    y: Reduced,
    permutations: int = 1000,
    clusters: np.ndarray | None = None,
    strata: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
    seed: int = 0,
) -> Canonical:
    """Fit CCA on training episodes and test it on held-out ones.

    Args:
        x: The datasets' side.
        y: The parameters' side.
        permutations: B, of the nulls and of the bootstrap.
        clusters: (m,) names of the held-out episodes' class sets, drawn together by the bootstrap; by default each
        episode is its own.
        strata: Within which training and held-out episodes are shuffled (n,), (m,): a stricter null.
        seed: Of shuffles and bootstrap.

    Returns:
        The correlations.
    """
    fit = _fit(x, y)
    u, v = fit.transform(x.test, y.test)
    inside, outside = _correlations(*fit.transform(x.train, y.train)), _correlations(u, v)
    in_train, in_test = strata or (None, None)
    train_orders = shuffles(permutations, len(x.train), seed, in_train)
    test_orders = shuffles(permutations, len(x.test), seed + 1, in_test)
    blocks = [slice(start, start + BLOCK) for start in range(0, permutations, BLOCK)]
    nulls = [shuffled_canonical(x, y, train_orders[block], test_orders[block]) for block in blocks]
    null = Shuffled(*(np.concatenate(parts) for parts in zip(*nulls, strict=True)))
    low, high = _bootstrap(u, v, np.arange(len(u)) if clusters is None else clusters, permutations, seed)
    return Canonical(
        Against(float(outside.mean()), low, high, null.held_out.mean(1), null.transfer.mean(1)),
        Against(float(inside.mean()), np.nan, np.nan, null.in_sample.mean(1)),
        outside,
        null.held_out,
        np.stack([u[:, 0], v[:, 0]], 1),
        (x.explained, y.explained),
    )


def _bootstrap(u: np.ndarray, v: np.ndarray, clusters: np.ndarray, count: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean held-out correlation, the fitted directions held fixed.

    A sample is a weight a row (how often its cluster was drawn), so that all samples are one product of matrices.
    """
    names, inverse = np.unique(clusters, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), count)
    weights = drawn[:, inverse].astype(float)
    weights /= weights.sum(1, keepdims=True)  # (B, m)
    mean_u, mean_v = weights @ u, weights @ v  # (B, k)
    size = np.sqrt((weights @ u**2 - mean_u**2).clip(0) * (weights @ v**2 - mean_v**2).clip(0))
    values = np.divide(weights @ (u * v) - mean_u * mean_v, size, out=np.zeros_like(size), where=size > 1e-9).mean(1)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
