from __future__ import annotations

import types
from dataclasses import dataclass

import pandas as pd
import pytest

from pudnet_lib.batch import Headline, publish, summarise
from pudnet_lib.batch.places import file_stem, project_root, results_folder
from pudnet_lib.batch.results import svg_text
from pudnet_lib.errors import PudNetError
from pudnet_lib.plots import colour_of, curve, figure, intervals
from pudnet_lib.results import read_result
from pudnet_lib.studies import configure


@dataclass(frozen=True)
class Config:
    seed: int = 0
    width: int = 8


def experiment() -> types.ModuleType:
    module = types.ModuleType("pudnet_lib.studies.toy")
    module.TITLE, module.QUESTION = "Toy", "Does it?"
    module.PROFILES = {"smoke": Config(width=2), "laptop": Config()}
    return module


TABLE = pd.DataFrame(
    {"method": ["PudNet"] * 4 + ["chance"], "dataset": "toy", "metric": "top-1", "seed": [0, 0, 1, 1, 0],
     "value": [1.0, 2.0, 3.0, 4.0, 9.0], "chance": 25.0}
)  # fmt: skip


def test_summarise_matches_a_computation_by_hand():
    rows = summarise(TABLE)
    first = rows.iloc[0]
    # Mean 2.5, standard error sqrt(5/3)/2 = 0.6455, t(0.975, 3) = 3.1824.
    assert first["mean"] == pytest.approx(2.5)
    assert first["high"] - first["mean"] == pytest.approx(3.1824 * 0.6455, rel=1e-3)
    assert first["mean"] - first["low"] == pytest.approx(3.1824 * 0.6455, rel=1e-3)
    assert (first["n"], first["seeds"], first["chance"]) == (4, 2, 25.0)
    assert rows.iloc[1]["n"] == 1
    assert pd.isna(rows.iloc[1]["low"])


def test_summarise_needs_values():
    with pytest.raises(PudNetError, match="'value'"):
        summarise(TABLE.drop(columns="value"))


def drawn():
    made, axes = figure()
    intervals(summarise(TABLE), axes[0, 0])
    return made


def test_publish_by_hand_writes_smoke_results_where_nothing_is_committed(project, monkeypatch, capsys):
    module = experiment()
    config = configure(module.PROFILES, "smoke")
    head = [Headline("Toy", "top-1", 1, 2, 3, 4, 5)]
    path = publish(
        module, TABLE, config, "smoke", answer="Yes.", headline=head, figures={"dots": (drawn(), "Dots in a row")}
    )
    assert path == project / "runs" / "smoke" / "results" / "toy.smoke.json"
    assert not (project / "reports").exists()
    result = read_result(path)
    assert result["question"] == "Does it?"
    assert (path.parent / result["figures"][0]["file"]).read_text().startswith("<svg")
    assert str(project) not in capsys.readouterr().out


def test_only_an_unchanged_laptop_config_goes_to_the_committed_results(project):
    module = experiment()
    same, other = configure(module.PROFILES, "laptop", seed=3), configure(module.PROFILES, "laptop", width=9)
    assert publish(module, TABLE, same, "laptop", answer="Yes.").parent == project / "reports" / "results"
    assert publish(module, TABLE, other, "laptop", answer="Yes.").parent == project / "runs" / "laptop" / "results"


def test_a_batch_says_where_results_go_and_which_variant_it_is(project, monkeypatch, tmp_path):
    monkeypatch.setenv("PUDNET_RESULTS", str(tmp_path / "out"))
    monkeypatch.setenv("PUDNET_VARIANT", "width=9, seed=1")
    module = experiment()
    path = publish(module, TABLE, Config(1, 9), "laptop", answer="Yes.", seconds=2.0)
    assert path == tmp_path / "out" / "toy.laptop.width=9.seed=1.json"
    assert read_result(path)["variant"] == "width=9, seed=1"
    assert read_result(path)["provenance"]["seconds"] == 2.0


def test_a_module_without_question_is_an_error(project):
    module = experiment()
    del module.QUESTION
    with pytest.raises(PudNetError, match="QUESTION"):
        publish(module, TABLE, Config(), "laptop", answer="Yes.")


def test_file_stems_have_no_spaces_or_slashes():
    assert file_stem("a.laptop", "kind=x y/z, seed=1") == "a.laptop.kind=x-y-z.seed=1"


def test_the_same_figure_gives_the_same_svg_and_text_stays_text():
    first, second = svg_text(drawn(), "one"), svg_text(drawn(), "one")
    assert first == second
    assert ">PudNet</text>" in first
    assert 'id="background-figure"' in first
    assert "<metadata" not in first


def test_a_huge_figure_is_refused(monkeypatch):
    monkeypatch.setattr("pudnet_lib.batch.results.MAX_SVG_BYTES", 100)
    with pytest.raises(PudNetError, match="rasterized"):
        svg_text(drawn(), "one")


def test_figures_show_themselves_and_leave_matplotlib_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    made, axes = figure()
    rows = pd.DataFrame({"mean": [1.0, 2.0], "low": [0.5, 1.5], "high": [1.5, 2.5]})
    assert curve(axes[0, 0], [1, 2], rows, "PudNet") is axes[0, 0]
    assert made._repr_png_().startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before
    assert colour_of("PudNet", 5) == "#0072B2"
    assert colour_of("another", 1) == "#D55E00"
    assert colour_of("Adam, 1 epoch") == colour_of("GC, 30 epochs") == colour_of("from scratch")


def test_places_without_any_variable(monkeypatch, tmp_path):
    monkeypatch.delenv("PUDNET_ROOT", raising=False)
    monkeypatch.delenv("PUDNET_RESULTS", raising=False)
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert project_root() == tmp_path
    assert results_folder("laptop") == tmp_path / "reports" / "results"
    assert results_folder("smoke") == tmp_path / "runs" / "smoke" / "results"


def test_a_variant_of_a_method_has_the_variants_colour():
    assert colour_of("PudNet, far swap") == colour_of("far swap") != colour_of("PudNet")


def test_counters_are_not_averaged():
    assert "episode" not in summarise(TABLE.assign(episode=[0, 1, 2, 3, 0]))
