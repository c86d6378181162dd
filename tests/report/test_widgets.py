from __future__ import annotations

import asyncio

import ipywidgets
import pytest

from pudnet_lib.errors import PudNetError
from pudnet_lib.plots import figure
from pudnet_lib.widgets import Panel


def line(calls):
    def draw(slope, kind):
        calls.append((slope, kind))
        if slope == 13:
            raise ValueError("unlucky")
        made, axes = figure(3, 2)
        axes[0, 0].plot([0, 1], [0, slope])
        return made

    return draw


def test_a_control_draws_the_figure_again_and_shows_errors():
    calls = []
    panel = Panel(line(calls), slope=(1, 20), kind=["a", "b"])
    first = bytes(panel.image.value)
    assert first.startswith(b"\x89PNG")
    panel.controls["slope"].value = 3
    assert bytes(panel.image.value) != first
    panel.controls["slope"].value = 13
    assert "unlucky" in panel.message.value
    panel.controls["slope"].value = 1
    assert panel.message.value == ""
    assert calls[-1] == (1, "a")


def test_a_control_of_ones_own_is_taken_as_it_is():
    slider = ipywidgets.IntSlider(value=2, description="steepness")
    panel = Panel(line([]), slope=slider, kind=["a"])
    assert panel.controls["slope"] is slider
    assert slider.description == "steepness"
    with pytest.raises(PudNetError, match="Control kind is"):
        Panel(line([]), slope=slider, kind=object())


def test_overtaken_calls_are_dropped():
    calls = []

    async def move():
        panel = Panel(line(calls), slope=(1, 20), kind=["a", "b"])
        for slope in (2, 3, 4, 5):
            panel.controls["slope"].value = slope
        await asyncio.sleep(0.5)

    asyncio.run(move())
    assert len(calls) == 2
    assert calls[-1][0] == 5
