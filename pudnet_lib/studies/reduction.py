"""Features of training and held-out episodes to a few principal components, everything fitted on the training episodes.

Our choice (the paper reduces both sides before CCA [rec]): without it CCA has as many dimensions as episodes and finds
a correlation of 1 in noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.decomposition import PCA

from pudnet_lib.errors import PudNetError


@dataclass(frozen=True)
class Reduced:
    """Both parts of one side, reduced to k principal components of unit variance over training episodes.

    Attributes:
        train: (n, k), columns centred, orthogonal, of unit variance.
        test: (m, k), in the same coordinates.
        explained: Share of the variance that the k components hold.
    """

    train: np.ndarray
    test: np.ndarray
    explained: float


def reduce_side(train: np.ndarray, test: np.ndarray, components: int, what: str) -> Reduced:
    """Standardise columns and take principal components, all fitted on the training episodes.

    Args:
        train: (n, p) features of training episodes.
        test: (m, p) of held-out episodes.
        components: k.
        what: Name of the features, for messages.

    Returns:
        The reduced side. Columns that are constant over the training episodes are left out.

    Raises:
        PudNetError: If there are too few episodes, columns that vary, or a value is NaN or infinite.
    """
    n = len(train)
    if components < 1:
        raise PudNetError(f"{components} components were asked for; expected at least 1.")
    if n < 2 * components + 2 or len(test) < 4:
        raise PudNetError(
            f"{n} training and {len(test)} held-out episodes are too few for {components} components; expected at "
            f"least {2 * components + 2} and 4. Grow the zoo (pudnet grow-zoo) or take fewer components."
        )
    scaled_train, scaled_test = standardise(train, test, what)
    if scaled_train.shape[1] < components:
        raise PudNetError(
            f"{what} has {scaled_train.shape[1]} columns that vary; expected at least {components}, one a component. "
            "Take fewer components."
        )
    pca = PCA(components, whiten=True, svd_solver="full")
    scores = pca.fit_transform(scaled_train)
    if pca.explained_variance_[-1] < 1e-10 * pca.explained_variance_[0]:
        raise PudNetError(f"{what} varies in fewer than {components} directions; take fewer components.")
    share = float(pca.explained_variance_ratio_.sum())
    return Reduced(scores, pca.transform(scaled_test), share)


def standardise(train: np.ndarray, test: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Bring columns to mean 0 and spread 1 over the training episodes; constant columns are left out.

    Args:
        train: (n, p).
        test: (m, p).
        what: Name of the features, for messages.

    Returns:
        Both parts, (n, q) and (m, q).

    Raises:
        PudNetError: If a value is NaN or infinite, or no column varies.
    """
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise PudNetError(f"{what}: a feature is NaN or infinite; expected finite features of every episode.")
    spread = train.std(0)
    varying = spread > 1e-10 * max(1.0, float(np.abs(train).max()))
    if not varying.any():
        raise PudNetError(f"{what}: constant over all training episodes; a constant correlates with nothing.")
    centre, scale = train[:, varying].mean(0), spread[varying]
    return (train[:, varying] - centre) / scale, (test[:, varying] - centre) / scale
