"""The correlations' figures and panels show what they are given; longer work can be cancelled."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pudnet_lib.figures import atlas_figures, correlation_widgets
from pudnet_lib.figures import correlation_figures as figures
from pudnet_lib.studies import atlas, zoo_store
from pudnet_lib.studies import parameter_correlations as experiment
from pudnet_lib.studies.correlation_study import POOLED, WITHIN, Choice, Config, study
from pudnet_lib.widgets import png_bytes

CONFIG = Config(
    ("fashion", "glyphs"), ("same", "different"), 16, 8, ("pixel statistics",), 2, 20, atlas=atlas.AtlasConfig(2, 3, 1)
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUDNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
    study.cache_clear()
    atlas.landscape.cache_clear()


@pytest.fixture(scope="module")
def table(cache) -> pd.DataFrame:
    return experiment.run(CONFIG)


def texts(drawn: Figure) -> str:
    png_bytes(drawn)  # it can be drawn
    parts = ((*ax.texts, ax.title, ax.xaxis.label, *ax.get_yticklabels()) for ax in drawn.axes)
    return " ".join(text.get_text() for part in parts for text in part)


def test_the_map_has_a_cell_for_every_layer_and_feature(table):
    drawn = figures.figure_heat(table, "norms")
    assert [ax.get_title() for ax in drawn.axes[:3]] == [
        "fashion\nsame initialisation", "glyphs\nsame initialisation", f"{POOLED}\nsame initialisation",
    ]  # fmt: skip
    assert len(drawn.axes) == 7  # with the scale
    cell = table[(table["metric"] == experiment.HELD_OUT) & (table["parameters"] == "norms")].iloc[0]
    assert f"{cell['value']:+.2f}\n({cell['null_high']:.2f})" in texts(drawn)
    assert "nan" not in texts(drawn)


def test_surviving_cells_are_framed(table):
    flat = table.assign(p=0.001, p_transfer=np.where(table["layer"] == "convolution 2", 0.01, 0.5))
    drawn = figures.figure_heat(flat)
    assert [len(ax.lines) for ax in drawn.axes[:6]] == [1] * 6


def test_in_sample_stands_beside_held_out_and_both_beside_their_nulls(table):
    drawn = figures.figure_honest(table, "pixel statistics")
    assert [t.get_text() for t in drawn.legends[0].get_texts()][:3] == list(figures.KINDS)
    rows = table[(table["layer"] == "whole network") & (table["parameters"] == "weights")]
    rows = rows[rows["dataset"] == "glyphs"]
    inside = rows[(rows["metric"] == experiment.IN_SAMPLE) & (rows["initialisation"] == "same")].iloc[0]
    assert f"{inside['value']:+.2f}" in texts(drawn)
    low, high = drawn.axes[0].get_xlim()
    assert low < rows["value"].min()
    assert high > rows["null_high"].max()


def test_a_chosen_episode_is_ringed_and_shown():
    loaded = study(CONFIG)
    choice = Choice(POOLED, dataset_feature="pixel statistics", components=2)
    assert loaded.locate(choice, 3) == ("fashion", 3)
    assert loaded.locate(choice, 9) == ("glyphs", 1)
    assert loaded.locate(choice, 16) == ("fashion", 0)
    drawn = figures.figure_pair(loaded, choice, 9)
    scatter, spectrum, images, filters = drawn.axes
    scores = loaded.canonical(choice).scores
    assert np.concatenate(scatter.lines[-1].get_xydata()).tolist() == pytest.approx(scores[9].tolist())
    assert [len(line.get_xdata()) for line in scatter.lines[:2]] == [8, 8]
    assert spectrum.lines[0].get_ydata() == pytest.approx(loaded.canonical(choice).spectrum)
    assert "episode 1, glyphs" in images.get_title()
    pictures = loaded.zoo("glyphs", "same").episodes.images("held-out", np.array([1]))[0][0]
    shown = images.images[0].get_array()
    np.testing.assert_array_equal(shown[:32, :32], pictures[0].permute(1, 2, 0).numpy())
    assert filters.images[0].get_array().shape == (15, 7, 3)
    assert drawn.get_suptitle().startswith(("Survives", "Does not survive"))


def test_filters_are_on_one_scale_with_gray_for_zero():
    weights = np.zeros((3, 3, 2, 2))
    weights[0, 0, 0, 0], weights[2, 1, 1, 1] = 2, -2
    grid = figures.filter_mosaic(weights)
    assert grid.shape == (5, 5, 3)
    assert grid[0, 0].tolist() == [1, 0.5, 0.5]
    assert grid[4, 1].tolist() == [0.5, 0, 0.5]
    assert grid[2].tolist() == [[1, 1, 1]] * 5


def test_the_verdicts_have_a_row_for_each_source_and_start(table):
    rows = figures.verdict_table(table)
    assert len(rows) == 8
    assert set(rows["dataset"]) == {"fashion", "glyphs", POOLED, WITHIN}
    assert rows["verdict"].str.startswith(("Survives", "Does not survive")).all()


def test_the_atlas_is_drawn_for_both_starts():
    distances = atlas.distances(("glyphs",), CONFIG.atlas)
    drawn = atlas_figures.figure_distances(distances)
    assert [ax.get_title() for ax in drawn.axes] == list(atlas.STARTS.values())
    assert {t.get_text() for t in drawn.axes[0].get_yticklabels()} == set(atlas.GUESSES)
    mapped = atlas_figures.figure_atlas(("glyphs",), CONFIG.atlas)
    assert [ax.get_title() for ax in mapped.axes] == [f"glyphs, {start}" for start in atlas.STARTS.values()]
    assert [len(line.get_xdata()) for line in mapped.axes[0].lines] == [2, 2, 2, 3, 3, 1]  # three episodes, the mean
    assert "nan" not in texts(mapped)


def test_every_control_of_the_panel_changes_the_figure():
    panel = correlation_widgets.explore(CONFIG)
    assert panel.message.value == ""
    for name, value in {
        "source": WITHIN, "initialisation": "different", "parameters": "spectra", "layer": "batch norms",
        "components": 3, "episodes": 12, "episode": 5,
    }.items():  # fmt: skip
        before = bytes(panel.image.value)
        panel.controls[name].value = value
        assert panel.message.value == "", name
        assert bytes(panel.image.value) != before, name
    panel.controls["source"].value = "glyphs"
    panel.controls["components"].value = 10
    assert "too few for 10 components" in panel.message.value


def test_the_map_has_a_panel(table):
    panel = correlation_widgets.explore_heat(table)
    before = bytes(panel.image.value)
    panel.controls["parameters"].value = "spectra"
    assert bytes(panel.image.value) != before
    assert WITHIN not in panel.controls["source"].options


@pytest.fixture
def grower(monkeypatch):
    """A panel that trains a few tiny networks."""
    monkeypatch.setattr(zoo_store, "CHUNK", 2)
    tiny = replace(CONFIG.training, width=2, epochs=1, batch_size=100)
    config = replace(CONFIG, sources=("glyphs",), initialisations=("same",), training=tiny, train_episodes=6)
    made = correlation_widgets.GrowPanel(config, correlation_widgets.explore(config))
    made.wanted.value = 10
    return made


def test_more_networks_are_trained_from_the_notebook(grower):
    grower.grow()
    grower.thread.join(60)
    assert grower.message.value.startswith("Done: 10 training episodes")
    assert grower.bar.value == grower.bar.max == 4
    assert grower.panel.controls["episodes"].max == 10
    assert (grower.start.disabled, grower.stop.disabled) == (False, True)
    grower.panel.controls["episodes"].value = 10  # the study with the new episodes is loaded
    assert grower.panel.message.value == ""


def test_training_can_be_cancelled_and_says_what_is_kept(grower, monkeypatch):
    grower.wanted.value = 40
    tell = grower._tell

    def press_after_a_chunk(name: str, done: int, total: int) -> bool:
        if done:
            grower.stop.click()
        return tell(name, done, total)

    monkeypatch.setattr(grower, "_tell", press_after_a_chunk)
    before = grower.panel.controls["episodes"].max
    grower.grow()
    grower.thread.join(60)
    assert "cancelled. 2 of" in grower.message.value
    assert "the next run goes on there" in grower.message.value
    assert grower.panel.controls["episodes"].max == before
    assert not grower.start.disabled
