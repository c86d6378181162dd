"""What every committed notebook keeps to; their cells are run by nbval (see the Makefile)."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import nbformat
import pytest

from pudnet_lib.batch.notebook import declared_parameters, experiment_id, read_notebook, strip, title_of
from pudnet_lib.profiles import PROFILE_NAMES

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]


@each
def test_it_is_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    assert not strip(notebook), f"run: pudnet strip {path.relative_to(ROOT)}"


@each
def test_its_first_cells_are_title_question_and_parameters(path):
    notebook = read_notebook(path)
    assert notebook.cells[0].cell_type == "markdown"
    assert title_of(notebook)
    declared = declared_parameters(path)
    assert declared["profile"] is str
    assert declared["seed"] is int
    assert "current_profile()" in next(c.source for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))


@each
def test_it_belongs_to_an_experiment_that_says_the_same(path):
    module = importlib.import_module(f"pudnet_lib.studies.{experiment_id(path)}")
    first = read_notebook(path).cells[0].source
    assert title_of(read_notebook(path)) == module.TITLE
    assert module.QUESTION in " ".join(first.split())
    assert set(module.PROFILES) == set(PROFILE_NAMES)


@each
def test_it_is_thin(path):
    for source in code_of(path):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
                assert (node.end_lineno or 0) - node.lineno < 10, "move this function into pudnet_lib"


@each
def test_it_has_no_shell_lines_devices_or_paths(path):
    for source in code_of(path):
        assert not re.search(r"^\s*[!%]", source, re.MULTILINE), source
        assert not re.search(r"\.cuda\(|device\(['\"]cuda|\.to\(['\"]cuda", source), source
        assert not re.search(r"['\"](~?/|[A-Za-z]:\\|\.\./)", source), source


@each
def test_it_hands_its_results_over(path):
    assert code_of(path)[-1].lstrip().startswith(("publish(", "path = publish(", "_ = publish(")), "end with publish(…)"
