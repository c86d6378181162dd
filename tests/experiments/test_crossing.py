"""Crossings of made-up curves, by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import Crossing, crossing, earliest, first_reach, student_bounds


def test_first_reach_by_hand():
    assert first_reach([0, 10, 20], [-20, -10, 10]) == pytest.approx(15)
    assert first_reach([1, 10, 100], [-20, -10, 10], log=True) == pytest.approx(10**1.5)
    assert first_reach([0, 10], [-2, -1]) == math.inf
    assert first_reach([0, 10], [0, -1]) == 0


def test_to_overtake_is_to_stay_ahead():
    values = [-2, 2, -2, 2]
    assert first_reach([0, 1, 2, 3], values) == pytest.approx(0.5)
    assert first_reach([0, 1, 2, 3], values, stay=True) == pytest.approx(2.5)
    assert first_reach([0, 1], [1, -1], stay=True) == math.inf


def test_the_interval_is_where_the_bounds_cross():
    differences = np.array([[-11.0, -1.0, 9.0], [-9.0, 1.0, 11.0]])  # means -10, 0, 10; sd √2, so half width 12.706
    found = crossing([0, 10, 20], differences)
    assert found.at == pytest.approx(10)
    assert found.low == pytest.approx(0)  # -10 + 12.706 is above zero already
    assert found.high == math.inf  # 10 - 12.706 is not above zero yet
    _, low, high = student_bounds(differences)
    assert high[0] == pytest.approx(-10 + 12.706, abs=1e-3)
    assert low[2] == pytest.approx(10 - 12.706, abs=1e-3)


def test_censored_crossings_say_so():
    never = crossing([1, 10], [[-5, -4], [-5.1, -4.1]])
    assert (never.censored, never.text()) == ("never", "more than 10 [more than 10, more than 10]")
    before = crossing([2, 10], [[5, 6], [5.1, 6.1]])
    assert (before.censored, before.text()) == ("before", "at most 2 [at most 2, at most 2]")
    assert Crossing(12, 8, math.inf, 1, 60).text() == "12 [8, more than 60]"
    assert Crossing(12, 8, math.inf, 1, 60).scaled(0.5).text(1) == "6.0 [4.0, more than 30.0]"
    assert Crossing(12, 8, 20, 1, 60).censored == ""


def test_the_best_of_several_rivals():
    assert earliest([Crossing(5, 3, 9, 1, 10), Crossing(4, 2, math.inf, 2, 20)]) == Crossing(4, 2, 9, 2, 20)


def test_one_episode_is_no_sample():
    with pytest.raises(PudNetError, match="two episodes"):
        student_bounds([[1.0, 2.0]])


@given(st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=2, max_size=5), st.booleans())
def test_the_ends_are_in_order(differences, stay):
    found = crossing([1, 2, 3, 4], differences, stay=stay)
    assert found.low <= found.at <= found.high
