"""The experiment from end to end on a tiny zoo; its words; the atlas by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pudnet_lib.errors import PudNetError
from pudnet_lib.studies import atlas
from pudnet_lib.studies import parameter_correlations as experiment
from pudnet_lib.studies.correlation_study import CKA, MANTEL, POOLED, WITHIN, Choice, Config, Study

TINY = Config(
    ("fashion", "glyphs"), ("same",), 16, 8, ("pixel statistics",), 2, 20, atlas=atlas.AtlasConfig(2, 2)
)  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUDNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Study(TINY)


@pytest.fixture(scope="module")
def table(loaded) -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "study", lambda config: loaded)
        return experiment.run(TINY)


def test_every_cell_is_measured_and_nothing_is_nan(table):
    assert len(experiment.choices(TINY)) == 4 * 3 * 5
    cells = table[table["metric"] == experiment.HELD_OUT]
    assert set(cells["dataset"]) == {"fashion", "glyphs", POOLED, WITHIN}
    assert len(cells) == 60
    assert set(table["metric"]) == {experiment.HELD_OUT, experiment.SAME_CLASSES, experiment.IN_SAMPLE, CKA, MANTEL}
    assert table[["value", "null_mean", "null_high", "p", "p_adjusted", "n"]].notna().all().all()
    assert cells[["low", "high", "p_transfer"]].notna().all().all()
    assert table["value"].between(-1, 1).all()
    assert (table["p_adjusted"] >= table["p"] - 1e-12).all()


def test_answer_and_rows_for_the_result_file(table):
    answer = experiment.answer(table)
    assert "fashion" in answer
    assert "glyphs" in answer
    assert "pixel statistics and flattened weights on held-out classes, same initialisation" in answer
    assert "of 30 cells survive" in answer
    facts = {"start": "random start", "dataset": "fashion", "method": "own prediction"}
    distances = pd.DataFrame([facts | {"episode": episode, "value": value} for episode, value in enumerate((0.5, 1.5))])
    rows = experiment.result_rows(table, distances)
    assert set(rows["method"]) == {"pixel statistics × weights", "pixel statistics × norms", "atlas: own prediction"}
    assert rows["mean"].notna().all()
    assert rows["mean"].iloc[-1] == 1.0


def test_pooled_values_are_those_of_the_strict_null(loaded):
    plain, strict = (
        loaded.canonical(Choice(source, dataset_feature="pixel statistics", components=2))
        for source in (POOLED, WITHIN)
    )
    assert plain.held_out.value == strict.held_out.value
    assert not np.array_equal(plain.held_out.null, strict.held_out.null)


def test_a_cell_uses_the_episodes_that_were_asked_for(loaded):
    choice = Choice("glyphs", dataset_feature="pixel statistics")
    fit, test = loaded.side(replace(choice, episodes=6), "parameters")
    assert (len(fit), len(test)) == (6, 8)
    fit, test = loaded.side(replace(choice, same_classes=True), "dataset")
    assert (len(fit), len(test)) == (11, 5)
    assert loaded.side(replace(choice, source=POOLED), "strata")[1].tolist() == [0] * 8 + [1] * 8
    assert loaded.side(choice, "class set")[0][0].startswith("glyphs ")
    with pytest.raises(PudNetError, match="too few for 5 components"):
        loaded.canonical(replace(choice, episodes=6))
    with pytest.raises(PudNetError, match="Did you mean 'glyphs'"):
        loaded.canonical(replace(choice, source="glyph"))
    with pytest.raises(PudNetError, match="Unknown zoo"):
        loaded.canonical(replace(choice, initialisation="different"))


def test_the_table_of_the_zoo(loaded, monkeypatch):
    monkeypatch.setattr(experiment, "study", lambda config: loaded)
    rows = experiment.zoo_table(TINY)
    assert rows["episodes"].tolist() == [16, 8] * 2
    assert rows["diverged"].sum() == 0
    fashion = rows.iloc[1]
    assert fashion["different sets of classes"] <= 4
    assert fashion["accuracy (%)"] > fashion["chance (%)"]


def test_a_config_without_entries_is_refused():
    with pytest.raises(PudNetError, match="an entry each"):
        Study(replace(TINY, sources=()))


def test_verdicts_in_words():
    assert experiment.verdict(0.2, 0.31, 0.01) == (
        "Does not survive the null: r = 0.20; 31 % of shuffled pairings do as well."
    )
    assert "not the stricter null: r = 0.40 is no better" in experiment.verdict(0.4, 0.01, 0.2)
    assert experiment.verdict(0.5, 0.001, np.nan).startswith("Survives the null: r = 0.50; 0.1 %")


def test_the_atlas_by_hand():
    trained = np.array([[0.0, 0.0], [3.0, 4.0]])
    predicted = np.array([[0.0, 1.0], [3.0, 0.0]])
    found = atlas.guess_distances(trained, predicted, {"origin": np.zeros(2)})
    assert found[atlas.OWN].tolist() == [1, 4]
    assert found[atlas.OTHER] == pytest.approx([3, np.hypot(3, 3)])
    assert found["origin"].tolist() == [0, 5]
    with pytest.raises(PudNetError, match="at least 2"):
        atlas.guess_distances(trained[:1], predicted[:1], {})


def test_filters_get_length_one_and_zero_stays_zero():
    tensor = np.zeros((1, 2, 1, 2, 2))
    tensor[0, 0] = 3
    assert atlas.unit_filters([tensor, 7 * tensor]).tolist() == [[0.5] * 4 + [0] * 4 + [0.5] * 4 + [0] * 4]


def test_the_atlas_answers_in_words():
    values = {atlas.OWN: [0.8, 0.9], atlas.OTHER: [0.9, 1.0], atlas.MEAN_PREDICTED: [1, 1], atlas.MEAN_TRAINED: [1, 1]}
    rows = [
        {"method": method, "dataset": "toy", "start": "random start", "episode": episode, "value": value}
        for method, pair in values.items()
        for episode, value in enumerate(pair)
    ]
    answer = atlas.atlas_answer(pd.DataFrame(rows))
    assert "at 0.850 [0.215, 1.485] times" in answer
    assert "as near as the mean" in answer
    assert "another episode's prediction is 0.1000 [+0.1000, +0.1000] farther off" in answer
    assert "the mean of predictions 0.1500 [-0.4853, +0.7853] farther off" in answer
    nearer = pd.DataFrame(rows).replace({"method": {atlas.OWN: atlas.MEAN_PREDICTED, atlas.MEAN_PREDICTED: atlas.OWN}})
    assert "the mean of predictions 0.1500 [-0.4853, +0.7853] nearer" in atlas.atlas_answer(nearer)
    published = atlas.atlas_rows(pd.DataFrame(rows)).set_index("method")
    assert published.loc[f"atlas: {atlas.OWN}", "mean"] == pytest.approx(0.85)
    assert published["n"].tolist() == [2] * 4


def test_a_tiny_atlas(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    atlas.landscape.cache_clear()
    found = atlas.distances(("glyphs",), atlas.AtlasConfig(2, 2, epochs=1))
    assert set(found["method"]) == set(atlas.GUESSES)
    assert set(found["start"]) == set(atlas.STARTS.values())
    assert found["value"].notna().all()
    assert (found[found["method"] == atlas.MEAN_TRAINED]["value"] == 1).all()
    atlas.landscape.cache_clear()
