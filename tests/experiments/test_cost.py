"""Notebook 07's arithmetic: Pareto front, equal accuracy, break-even, memory and energy by hand."""

import math
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.evaluate import Crossing


@pytest.fixture(scope="module")
def cost(notebook_functions):
    return notebook_functions("07_cost")


def test_pareto_front_by_hand(cost):
    assert list(cost.pareto([1, 2, 3, 3], [50, 40, 60, 55])) == [True, False, True, False]
    assert list(cost.pareto([1, 1], [50, 50])) == [True, True]  # equal points do not beat each other


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_pareto_front_is_that_of_a_plain_loop(cost, places):
    plain = [not any(s <= t and v >= w and (s, v) != (t, w) for s, v in places) for t, w in places]
    assert list(cost.pareto(*zip(*places, strict=True))) == plain


def _rivals(values: list[float], seconds: tuple[float, ...] = (1.0, 10.0, 100.0), run: str = "GC 3") -> pd.DataFrame:
    rows = [
        {"run": run, "episode": episode, "place": place, "seconds": took, "value": value + episode}
        for episode in range(2)
        for place, (value, took) in enumerate(zip(values, seconds, strict=True))
    ]
    return pd.DataFrame(rows)


LEVEL = pd.Series({0: 60.0, 1: 61.0})


def test_seconds_at_equal_accuracy_by_hand(cost):
    found = cost.equal_accuracy(_rivals([50, 70, 80]), LEVEL)
    assert found.at == pytest.approx(10**0.5)  # halfway from 50 to 70, between 1 and 10 s
    both = pd.concat([_rivals([30, 40, 50]), _rivals([50, 70, 80], run="Adam 3")])
    assert cost.equal_accuracy(both, LEVEL).at == pytest.approx(10**0.5)  # the faster of the two
    assert cost.break_even(95, 0.5, found)[0] == pytest.approx(95 / (10**0.5 - 0.5))
    uneven = pd.concat([_rivals([50, 70, 80]), pd.DataFrame([{"run": "GC 3", "episode": 0, "place": 3, "seconds": 1e3,
                                                              "value": 99.0}])])  # fmt: skip
    assert cost.equal_accuracy(uneven, LEVEL).last == 100  # a place that not all episodes have does not count


def test_censored_crossings_are_bounds_and_say_so(cost):
    never = cost.equal_accuracy(_rivals([30, 40, 50]), LEVEL)
    assert never.censored == "never"
    assert never.scaled(1 / 0.5).text(1).startswith("more than 200.0")
    assert cost.break_even(95, 0.5, never)[1] == "at most 1 [at most 1, 1]"  # its longest training stands for scratch
    always = cost.equal_accuracy(_rivals([70, 80, 90], (0.1, 0.2, 0.3)), LEVEL)
    assert always.censored == "before"
    assert cost.break_even(95, 0.5, always)[1] == "never"


def test_break_even_by_hand(cost):
    # a longer training pays back earlier
    assert cost.break_even(100, 1, Crossing(3, 2, 6, 0.1, 10)) == (50, "50 [20, 100]")
    assert cost.break_even(100, 1, Crossing(1, 1, 1, 0.1, 10)) == (math.inf, "never")
    assert cost.break_even(100, 1, Crossing(3, 0.5, 6, 0.1, 10))[1] == "50 [20, never]"
    assert cost.break_even(100, 1, Crossing(3, 3, 6, 3, 10))[1] == "at least 50 [20, 50]"


class _Nvml(SimpleNamespace):
    def __init__(self, readings: list[int]) -> None:
        super().__init__(nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=lambda index: index)
        self.nvmlDeviceGetTotalEnergyConsumption = lambda handle: readings.pop(0)


def test_energy_is_read_from_nvml_or_said_to_be_missing(cost, monkeypatch):
    def joules(where: str) -> float:
        read = cost.joule_counter(torch.device(where))
        before = read()
        return read() - before

    assert math.isnan(joules("cpu"))
    assert [cost.energy_text(value) for value in (math.nan, 2.5)] == ["not available", "2.5 J"]
    monkeypatch.setitem(sys.modules, "pynvml", _Nvml([0, 1000, 3500]))
    assert joules("cuda:0") == pytest.approx(2.5)
    for module in (_Nvml([]), None):  # no counter on this GPU, not installed
        monkeypatch.setitem(sys.modules, "pynvml", module)
        assert math.isnan(joules("cuda"))


def test_peak_memory_of_a_known_call(cost):
    def call() -> torch.Tensor:
        first = torch.zeros(1_000_000)  # 4 MB
        second = first + 1  # 8 MB together
        del first
        return second[:10].clone()

    assert cost.peak_bytes(call, torch.device("cpu")) == pytest.approx(8e6, rel=0.01)
