from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.errors import PudNetError
from pudnet_lib.profiles import current_profile, pick, replace_fields


@dataclass(frozen=True)
class Inner:
    ways: int = 5


@dataclass(frozen=True)
class Config:
    seed: int = 0
    width: int = 8
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"
    sources: tuple[str, ...] = ("fashion",)
    cap: int | None = None
    inner: Inner = field(default_factory=Inner)


PROFILES = {"smoke": Config(width=2), "laptop": Config()}


def test_overrides_are_replaced_and_the_profile_stays():
    got = replace_fields(PROFILES["smoke"], {"seed": 3, "rate": 1, "sources": ["x", "y"], "kind": "b", "inner.ways": 2})
    assert got == Config(3, 2, 1.0, "b", ("x", "y"), None, Inner(2))
    assert isinstance(got.rate, float)
    assert PROFILES["smoke"] == Config(width=2)


def test_none_keeps_the_profiles_value():
    assert replace_fields(PROFILES["smoke"], {"width": None, "inner.ways": 9}) == Config(width=2, inner=Inner(9))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"widht": 1}, "'widht'.*Did you mean 'width'"),
        ({"width": "8"}, "Config.width is '8' .str.; expected int"),
        ({"width": True}, "Config.width is True"),
        ({"width": 1.5}, "Config.width is 1.5"),
        ({"rate": "fast"}, "expected float"),
        ({"kind": "c"}, "Config.kind is 'c'"),
        ({"sources": "fashion"}, "Config.sources"),
        ({"inner.way": 1}, "'way'.*Did you mean 'ways'"),
        ({"inner.ways": "many"}, "Inner.ways"),
        ({"width": object()}, "Config.width"),
    ],
)
def test_a_wrong_name_or_type_is_an_error(overrides, words):
    with pytest.raises(PudNetError, match=words):
        replace_fields(PROFILES["smoke"], overrides)


@given(st.one_of(st.text(), st.floats(), st.booleans(), st.lists(st.integers())))
def test_no_value_of_another_type_passes_as_an_int(value):
    with pytest.raises(PudNetError, match=r"Config\.width"):
        replace_fields(PROFILES["smoke"], {"width": value})


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(PudNetError, match=r"'smok'.*'smoke'"):
        pick("smok", smoke={"steps": 1}, laptop={"steps": 2}, paper={"steps": 3})


def test_pick_takes_a_row_and_refuses_rows_that_differ():
    rows = {"smoke": {"steps": 1}, "laptop": {"steps": 2}, "paper": {"steps": 3}}
    assert pick("laptop", **rows) == {"steps": 2}
    with pytest.raises(PudNetError, match=r"differ in .*seeds"):
        pick("smoke", **rows | {"paper": {"steps": 3, "seeds": 1}})
    with pytest.raises(PudNetError, match="expected smoke, laptop, paper"):
        pick("smoke", smoke={}, laptop={})


def test_current_profile_reads_the_environment(monkeypatch):
    monkeypatch.delenv("PUDNET_PROFILE", raising=False)
    assert current_profile() == "laptop"
    monkeypatch.setenv("PUDNET_PROFILE", "smoke")
    assert current_profile() == "smoke"
    monkeypatch.setenv("PUDNET_PROFILE", "smokey")
    with pytest.raises(PudNetError, match="PUDNET_PROFILE"):
        current_profile()
