from __future__ import annotations

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from pudnet_lib import publish
from pudnet_lib.errors import PudNetError
from pudnet_lib.results import below, drawing, file_stem, fingerprint, project_root, read_result, results_folder

TABLE = pd.DataFrame([{"method": "PudNet", "dataset": "toy", "metric": "top-1", "mean": 50.0, "seconds": 0.1}])


def drawn() -> Figure:
    made = Figure()
    axes = made.subplots()
    axes.plot([1, 2], label="PudNet")
    axes.legend()
    return made


def given(**changes):
    return {
        "question": "Does it?",
        "answer": "Yes.",
        "config": {"seed": 3, "sizes": {"width": 2}},
        "profile": "smoke",
    } | changes


def test_publish_by_hand_writes_where_nothing_is_committed(project, capsys):
    head = {"setting": "Toy", "metric": "top-1", "scratch": 1, "scratch_seconds": 2, "predicted": 3,
            "predicted_seconds": 4, "chance": 5}  # fmt: skip
    for profile in ("smoke", "laptop"):
        figures = {"dots": (drawn(), "Dots in a row")}
        path = publish("toy", TABLE, figures, headline=[head], **given(profile=profile))
        assert path == project / "reports" / "runs" / profile / "by-hand" / "results" / f"toy.{profile}.json"
        result = read_result(path)
        assert (result["question"], result["title"], result["provenance"]["seed"]) == ("Does it?", "Toy", 3)
        assert result["provenance"]["threads"] >= 1
        assert (path.parent / result["figures"][0]["file"]).read_text().startswith("<svg")
        assert pd.read_csv(path.with_suffix(".csv")).to_dict("records") == TABLE.to_dict("records")
        printed = capsys.readouterr().out
        assert str(project) not in printed
        assert printed == f"Published toy.{profile}: 1 rows, numbers {fingerprint(result)}\n"


def test_a_batch_says_where_results_go_and_which_variant_it_is(project, monkeypatch, tmp_path):
    monkeypatch.setenv("PUDNET_RESULTS", str(tmp_path / "out"))
    monkeypatch.setenv("PUDNET_VARIANT", "width=9, seed=1")
    path = publish("toy", TABLE, variant="b", **given())
    assert path == tmp_path / "out" / "toy.smoke.width=9.seed=1.b.json"
    assert read_result(path)["variant"] == "width=9, seed=1, b"


@pytest.mark.parametrize(
    ("table", "changes", "words"),
    [
        (TABLE.drop(columns="metric"), {}, "no column metric, but method, dataset"),
        (TABLE, {"profile": "smok"}, "'smok'.*'smoke'"),
        (TABLE, {"answer": ""}, "no valid result"),
        (TABLE.assign(mean="high"), {}, "no valid result"),
    ],
)
def test_what_does_not_fit_is_said_and_not_written(project, table, changes, words):
    with pytest.raises(PudNetError, match=words):
        publish("toy", table, {"dots": (drawn(), "Dots in a row")}, **given(**changes))
    assert not (project / "reports").exists()


def test_file_names_are_plain_and_what_they_cannot_hold_is_in_a_hash():
    assert file_stem("a.laptop", "kind=x, seed=1") == "a.laptop.kind=x.seed=1"
    assert file_stem("a.laptop", "kind=x y/z").startswith("a.laptop.kind=x-y-z-")
    assert len({file_stem("a", v) for v in ("k=a b", "k=a-b", "k=A-b", "k=猫", "k=犬")}) == 5
    assert len(file_stem("a", "k=" + "x" * 300)) < 100


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "", "a/../../b", "a\0b"])
def test_names_from_files_stay_below_their_folder(tmp_path, name):
    with pytest.raises(PudNetError, match="is no name of a file"):
        below(tmp_path, name)
    assert below(tmp_path, "site/a.html") == tmp_path / "site" / "a.html"


def test_the_same_figure_gives_the_same_svg_and_text_stays_text():
    (kind, first), (_, second) = drawing(drawn(), "one"), drawing(drawn(), "one")
    assert kind == "svg"
    assert first == second
    assert b">PudNet</text>" in first
    assert b'id="background-figure"' in first
    assert b"<metadata" not in first
    before = dict(mpl.rcParams)
    drawing(drawn().axes[0], "one")  # what has a figure is taken, too
    assert dict(mpl.rcParams) == before


def test_a_huge_drawing_is_kept_as_a_picture(monkeypatch):
    monkeypatch.setattr("pudnet_lib.results.MAX_SVG_BYTES", 100)
    assert drawing(drawn(), "one")[0] == "png"
    assert drawing(drawn(), "one")[1].startswith(b"\x89PNG")


def test_places_without_any_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("PUDNET_ROOT", raising=False)
    monkeypatch.delenv("PUDNET_RESULTS", raising=False)
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert project_root() == tmp_path
    assert results_folder("laptop") == tmp_path / "reports" / "runs" / "laptop" / "by-hand" / "results"
