"""Do two descriptions of the same episodes correlate? CCA on held-out episodes with permutation nulls.

Paper, Section 1 [rec]: both sides are reduced, then CCA. Our choice, everything that makes it proof: PCA (without it
CCA finds a correlation of 1 in noise) and the canonical directions are fitted on training episodes, correlations are
taken on held-out ones. One null shuffles which parameters belong to which dataset, all permutations at once in closed
form; a second one the training pairs only, and stays honest where held-out episodes share few sets of classes.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.feature_selection import VarianceThreshold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pudnet_lib.errors import PudNetError


def standard(train: np.ndarray, what: str) -> Pipeline:
    """Fit on the columns of (n, p): constant ones go, the others get mean 0 and spread 1; errors name the features."""
    if not np.isfinite(train).all():
        raise PudNetError(f"{what}: a feature is NaN or infinite; expected finite features of every episode.")
    least = 1e-10 * max(1.0, float(np.abs(train).max()))
    if train.std(0).max() <= least:
        raise PudNetError(f"{what}: constant over all training episodes; a constant correlates with nothing.")
    return make_pipeline(VarianceThreshold(least**2), StandardScaler()).fit(train)


class Reduced(NamedTuple):
    """One side, (n, k) and (m, k), in principal components of unit variance over training episodes."""

    train: np.ndarray
    test: np.ndarray
    steps: Any = None  # the fitted pipeline, for further episodes: (r, p) to (r, k)


def reduce_side(train: np.ndarray, test: np.ndarray, components: int, what: str) -> Reduced:
    """Standardise (n, p) and (m, p) and take principal components, all fitted on the training episodes."""
    least = 2 * components + 2
    if components < 1:
        raise PudNetError(f"{components} components were asked for; expected at least 1.")
    if len(train) < least or len(test) < 4:
        few = f"{len(train)} training and {len(test)} held-out episodes are too few for {components} components"
        remedy = "Grow the zoo (pudnet grow-zoo) or take fewer components."
        raise PudNetError(f"{few}; expected at least {least} and 4. {remedy}")
    scale = standard(train, what)
    standard(np.concatenate([train, test]), what)  # the held-out episodes must be finite, too
    if (columns := scale[-1].n_features_in_) < components:
        expected = f"expected at least {components}, one a component"
        raise PudNetError(f"{what} has {columns} columns that vary; {expected}. Take fewer components.")
    pca = PCA(components, whiten=True, svd_solver="full")
    scores = pca.fit_transform(scale.transform(train))
    if pca.explained_variance_[-1] < 1e-10 * pca.explained_variance_[0]:
        raise PudNetError(f"{what} varies in fewer than {components} directions; take fewer components.")
    return Reduced(scores, pca.transform(scale.transform(test)), make_pipeline(scale, pca))  # both are fitted


class Against(NamedTuple):
    """A value beside its permutation null, with a 95 % interval where one was asked for (else NaN)."""

    value: float
    low: float
    high: float
    null: np.ndarray
    transfer_null: np.ndarray = np.empty(0)  # only the training pairs shuffled; empty where nothing was fitted

    @property
    def p(self) -> float:
        """One-sided p-value: how often a shuffled pairing does as well, the observed one counted."""
        return float((1 + (self.null >= self.value - 1e-12).sum()) / (1 + len(self.null)))

    @property
    def p_transfer(self) -> float:
        """The same against the null of shuffled training pairs; NaN where nothing was fitted."""
        return self._replace(null=self.transfer_null).p if len(self.transfer_null) else np.nan

    @property
    def null_high(self) -> float:
        """The value that 95 % of the null stay below."""
        return float(np.quantile(self.null, 0.95))


class Shuffled(NamedTuple):
    """Correlations under B pairings, (B, k) each; transfer: held-out pairs are true, the training pairs shuffled."""

    in_sample: np.ndarray
    held_out: np.ndarray
    transfer: np.ndarray


def directions(x: Reduced, y: Reduced, orders: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit CCA for (B, n) pairings: directions of x (B, k, k), in-sample correlations (B, k), directions of y."""
    cross = x.train.T @ y.train[orders] / (len(x.train) - 1)  # (B, k, k): PCA scores are orthonormal, one SVD each
    left, inside, right = np.linalg.svd(cross)
    return left, np.minimum(inside, 1.0), right.transpose(0, 2, 1)


def shuffled_canonical(x: Reduced, y: Reduced, train_orders: np.ndarray, test_orders: np.ndarray) -> Shuffled:
    """CCA for many pairings at once; (B, n) and (B, m) tell which episode's ``y`` belongs to each ``x``."""
    left, inside, right = directions(x, y, train_orders)
    u, v = _unit_columns(x.test @ left), _unit_columns(y.test @ right)  # (B, m, k)
    moved = np.take_along_axis(v, test_orders[..., None], 1)
    return Shuffled(inside, (u * moved).sum(1), (u * v).sum(1))


def _unit_columns(u: np.ndarray) -> np.ndarray:
    """Centre columns of (…, m, k) and bring them to length 1; a constant one becomes 0."""
    centred = u - u.mean(-2, keepdims=True)
    length = np.linalg.norm(centred, axis=-2, keepdims=True)
    scaled: np.ndarray = np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-9)
    return scaled


@lru_cache(maxsize=6)
def shuffles(count: int, size: int, seed: int, strata: tuple[int, ...] | None = None) -> np.ndarray:
    """Draw permutations, (B, size); within strata if there are any, one number a place. Kept: do not write to it."""
    keys = np.random.default_rng((seed, size)).random((count, size))
    if strata is None:
        return keys.argsort(1).astype(np.int32)
    order = (keys + np.array(strata)).argsort(1)  # grouped by stratum, shuffled within
    drawn = np.empty(order.shape, np.int32)
    drawn[:, np.argsort(strata, kind="stable")] = order
    return drawn


class Canonical(NamedTuple):
    """Canonical correlations and all that tells whether to believe them; means, as the pairs' order says little."""

    held_out: Against  # mean of the k canonical correlations on held-out episodes, with interval and nulls
    in_sample: Against  # the same on the very episodes that they were fitted on, with its null
    spectrum: np.ndarray  # (k,) held-out correlations, in the order of the fit
    spectrum_null: np.ndarray  # (B, k)
    scores: np.ndarray  # (m, 2, k) held-out episodes along each pair of directions: datasets' side, parameters' side
    axes: tuple[np.ndarray, np.ndarray]  # directions of both sides, (k, k) each, in the reduced sides' coordinates


def canonical(
    x: Reduced, y: Reduced, permutations: int = 1000, clusters: np.ndarray | None = None,  # (m,) drawn together
    strata: tuple[tuple[int, ...], tuple[int, ...]] | None = None, seed: int = 0,  # shuffle within: a stricter null
) -> Canonical:  # fmt: skip
    """Fit CCA on training episodes and test it on held-out ones, with B permutations and bootstrap samples."""
    left, inside, right = (part[0] for part in directions(x, y, np.arange(len(x.train))[None]))
    signs = np.sign(np.take_along_axis(left, np.abs(left).argmax(0)[None], 0))  # a direction's sign is free: fix it
    left, right = left * signs, right * signs
    u, v = x.test @ left, y.test @ right
    outside = (_unit_columns(u) * _unit_columns(v)).sum(0)
    in_train, in_test = strata or (None, None)
    train_orders = shuffles(permutations, len(x.train), seed, in_train)
    test_orders = shuffles(permutations, len(x.test), seed + 1, in_test)
    blocks = [slice(start, start + 250) for start in range(0, permutations, 250)]  # to bound memory
    nulls = [shuffled_canonical(x, y, train_orders[block], test_orders[block]) for block in blocks]
    null = Shuffled(*(np.concatenate(parts) for parts in zip(*nulls, strict=True)))
    low, high = _bootstrap(u, v, np.arange(len(u)) if clusters is None else clusters, permutations, seed)
    held_out = Against(float(outside.mean()), low, high, null.held_out.mean(1), null.transfer.mean(1))
    in_sample = Against(float(inside.mean()), np.nan, np.nan, null.in_sample.mean(1))
    return Canonical(held_out, in_sample, outside, null.held_out, np.stack([u, v], 1), (left, right))


def _bootstrap(u: np.ndarray, v: np.ndarray, clusters: np.ndarray, count: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean held-out correlation, the fitted directions held fixed."""
    names, inverse = np.unique(clusters, return_inverse=True)  # a sample is a weight a row: one product of matrices
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), count)
    weights = drawn[:, inverse].astype(float)
    weights /= weights.sum(1, keepdims=True)  # (B, m)
    mean_u, mean_v = weights @ u, weights @ v  # (B, k)
    size = np.sqrt((weights @ u**2 - mean_u**2).clip(0) * (weights @ v**2 - mean_v**2).clip(0))
    values = np.divide(weights @ (u * v) - mean_u * mean_v, size, out=np.zeros_like(size), where=size > 1e-9).mean(1)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
