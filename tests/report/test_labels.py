"""Labels keep their distance."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.batch.labels import end_labels, spread
from pudnet_lib.plots import figure


def test_spread_by_hand():
    assert spread([10, 0], 2) == [10, 0]
    assert spread([1, 1], 2) == [2, 0] or spread([1, 1], 2) == [0, 2]
    assert spread([0, 1, 10], 3) == pytest.approx([-1, 2, 10])
    assert spread([0, 1, 3], 3) == pytest.approx([4 / 3 - 3, 4 / 3, 4 / 3 + 3])


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=8), st.floats(0.1, 20))
def test_neighbours_keep_the_gap_and_their_order(places, gap):
    moved = spread(places, gap)
    ordered = sorted(moved)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(ordered))
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            if a < b:
                assert moved[i] < moved[j]


def test_labels_of_lines_that_end_together_do_not_meet():
    drawn, axes = figure(4, 3)
    axes[0, 0].set_ylim(0, 100)
    end_labels(axes[0, 0], {})
    end_labels(axes[0, 0], {"one": (1, 50, "black"), "two": (1, 50.5, "black")})
    drawn.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes[0, 0].texts]
    assert boxes[0].y1 < boxes[1].y0
