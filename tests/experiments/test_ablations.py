"""The ablations change one factor, and their effects are paired differences."""

import pandas as pd
import pytest

from pudnet_lib.errors import PudNetError
from pudnet_lib.experiments import ablations
from pudnet_lib.report.ablation_figures import figure_effects


def test_each_variant_differs_from_the_base_in_its_factor_alone():
    config = ablations.Config(steps=100)
    base = ablations.train_config(config, "PudNet", 1)
    assert base.pudnet.seed == base.group_seed == base.meta.seed == 1
    for variant in ablations.VARIANTS:
        other = ablations.train_config(config, variant, 1)
        assert (other == base) == (variant in ("PudNet", "not recalibrated"))
        assert other.pool == base.pool
    assert ablations.train_config(config, "1/4 of the groups", 0).meta.steps == 25


def test_unknown_variant_names_the_nearest():
    with pytest.raises(PudNetError, match="Did you mean 'no recurrence'"):
        ablations.train_config(ablations.Config(), "no recurence", 0)


def _rows(method: str, values: dict[str, list[float]], swap: str = "own") -> list[dict[str, object]]:
    return [
        {"method": method, "dataset": "toy", "group": g, "seed": 0, "swap": swap, "classes": c, "value": v}
        for c, vs in values.items()
        for g, v in enumerate(vs)
    ]


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        _rows("PudNet", {"unseen": [60.0, 70.0], "validation": [50.0, 52.0]})
        + _rows("PudNet", {"unseen": [58.0, 66.0]}, "far")
        + _rows("PudNet", {"unseen": [60.0, 70.0]}, "near")
        + _rows("shared network, lr 1e-2", {"unseen": [61.0, 73.0], "validation": [50.0, 50.0]})
    )


def test_effects_by_hand(table):
    found = ablations.effects(table).set_index(["method", "metric"])["mean"]
    assert found["PudNet", "accuracy"] == pytest.approx(65)
    assert found["PudNet", "far gain"] == pytest.approx(3)
    assert found["PudNet", "near gain"] == pytest.approx(0)
    assert found["shared network, lr 1e-2", "effect"] == pytest.approx(2)
    assert found["shared network, lr 1e-2", "validation"] == pytest.approx(50)


def test_answer_and_figure_say_it(table):
    answer = ablations.answer(table)
    assert "“PudNet”" in answer
    assert "-2.0" in answer
    labels = {t.get_text() for ax in figure_effects(ablations.effects(table)).axes for t in ax.get_yticklabels()}
    assert {"PudNet", "shared network, lr 1e-2"} <= labels
