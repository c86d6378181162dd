from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pudnet_lib.errors import PudNetError
from pudnet_lib.profiles import configure, current_profile, seconds_since_configure


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
    got = configure(PROFILES, "smoke", 3, rate=1, sources=["x", "y"], kind="b", **{"inner.ways": 2})
    assert got == Config(3, 2, 1.0, "b", ("x", "y"), None, Inner(2))
    assert isinstance(got.rate, float)
    assert PROFILES["smoke"] == Config(width=2)


def test_none_keeps_the_profiles_value_and_a_mapping_reaches_a_nested_config():
    assert configure(PROFILES, "smoke", width=None, inner={"ways": 9}) == Config(width=2, inner=Inner(9))


def test_a_whole_nested_config_is_taken():
    assert configure(PROFILES, "laptop", inner=Inner(7)).inner == Inner(7)


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
        ({"inner": {"way": 1}}, "'way'.*Did you mean 'ways'"),
        ({"inner.ways": "many"}, "Inner.ways"),
        ({"width": object()}, "Config.width"),
    ],
)
def test_a_wrong_name_or_type_is_an_error(overrides, words):
    with pytest.raises(PudNetError, match=words):
        configure(PROFILES, "smoke", **overrides)


@given(st.one_of(st.text(), st.floats(), st.booleans(), st.lists(st.integers())))
def test_no_value_of_another_type_passes_as_an_int(value):
    with pytest.raises(PudNetError, match=r"Config\.width"):
        configure(PROFILES, "smoke", width=value)


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(PudNetError, match=r"'smok'.*'smoke'"):
        configure(PROFILES, "smok")


def test_something_that_is_no_config_is_an_error():
    with pytest.raises(PudNetError, match="frozen dataclass"):
        configure({"smoke": 3}, "smoke")


def test_current_profile_reads_the_environment(monkeypatch):
    monkeypatch.delenv("PUDNET_PROFILE", raising=False)
    assert current_profile() == "laptop"
    monkeypatch.setenv("PUDNET_PROFILE", "smoke")
    assert current_profile() == "smoke"
    monkeypatch.setenv("PUDNET_PROFILE", "smokey")
    with pytest.raises(PudNetError, match="PUDNET_PROFILE"):
        current_profile()


def test_seconds_count_from_configure():
    configure(PROFILES, "smoke")
    assert 0 <= seconds_since_configure() < 5
