"""Held-out canonical correlations and their nulls, on data whose correlations are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from sklearn.cross_decomposition import CCA

from pudnet_lib.errors import PudNetError
from pudnet_lib.studies.correlation import (
    Against,
    Reduced,
    canonical,
    reduce_side,
    shuffled_canonical,
    shuffles,
    standard,
)


def pair(n: int, m: int, correlations: tuple[float, ...], seed: int = 0, width: int = 0) -> tuple[Reduced, Reduced]:
    """Two sides with known canonical correlations, each turned at random, with columns of noise up to the width."""
    rng = np.random.default_rng(seed)
    k = max(width, len(correlations))
    rho = np.array([*correlations, *[0.0] * (k - len(correlations))])
    x = rng.standard_normal((n + m, k))
    y = rho * x + np.sqrt(1 - rho**2) * rng.standard_normal((n + m, k))
    sides = (s @ np.linalg.qr(rng.standard_normal((k, k)))[0] for s in (x, y))
    a, b = (reduce_side(s[:n], s[n:], k, "noise") for s in sides)
    return a, b


def test_known_correlations_are_found_on_held_out_episodes():
    found = canonical(*pair(2000, 4000, (0.8, 0.3)), permutations=50)
    assert found.spectrum == pytest.approx([0.8, 0.3], abs=0.05)
    assert found.held_out.value == pytest.approx(0.55, abs=0.04)
    assert found.held_out.low < found.held_out.value < found.held_out.high
    assert found.held_out.p == found.held_out.p_transfer == pytest.approx(1 / 51)
    assert found.scores.shape == (4000, 2, 2)
    for place, value in enumerate(found.spectrum):
        assert np.corrcoef(found.scores[..., place].T)[0, 1] == pytest.approx(value)


def test_in_sample_correlation_misleads_and_held_out_does_not():
    found = canonical(*pair(16, 400, (), width=6), permutations=200)
    assert found.in_sample.value > 0.4  # nothing but noise
    assert found.in_sample.p > 0.05  # as its null shows
    assert abs(found.held_out.value) < 0.1


def test_the_closed_form_is_that_of_scikit_learn():
    x, y = pair(60, 40, (0.9, 0.6, 0.2), width=4)
    straight = shuffled_canonical(x, y, np.arange(60)[None], np.arange(40)[None])
    fitted = CCA(4, scale=False, max_iter=2000, tol=1e-9).fit(x.train, y.train)
    u, v = fitted.transform(x.test, y.test)
    theirs = [np.corrcoef(u[:, place], v[:, place])[0, 1] for place in range(4)]
    assert straight.held_out[0] == pytest.approx(theirs, abs=1e-4)
    assert canonical(x, y, permutations=2).spectrum == pytest.approx(theirs, abs=1e-4)
    np.testing.assert_array_equal(straight.transfer, straight.held_out)


def test_shuffled_is_a_loop_over_reordered_sides():
    x, y = pair(20, 12, (0.7,), width=3)
    train, test = shuffles(4, 20, 0), shuffles(4, 12, 0)
    together = shuffled_canonical(x, y, train, test)
    for b in range(4):
        moved = Reduced(y.train[train[b]], y.test[test[b]])
        alone = shuffled_canonical(x, moved, np.arange(20)[None], np.arange(12)[None])
        assert together.in_sample[b] == pytest.approx(alone.in_sample[0])
        assert together.held_out[b] == pytest.approx(alone.held_out[0])


def test_p_values_are_uniform_under_independence():
    found = [canonical(*pair(24, 16, (), seed, width=2), permutations=99, seed=seed) for seed in range(120)]
    for values in (
        [f.held_out.p for f in found],
        [f.held_out.p_transfer for f in found],
        [f.in_sample.p for f in found],
    ):
        assert kstest(values, "uniform").pvalue > 0.01


def test_intervals_cover_and_draw_whole_clusters():
    x, y = pair(40, 30, (0.999999,))
    tight = canonical(x, y, permutations=100).held_out
    assert tight.low == pytest.approx(1, abs=1e-3)
    x, y = pair(200, 60, (0.5,), seed=1)
    free = canonical(x, y, permutations=400).held_out
    once = canonical(Reduced(x.train, np.repeat(x.test, 4, 0)), Reduced(y.train, np.repeat(y.test, 4, 0)), 400)
    sets = canonical(
        Reduced(x.train, np.repeat(x.test, 4, 0)), Reduced(y.train, np.repeat(y.test, 4, 0)), 400,
        clusters=np.repeat(np.arange(60), 4),
    )  # fmt: skip
    assert once.held_out.high - once.held_out.low < 0.6 * (free.high - free.low)  # copies are no new episodes
    assert sets.held_out.high - sets.held_out.low == pytest.approx(free.high - free.low, rel=0.25)


@given(st.integers(1, 40), st.integers(0, 5))
def test_shuffles_are_permutations_and_keep_strata(size, seed):
    strata = np.random.default_rng(seed).integers(0, 3, size)
    for order in shuffles(6, size, seed, tuple(strata)):
        assert sorted(order) == list(range(size))
        np.testing.assert_array_equal(strata[order], strata)
    for order in shuffles(3, size, seed):
        assert sorted(order) == list(range(size))


def test_pooled_sources_correlate_and_within_them_nothing_does():
    """Two clouds that lie apart on both sides: the plain null is beaten, that within sources is not."""
    rng = np.random.default_rng(0)
    source = np.arange(80) % 2
    x, y = (source[:, None] * 6 + rng.standard_normal((80, 2)) for _ in range(2))
    sides = [reduce_side(s[:50], s[50:], 2, "clouds") for s in (x, y)]
    assert canonical(*sides, permutations=200).held_out.p < 0.02
    assert canonical(*sides, permutations=200, strata=(tuple(source[:50]), tuple(source[50:]))).held_out.p > 0.05


def test_a_value_beside_its_null_by_hand():
    against = Against(2.0, np.nan, np.nan, np.array([0.0, 1.0, 2.0, 3.0]))
    assert against.p == pytest.approx(3 / 5)
    assert np.isnan(against.p_transfer)
    assert against.null_high == pytest.approx(2.85)
    assert Against(2.0, 0, 0, against.null, np.zeros(9)).p_transfer == pytest.approx(0.1)


def test_cka_and_mantel_by_hand(notebook_functions):
    functions = notebook_functions("01_parameter_correlations")
    linear_cka, mantel = functions.linear_cka, functions.mantel
    x = np.array([[1.0, 0], [-1, 0], [1, 0], [-1, 0]])
    y = np.array([[1.0], [1], [-1], [-1]])
    orders = shuffles(50, 4, 0)
    assert linear_cka(x, -3 * x, orders).value == pytest.approx(1)
    assert linear_cka(x, y, orders).value == pytest.approx(0)
    line = np.array([[0.0], [1], [3], [7]])
    assert mantel(line, 2 * line + 5, orders).value == pytest.approx(1)
    a, b = np.array([1.0, 3, 7, 2, 6, 4]), np.array([1.0, 0, 0, 1, 1, 0])  # distances on the line, and of pairs below
    two = np.array([[0.0], [1], [0], [0]])
    assert mantel(line, two, orders).value == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert 0 < mantel(line, line, orders).p < 0.3
    for similarity in (linear_cka, mantel):
        with pytest.raises(PudNetError, match=r"constant|equally far"):
            similarity(np.ones((4, 2)), line, orders)


def test_a_side_is_reduced_to_components_fitted_on_training_episodes():
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((30, 6)) * [9, 5, 1, 1, 1, 0], rng.standard_normal((10, 6))
    reduced = reduce_side(train, test, 3, "features")
    assert reduced.train.T @ reduced.train / 29 == pytest.approx(np.eye(3), abs=1e-9)
    alone = reduce_side(train, test[:4], 3, "features")
    np.testing.assert_allclose(alone.test, reduced.test[:4])  # the held-out episodes do not shape the directions
    np.testing.assert_allclose(reduced.steps.transform(test), reduced.test)
    scaled = standard(train, "features").transform(train)
    assert scaled.shape == (30, 5)  # the constant column is gone
    assert scaled.std(0) == pytest.approx(np.ones(5))


def test_impossible_reductions_are_refused_with_a_remedy():
    rng = np.random.default_rng(0)
    wide, few = rng.standard_normal((30, 8)), rng.standard_normal((8, 8))
    for train, test, k, words in (
        (few, wide, 5, "8 training and 30 held-out episodes are too few for 5 components; .* take fewer"),
        (wide, few[:3], 2, "3 held-out episodes are too few"),
        (wide, few, 0, "at least 1"),
        (wide, few, 9, "8 columns that vary; expected at least 9"),
        (np.ones((30, 4)), few, 2, "HOG: constant over all training episodes"),
        (np.outer(wide[:, 0], [1, 2, 3]), few[:, :3], 2, "varies in fewer than 2 directions"),
        (np.where(wide > 2, np.nan, wide), few, 2, "HOG: a feature is NaN or infinite"),
    ):
        with pytest.raises(PudNetError, match=words):
            reduce_side(train, test, k, "HOG")
