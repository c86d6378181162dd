"""The study behind notebook 01, its linked figure's data, layers and data sets compared; panels only call these."""

import json

import numpy as np
import pytest

from pudnet_lib import load_pudnet
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.studies.study import POOLED, WITHIN, Cell, Study

GLYPHS = Cell("glyphs", feature="pixel statistics", components=2)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUDNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Study(("fashion", "glyphs"), ("same",), 16, 8, permutations=20)


@pytest.fixture(scope="module")
def notebook(notebook_functions):
    return notebook_functions("01_parameter_correlations")


@pytest.fixture(scope="module")
def data(study, notebook):
    return notebook.explorer_data(study, GLYPHS)


def test_pooled_values_are_those_of_the_strict_null(study):
    plain, strict = (study.canonical(GLYPHS._replace(source=source)) for source in (POOLED, WITHIN))
    assert plain.held_out.value == strict.held_out.value
    assert not np.array_equal(plain.held_out.null, strict.held_out.null)


def test_a_cell_uses_the_episodes_that_were_asked_for(study):
    fit, test = study.side(GLYPHS._replace(episodes=6), "parameters")
    assert (len(fit), len(test)) == (6, 8)
    fit, test = study.side(GLYPHS._replace(same_classes=True), "dataset")
    assert (len(fit), len(test)) == (11, 5)
    pooled = GLYPHS._replace(source=POOLED)
    assert study.side(pooled, "strata")[1].tolist() == [0] * 8 + [1] * 8
    assert study.side(GLYPHS, "class set")[0][0].startswith("glyphs ")


def test_impossible_cells_are_refused(study):
    for changes, words in (
        ({"episodes": 6, "components": 5}, "too few for 5 components"),
        ({"source": "glyph"}, "Did you mean 'glyphs'"),
        ({"initialisation": "different"}, "Unknown initialisation"),
    ):
        with pytest.raises(PudNetError, match=words):
            study.canonical(GLYPHS._replace(**changes))
    with pytest.raises(PudNetError, match="at least one source"):
        Study((), ("same",), 16, 8)


def test_the_figure_holds_every_cell_and_one_scale(study, data):
    assert len(data["cells"]) == len(data["layers"]) * len(data["features"]) == 20
    found, own = study.canonical(GLYPHS), data["cells"]["whole network|pixel statistics"]
    assert own["r"] == pytest.approx(found.spectrum, abs=1e-3)
    assert own["mean"] == pytest.approx(found.held_out.value, abs=1e-3)
    np.testing.assert_allclose(own["points"][1], found.scores[..., 1].T, atol=1e-3)
    assert max(np.abs(cell["points"]).max() for cell in data["cells"].values()) < data["limit"]
    first, zoo = data["episodes"][0], study.zoos["glyphs", "same"]
    assert first["classes"] == zoo.episodes.names("held-out", 0)
    assert first["accuracy"] == pytest.approx(zoo.held_out.accuracy[0], abs=0.1)
    assert first["picture"].startswith("data:image/webp;base64,")
    assert len(data["episodes"]) == 8


def test_the_page_is_one_file_that_asks_for_nothing(data, notebook):
    text = notebook.page(data | {"layers": [*data["layers"], "</script><b>"]}, "a < b")
    assert "<title>a &lt; b</title>" in text
    assert "export default" not in text
    assert text.count("</script>") == 1
    assert 'src="http' not in text


def test_an_episode_of_the_zoo_is_placed_where_it_lies(study, notebook):
    """Held-out episode 2, given as a data set of one's own: the same description, the same training, the same point."""
    own = study.zoos["glyphs", "same"].episodes.dataset("held-out", 2)
    placed = notebook.place(study, GLYPHS, own)
    np.testing.assert_allclose(placed, study.canonical(GLYPHS).scores[2], atol=0.05)  # shipped in float16
    shown = notebook.explorer_data(study, GLYPHS, [own])
    assert shown["added"] == ["glyphs, episode 2"]
    assert np.shape(shown["cells"]["batch norms|HOG"]["added"]) == (2, 2, 1)
    single = ImageDataset(own.images[:20], own.labels[:20], own.class_names[:1], "one")
    with pytest.raises(PudNetError, match="one: expected RGB images of two classes or more"):
        notebook.place(study, GLYPHS, single)


def test_every_control_of_the_panel_changes_the_figure(study, notebook):
    panel = notebook.ExplorePanel(study, 2)
    for name, value in {"source": "glyphs", "parameters": "spectra", "components": 3, "episodes": 12}.items():
        before = panel.figure.data
        panel.controls[name].value = value
        assert panel.message.value == "", name
        assert panel.figure.data != before, name
    assert json.dumps(panel.figure.data)  # it can be sent to a browser
    panel.figure.pair, panel.figure.episode, panel.figure.selected = 2, 7, [1, 2]
    panel.figure.layer = "convolution 2"
    assert panel.cell == Cell("glyphs", "same", "convolution 2", "HOG", "spectra", 3, 12)
    panel.controls["components"].value = 2
    assert (panel.figure.pair, panel.figure.episode, panel.figure.selected) == (1, 7, [])
    before = panel.figure.data
    panel.controls["components"].value = 10
    assert "too few for 10 components" in panel.message.value
    assert panel.figure.data is before


def test_a_change_that_a_newer_one_has_overtaken_is_dropped(study, notebook, monkeypatch):
    import asyncio

    panel, drawn = notebook.ExplorePanel(study, 2), []
    monkeypatch.setattr(panel, "redraw", lambda: drawn.append(panel.controls["components"].value))

    async def move() -> None:
        for value in (3, 1, 2, 4):
            panel.controls["components"].value = value
        await asyncio.sleep(0.4)

    asyncio.run(move())
    assert drawn == [4]


def test_layers_compared_by_hand(notebook):
    trained = np.array([[3.0, 4.0], [1.0, 0.0]]).reshape(2, 1, 1, 2)
    predicted = np.array([[4.0, 3.0], [-2.0, 0.0]]).reshape(2, 1, 1, 2)
    found = notebook.LayerView(trained, predicted, 2 * trained, np.full((2, 1, 1, 2), [3.0, 4.0]))
    assert found.cosines["predicted"] == pytest.approx([24 / 25, -1])
    assert found.cosines["mean"] == pytest.approx([1, 1])
    assert found.off_the_mean == pytest.approx(100 * np.sqrt((1 + 1 + 25 + 16) / 50))


def test_two_data_sets_side_by_side(study, notebook):
    episodes = study.zoos["glyphs", "same"].episodes
    a, b = (episodes.dataset("held-out", number) for number in (0, 1))
    same, other = (notebook.compare_datasets(load_pudnet(), a, data).set_index("what") for data in (a, b))
    assert list(same.index) == ["HOG", "pixel statistics", "convolution 1", "convolution 2", "convolution 3"]
    assert same["cosine"].to_numpy() == pytest.approx(1)
    assert same["difference (%)"].max() < 1e-3
    assert (other["difference (%)"] > same["difference (%)"]).all()
