"""Do two descriptions of the same groups correlate? CCA on held-out groups with permutation nulls.

Paper, Section 1 [rec]: CCA between dataset features and parameters. Our choice, everything that makes it proof: both
sides are reduced by PCA fitted on training groups, the canonical directions are fitted there too (scikit-learn), and
correlations are taken on held-out groups with held-out classes. The null keeps all of this and only shuffles which
parameters belong to which dataset; it uses CCA in closed form, all permutations at once (equal to scikit-learn's, see
the tests). A second null shuffles the training pairs only: it asks whether what was fitted carries over better than
directions fitted to noise, and stays honest where held-out groups share few sets of classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.cross_decomposition import CCA
from sklearn.exceptions import ConvergenceWarning

from pudnet_lib.experiments.reduction import Reduced
from pudnet_lib.experiments.similarity import Against

BLOCK = 250  # permutations at a time, to bound memory


def _parts(x: Reduced, y: Reduced) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    return (x.train, y.train), (x.test, y.test)


def _fit(x: Reduced, y: Reduced) -> CCA:
    """Canonical directions by scikit-learn, fitted on training groups."""
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # the tests compare with closed form
        return CCA(x.train.shape[1], scale=False, max_iter=2000, tol=1e-9).fit(x.train, y.train)


def closed_form_canonical(
    x: Reduced, y: Reduced, train_order: np.ndarray, test_order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """CCA for many pairings at once; PCA scores are orthonormal, so it is one k × k SVD a pairing.

    Args:
        x: One side.
        y: The other.
        train_order: (B, n) which training group's ``y`` belongs to each ``x``.
        test_order: (B, m) the same for held-out groups.

    Returns:
        In-sample and held-out correlations, (B, k) each.
    """
    n = len(x.train)
    cross = np.einsum("ni,bnj->bij", x.train, y.train[train_order]) / (n - 1)  # (B, k, k)
    left, inside, right = np.linalg.svd(cross)
    u = np.einsum("mi,bij->bmj", x.test, left)
    v = np.einsum("bmi,bji->bmj", y.test[test_order], right)
    return np.minimum(inside, 1.0), _columnwise(u, v)


def _columnwise(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Correlations of the columns of (B, m, k) with those of (B, m, k); 0 where one is constant."""
    u, v = u - u.mean(1, keepdims=True), v - v.mean(1, keepdims=True)
    size = np.sqrt((u**2).sum(1) * (v**2).sum(1))
    found: np.ndarray = np.divide((u * v).sum(1), size, out=np.zeros_like(size), where=size > 1e-12)
    return found


def shuffles(count: int, size: int, rng: np.random.Generator, strata: np.ndarray | None = None) -> np.ndarray:
    """Draw permutations, (B, size); within strata (size,) if there are any."""
    keys = rng.random((count, size))
    if strata is None:
        plain: np.ndarray = keys.argsort(1)
        return plain
    order = (keys + strata[None]).argsort(1)  # grouped by stratum, shuffled within
    drawn: np.ndarray = np.empty_like(order)
    drawn[:, np.argsort(strata, kind="stable")] = order
    return drawn


@dataclass(frozen=True)
class Canonical:
    """Canonical correlations with everything that tells whether to believe them.

    Attributes:
        held_out: Mean of the k canonical correlations on held-out groups, with interval and nulls. A mean, because
            the fit's order of directions says little where several are equally strong.
        in_sample: The same on the very groups that they were fitted on, with its null.
        spectrum: (k,) held-out correlations, in the order of the fit.
        spectrum_null: (B, k) their null.
        scores: (m, 2) held-out groups along the first pair of directions.
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
    strata: tuple[np.ndarray, np.ndarray] | None = None,
    seed: int = 0,
) -> Canonical:
    """Fit CCA on training groups and test it on held-out ones.

    Args:
        x: The datasets' side.
        y: The parameters' side.
        permutations: B, of the nulls and of the bootstrap.
        clusters: (m,) names of the held-out groups' class sets, drawn together by the bootstrap; by default each group
            is its own.
        strata: Within which training and held-out groups are shuffled (n,), (m,): a stricter null.
        seed: Of shuffles and bootstrap.

    Returns:
        The correlations.
    """
    rng = np.random.default_rng(seed)
    fit = _fit(x, y)
    inside, outside = (_columnwise(*(np.asarray(s)[None] for s in fit.transform(a, b)))[0] for a, b in _parts(x, y))
    n, m = len(x.train), len(x.test)
    train, test = strata or (None, None)
    orders = shuffles(permutations, n, rng, train), shuffles(permutations, m, rng, test)
    straight = np.broadcast_to(np.arange(m), orders[1].shape)
    nulls: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for b in (slice(start, start + BLOCK) for start in range(0, permutations, BLOCK)):
        null_inside, null_outside = closed_form_canonical(x, y, orders[0][b], orders[1][b])
        nulls.append((null_inside, null_outside, closed_form_canonical(x, y, orders[0][b], straight[b])[1]))
    null_in, null_out, null_transfer = (np.concatenate(parts) for parts in zip(*nulls, strict=True))
    u, v = fit.transform(x.test, y.test)
    low, high = _bootstrap(u, v, np.arange(m) if clusters is None else clusters, permutations, rng)
    return Canonical(
        Against(float(outside.mean()), low, high, null_out.mean(1), null_transfer.mean(1)),
        Against(float(inside.mean()), np.nan, np.nan, null_in.mean(1)),
        outside,
        null_out,
        np.stack([u[:, 0], v[:, 0]], 1),
        (x.explained, y.explained),
    )


def _bootstrap(
    u: np.ndarray, v: np.ndarray, clusters: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of the mean held-out correlation, the fitted directions held fixed.

    A sample is a weight a row (how often its cluster was drawn), so that all samples are one product of matrices.
    """
    names, inverse = np.unique(clusters, return_inverse=True)
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), count)[:, inverse].astype(float)
    weights /= weights.sum(1, keepdims=True)  # (B, m)
    mean_u, mean_v = weights @ u, weights @ v  # (B, k)
    size = np.sqrt((weights @ u**2 - mean_u**2).clip(0) * (weights @ v**2 - mean_v**2).clip(0))
    values = np.divide(weights @ (u * v) - mean_u * mean_v, size, out=np.zeros_like(size), where=size > 1e-9).mean(1)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
