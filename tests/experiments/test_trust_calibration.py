"""The calibration of the trust report: its numbers by hand, and reports on toy episodes beside the truth."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import interval
from pudnet_lib.studies.trust_calibration import (
    TrustStudy,
    advice_table,
    bias,
    calibrate,
    calibration_error,
    coverage,
    reliability,
)


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "dataset": "toy",
            "per_class": 10,
            "episode": [0, 1, 2, 3],
            "estimate": [40.0, 50.0, 80.0, 90.0],
            "accuracy": [50.0, 60.0, 78.0, 88.0],
            "low": [35.0, 45.0, 70.0, 89.0],
            "high": [45.0, 62.0, 90.0, 95.0],
            "advice": ["fine-tune it", "fine-tune it", "use it as it is", "use it as it is"],
            "fine_tuned": [56.0, 62.0, 78.0, float("nan")],
            "scratch": [40.0, 50.0, 70.0, float("nan")],
        }
    )


def test_reliability_bias_coverage_and_error_by_hand(table):
    bins = reliability(table, bins=2)
    assert bins["estimate"].tolist() == [45, 85]
    assert bins["accuracy"].tolist() == [55, 83]
    assert bins["n"].tolist() == [2, 2]
    assert bins.loc[0, "low"] == pytest.approx(interval([50.0, 60.0]).low)
    assert bias(table).mean == pytest.approx((-10 - 10 + 2 + 2) / 4)
    assert coverage(table) == 50  # the second and the third
    error = calibration_error(table, bins=2)
    assert error.mean == pytest.approx((10 + 2) / 2)
    assert 0 <= error.low <= error.mean <= error.high
    assert calibration_error(table, bins=2) == error  # its draws are seeded


def test_several_reports_on_a_episode_are_one_value_of_the_bias(table):
    assert bias(pd.concat([table, table])) == bias(table)


def test_advice_is_compared_with_what_was_trained(table):
    found = advice_table(table).set_index("advice")
    assert found.loc["fine-tune it", "n"] == 2
    assert found.loc["fine-tune it", "fine-tuned − predicted"].startswith("+4.0 [")
    assert found.loc["use it as it is", "from scratch − predicted"] == "-8.0"
    assert advice_table(table, "per_class")["n"].tolist() == [3]


def test_reports_on_episodes_of_an_unseen_source(pudnet, images):
    model = pudnet()
    train, test = images(6, 12, 16, seed=1), images(6, 8, 16, seed=1)
    pool = (images(4, 8, 16, seed=2, name="other"),)
    study = TrustStudy(sizes=(4, 8), episodes=2, fit_episodes=1, fit_epochs=1, query_per_class=5)
    state = torch.random.get_rng_state()
    found = calibrate(model, train, test, pool, study, ways=3)
    assert torch.equal(state, torch.random.get_rng_state())
    assert found["per_class"].tolist() == [4, 4, 8, 8]
    assert found["images_per_class"].tolist() == [4, 4, 8, 8]
    assert found["test_images"].tolist() == [15] * 4
    assert found["fine_tuned"].notna().tolist() == [True, False, True, False]
    assert (found["nearest"] == "other").all()
    pd.testing.assert_frame_equal(found, calibrate(model, train, test, pool, study, ways=3))
    assert calibrate(model, train, test, pool, study, ways=3, fits=False)["scratch"].isna().all()


def test_a_class_that_is_never_right_lowers_the_truth_not_the_estimate(pudnet, images):
    model, train = pudnet(), images(3, 12, 16, seed=1)
    shuffled = ImageDataset(train.images, (train.labels + 1) % 3, train.class_names)
    study = TrustStudy(sizes=(8,), episodes=1, fit_episodes=0, query_per_class=6)
    found = calibrate(model, train, shuffled, (images(4, 8, 16, name="other"),), study, ways=3).iloc[0]
    assert found["estimate"] > found["accuracy"] + 20
    assert found["accuracy"] < 100 / 3


def test_a_study_needs_two_images_a_class():
    with pytest.raises(PudNetError, match="at least 2 images a class"):
        TrustStudy(sizes=(1,))
