"""Cost: Pareto front, equal accuracy, break-even and energy by hand; a tiny run from end to end."""

import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import Crossing
from pudnet_lib.figures import cost_figures as figures
from pudnet_lib.studies import break_even, cost, cost_tables, energy, prediction_cost
from pudnet_lib.studies.starts import StartConfig


def _table(scratch: list[float], seconds: tuple[float, ...] = (1.0, 10.0, 100.0)) -> pd.DataFrame:
    parts = dict.fromkeys(prediction_cost.PARTS, 0.1)
    rows = []
    for g in range(2):
        for method, value, took in (
            ("PudNet", 60.0, 0.5),
            ("PudNet, near swap", 90.0, 0.1),
            ("shared network", 55.0, 0.2),
        ):
            row = {"method": method, "kind": "predicted", "budget": 0, "step": 0, "seconds": took, "value": value + g}
            rows.append(row | parts | {"episode": g, "prediction_seconds": took, "meta_training_seconds": 95.0})
        for step, (value, took) in enumerate(zip([25.0, *scratch], (0.0, *seconds), strict=True)):
            row = {"method": "GC, from scratch", "kind": "trained", "budget": 3, "step": step, "seconds": took}
            rows.append(
                row | {"value": value + g, "episode": g, "prediction_seconds": 0.0, "meta_training_seconds": 0.0}
            )
    facts = {"dataset": "toy", "size": 40, "images": 40, "chance": 25.0, "seed": 0, "metric": "accuracy"}
    return pd.DataFrame(rows).assign(joules=math.nan, **facts)


def test_pareto_front_by_hand():
    assert list(cost_tables.pareto([1, 2, 3, 3], [50, 40, 60, 55])) == [True, False, True, False]
    assert list(cost_tables.pareto([1, 1], [50, 50])) == [True, True]  # equal points do not beat each other


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_pareto_front_is_that_of_a_plain_loop(places):
    plain = [not any(s <= t and v >= w and (s, v) != (t, w) for s, v in places) for t, w in places]
    assert list(cost_tables.pareto(*zip(*places, strict=True))) == plain


def test_ratio_at_equal_accuracy_by_hand():
    found = cost_tables.equal_accuracy(_table([50, 70, 80]), "toy", 40)
    assert found.at == pytest.approx(10**0.5)  # halfway from 50 to 70, between 1 and 10 s
    row = cost.ratios(_table([50, 70, 80])).set_index("method").loc["PudNet"]
    assert row["ratio"] == pytest.approx(10**0.5 / 0.5)
    assert row["break_even"] == pytest.approx(95 / (10**0.5 - 0.5))
    assert row["censored"] == ""
    assert row["best_gap"].startswith("+20.0")


def test_censored_ratios_are_bounds_and_say_so():
    never = cost.ratios(_table([30, 40, 50])).set_index("method").loc["PudNet"]
    assert (never["censored"], never["ratio"]) == ("never", math.inf)
    assert never["ratio_text"].startswith("more than 200.0")
    assert never["break_even"] == pytest.approx(95 / 99.5)  # its longest training stands for scratch
    assert never["break_even_text"] == "at most 1 [at most 1, 1]"
    always = cost.ratios(_table([70, 80, 90], (0.1, 0.2, 0.3))).set_index("method").loc["PudNet"]
    assert always["censored"] == "before"
    assert always["ratio_text"].startswith("at most 0.2")
    assert always["break_even_text"] == "never"
    assert "scratch is there at its first measured point" in cost.answer(_table([70, 80, 90], (0.1, 0.2, 0.3)))
    assert "never pays" in cost.answer(_table([70, 80, 90], (0.1, 0.2, 0.3)))
    assert "scratch does not get there in 100.0 s" in cost.answer(_table([30, 40, 50]))
    with pytest.raises(PudNetError, match="no 'PudNet'"):
        cost_tables.equal_accuracy(_table([1, 2, 3]), "other", 40)


def test_break_even_by_hand():
    assert break_even.datasets_to_pay(100, 2) == 50
    assert break_even.datasets_to_pay(100, 0) == math.inf
    found = break_even.break_even(100, 1, Crossing(3, 2, 6, 0.1, 10))
    assert (found.at, found.low, found.high) == (50, 20, 100)  # a longer training pays back earlier
    assert found.text() == "50 [20, 100]"
    assert break_even.break_even(100, 1, Crossing(3, 0.5, 6, 0.1, 10)).text() == "50 [20, never]"
    assert break_even.break_even(100, 1, Crossing(3, 3, 6, 3, 10)).text() == "at least 50 [20, 50]"


def test_points_and_headline():
    points = cost.points(_table([50, 70, 80])).set_index("method")
    assert points.loc["GC, from scratch", "mean"] == pytest.approx(80.5)
    assert list(points[points["front"]].index) == ["PudNet", "shared network", "GC, from scratch"]  # no control
    (line,) = cost.headline(_table([50, 70, 80]))
    assert (line.scratch, line.scratch_seconds) == (pytest.approx(60.5), pytest.approx(10**0.5))
    assert (line.predicted, line.predicted_seconds) == (pytest.approx(60.5), 0.5)
    assert "stopped at equal accuracy" in line.setting
    (line,) = cost.headline(_table([30, 40, 50]))
    assert "not as good" in line.setting
    assert (line.scratch, line.scratch_seconds) == (pytest.approx(50.5), 100)
    assert "first measured point" in cost.headline(_table([70, 80, 90]))[0].setting


class _Nvml(SimpleNamespace):
    def __init__(self, readings: list[int]) -> None:
        super().__init__(nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=lambda index: index)
        self.nvmlDeviceGetTotalEnergyConsumption = lambda handle: readings.pop(0)


def test_energy_is_read_from_nvml_or_said_to_be_missing(monkeypatch):
    with energy.EnergyMeter("cpu") as meter:
        pass
    assert math.isnan(meter.joules)
    assert [energy.energy_text(joules) for joules in (meter.joules, 2.5)] == ["not available", "2.5 J"]
    assert "GPUs only" in meter.reason
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "pynvml", _Nvml([0, 1000, 3500]))
    with energy.EnergyMeter("cuda:0") as meter:
        pass
    assert meter.joules == pytest.approx(2.5)
    monkeypatch.setitem(sys.modules, "pynvml", _Nvml([]))  # no counter on this GPU
    assert energy.EnergyMeter("cuda").reason.startswith("not available")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "not installed" in energy.EnergyMeter("cuda").reason


def test_peak_memory_of_a_known_call():
    def call() -> torch.Tensor:
        first = torch.zeros(1_000_000)  # 4 MB
        second = first + 1  # 8 MB together
        del first
        return second[:10].clone()

    assert prediction_cost.peak_bytes(call, torch.device("cpu")) == pytest.approx(8e6, rel=0.01)


def test_scaling_counts_parameters_and_layers():
    config = replace(cost.PROFILES["smoke"].scaling, layers=(), classes=(2,), images=(20,))
    found = prediction_cost.scaling(config).set_index(["factor", "level"])
    assert found.loc[("width", "4"), "parameters"] == 3 * 4 * 9 + 2 * 4 * 4 * 9 + 3 * 2 * 4
    assert found.loc[("layers", "convnet3"), "place"] == 3
    assert (found["megabytes"] > 0.02 * 3 * 32 * 32 * 4 / 1000).all()
    assert set(found["energy"]) == {"not available"}
    images = prediction_cost.noise_images(7, 3)
    assert images.class_counts().tolist() == [3, 2, 2]


def test_bad_sizes_are_refused():
    with pytest.raises(PudNetError, match="each of"):
        cost.Config(sizes=(40,))
    with pytest.raises(PudNetError, match="at least 8"):
        cost.Config(sizes=(4, 40, 80))


def test_a_tiny_run_and_its_figures():
    smoke = cost.PROFILES["smoke"]
    config = replace(smoke, start=StartConfig(sources=("glyphs",)), rivals=("constant",), sizes=(16,), episodes=(2,))
    table = cost.run(config)
    assert {"PudNet", "PudNet, near swap", "constant embedding", "Adam, from scratch"} <= set(table["method"])
    assert set(table[table["method"] == "Adam, from scratch"]["budget"]) == {2, 6}
    assert (table[table["method"] == "PudNet"]["images"] == 16).all()
    sizes = pd.concat([table, table.assign(size=32), table.assign(size=64)])
    drawn = figures.figure_fronts(sizes)
    assert len(drawn.axes) == 3
    ratios = cost.ratios(sizes)
    assert "238 × [abs]" in {text.get_text() for text in figures.figure_ratios(ratios).axes[0].texts}
    assert [ax.get_title() for ax in figures.figure_break_even(ratios).axes] == ["glyphs"]
    assert len(figures.figure_clock(table).axes[0].containers) == len(prediction_cost.PARTS)
    grown = pd.DataFrame([{"factor": f, "level": "2", "place": 2, **prediction_cost.measure(TargetConfig(width=4), 2, 8,
                          config.scaling)} for f in ("width", "layers", "classes", "images")])  # fmt: skip
    assert len(figures.figure_scaling(grown).axes) == 8
    grown["energy"] = "not available"
    rows = cost.rows_to_publish(table, grown)
    assert set(rows["energy"].dropna()) == {"not available"}
    assert rows[rows["metric"] == "times faster at equal accuracy"]["reading"].notna().all()
