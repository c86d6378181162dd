from __future__ import annotations

import sys
import types
from dataclasses import dataclass
from typing import Any

import nbformat
import pytest
from nbformat import v4

from pudnet_lib.batch.notebook import (
    check_parameters,
    declared_parameters,
    experiment_id,
    read_notebook,
    strip_file,
    title_of,
)
from pudnet_lib.errors import PudNetError


def test_parameters_have_the_types_that_the_cell_states(notebook):
    path = notebook("01_toy")
    assert declared_parameters(path) == {
        "profile": str, "seed": int, "width": int, "names": list, "rate": float
    }  # fmt: skip


def test_types_come_from_literals_where_there_is_no_annotation(notebook):
    path = notebook("01_toy", parameters="a = 1\nb = [1, 2]\nc = None\nd = f()  # what f says")
    assert declared_parameters(path) == {"a": int, "b": list, "c": Any, "d": Any}


def test_good_parameters_pass_and_an_int_is_a_float(notebook):
    given = {"profile": "smoke", "seed": 1, "rate": 2, "names": ["x"]}
    assert check_parameters(notebook("01_toy"), given) == {"profile": "smoke", "seed": 1, "rate": 2.0, "names": ["x"]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sed": 1}, "'sed'.*Did you mean 'seed'"),
        ({"seed": "one"}, "seed of 01_toy.ipynb is 'one'"),
        ({"rate": [1]}, "rate"),
    ],
)
def test_wrong_parameters_are_an_error(notebook, given, words):
    with pytest.raises(PudNetError, match=words):
        check_parameters(notebook("01_toy"), given)


def test_fields_of_the_experiments_config_go_into_overrides(notebook, monkeypatch):
    @dataclass(frozen=True)
    class Config:
        seed: int = 0
        alpha: float = 0.1

    Config.__module__ = __name__
    module = types.ModuleType("pudnet_lib.studies.toy")
    module.PROFILES = {"smoke": Config(), "laptop": Config()}
    monkeypatch.setitem(sys.modules, "pudnet_lib.studies.toy", module)
    path = notebook(
        "01_toy", parameters="profile: str = 'smoke'\nseed: int = 0\noverrides: dict = {}  # any other field"
    )
    assert check_parameters(path, {"profile": "smoke", "alpha": 0.2}) == {
        "profile": "smoke", "overrides": {"alpha": 0.2}
    }  # fmt: skip
    with pytest.raises(PudNetError, match=r"'alpah'.*Did you mean 'alpha'"):
        check_parameters(path, {"profile": "smoke", "alpah": 0.2})
    with pytest.raises(PudNetError, match="expected float"):
        check_parameters(path, {"profile": "smoke", "alpha": "big"})
    other = notebook("02_other", parameters="overrides: dict = {}")
    with pytest.raises(PudNetError, match=r"no pudnet_lib\.studies\.other"):
        check_parameters(other, {"profile": "smoke", "alpha": 0.2})


def test_a_notebook_without_profile_runs_without_it(notebook):
    assert check_parameters(notebook("01_toy", parameters="x: int = 1"), {"profile": "smoke"}) == {}


def test_a_line_that_papermill_cannot_read_is_an_error(notebook):
    with pytest.raises(PudNetError, match="parameter width;"):
        declared_parameters(notebook("01_toy", parameters="seed: int = 0\nwidth: int = f(x=1)"))


def test_a_missing_parameters_cell_is_an_error(notebook):
    with pytest.raises(PudNetError, match="no cell tagged"):
        declared_parameters(notebook("01_toy", parameters=None))


def test_a_file_that_is_no_notebook_is_an_error(tmp_path):
    with pytest.raises(PudNetError, match="no notebook"):
        read_notebook(tmp_path / "none.ipynb")
    (tmp_path / "bad.ipynb").write_text("not json")
    with pytest.raises(PudNetError, match="is no notebook"):
        read_notebook(tmp_path / "bad.ipynb")


def test_strip_removes_what_a_run_leaves_and_is_idempotent(notebook):
    path = notebook("01_toy", "1 + 1")
    made = nbformat.read(path, 4)
    made.cells[-1].outputs = [v4.new_output("execute_result", {"text/plain": "2"}, execution_count=3)]
    made.cells[-1].execution_count = 3
    made.metadata["widgets"] = {"state": {}}
    made.metadata["papermill"] = {"duration": 1}
    made.metadata["kernelspec"] = {"name": "my-environment", "display_name": "Mine"}
    nbformat.write(made, path)
    assert strip_file(path)
    clean = nbformat.read(path, 4)
    assert clean.cells[-1].outputs == []
    assert clean.cells[-1].execution_count is None
    assert clean.metadata.kernelspec.name == "python3"
    assert set(clean.metadata) == {"kernelspec", "language_info"}
    assert clean.cells[1].metadata.tags == ["parameters"]
    before = path.read_bytes()
    assert not strip_file(path)
    assert path.read_bytes() == before


def test_names(notebook):
    path = notebook("02_intra_dataset")
    assert experiment_id(path) == "intra_dataset"
    assert title_of(read_notebook(path)) == "Title of 02_intra_dataset"
