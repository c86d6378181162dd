"""The quick start's sentence and headline, from a table made by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from pudnet_lib.studies import predict_your_own_images as experiment

VALUES = {
    "PudNet": (90, 92),
    "PudNet, far swap": (80, 84),
    "PudNet, plain": (81, 83),
    "shared network": (86, 88),
    "shared network, refined": (89, 93),
    "fine-tuned": (94, 96),
    "from scratch": (93, 95),
}
SECONDS = {"PudNet": 0.1, "from scratch": 0.6}


@pytest.fixture
def table() -> pd.DataFrame:
    rows = [
        {"method": method, "dataset": "toy", "seed": 0, "episode": episode, "metric": "accuracy", "value": float(value)}
        | {"chance": 25.0, "prediction_seconds": SECONDS.get(method, 0.2), "meta_training_seconds": 50.0}
        for method, values in VALUES.items()
        for episode, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_answer_and_break_even_by_hand(table):
    answer = experiment.answer(table)
    assert "reaches 91.0 %; it beats the shared network (+4.0 [+4.0, +4.0] points, n = 2)" in answer
    assert "the same with the kit's gradient steps by +0.0 [" in answer
    assert "from training from scratch by -3.0 [-3.0, -3.0] (n = 2) at 6 times its speed" in answer
    assert "gains +9.0 [" in answer
    assert experiment.break_even(table) == pytest.approx(50 / 0.5)
    assert "pays from 100 datasets on" in answer


def test_headline_has_both_sides(table):
    (line,) = experiment.headline(table)
    assert (line.predicted, line.scratch, line.chance) == (91.0, 94.0, 25.0)
    assert (line.predicted_seconds, line.scratch_seconds) == (0.1, 0.6)
