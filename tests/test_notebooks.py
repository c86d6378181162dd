"""The house rules of the committed notebooks; their cells are run and compared by nbval (see the Makefile)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pudnet_lib.batch.notebook import declared_parameters, parameters_cell, read_notebook
from pudnet_lib.results import fingerprint, read_result

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_CELL, MIN_CODE, MIN_COMPARED, MAX_BYTES = 30, 110, 4, 600_000
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
#: An unnumbered notebook teaches and publishes nothing.
each_experiment = pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem[0].isdigit()], ids=lambda p: p.stem)


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in read_notebook(path).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_opens_with_title_and_question(path):
    notebook = read_notebook(path)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert len(notebook.cells[0].source.split("\n\n")) >= 2, "a question below the title"


@each
def test_its_parameters_are_annotated_literals_and_profile_and_seed_are_there(path):
    declared = declared_parameters(path)
    assert (declared["profile"], declared["seed"]) == (str, int)
    source = parameters_cell(read_notebook(path)).source
    assert "current_profile()" in source
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            assert isinstance(node, ast.AnnAssign), f"annotate {ast.unparse(node)}"
            if getattr(node.target, "id", "") != "profile":
                ast.literal_eval(node.value)


@each
def test_it_carries_its_experiment_in_cells_of_a_screen(path):
    sources = code_of(path)
    longest = max(sources, key=lambda source: len(source.splitlines()))
    assert len(longest.splitlines()) <= MAX_CELL, longest
    lines = [line.strip() for source in sources for line in source.splitlines()]
    assert sum(bool(line) and not line.startswith("#") for line in lines) >= MIN_CODE


@each
def test_its_outputs_are_committed_compared_and_drawn(path):
    cells = [cell for cell in read_notebook(path).cells if cell.cell_type == "code"]
    tagged = [cell for cell in cells if "nbval-check-output" in cell.metadata.get("tags", ())]
    assert all(cell.outputs for cell in tagged), "a compared cell has no output: pudnet reproduce --commit"
    assert len(tagged) >= MIN_COMPARED
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no figure"
    assert not [output for output in outputs if output.output_type == "error"]


@each_experiment
def test_its_published_numbers_are_those_of_its_result_file(path):
    outputs = [o for cell in read_notebook(path).cells for o in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    published = re.findall(r"Published (\S+): \d+ rows, numbers (\w{12})", printed)
    assert published, "no publish() has run: pudnet reproduce --commit"
    for stem, numbers in published:
        result = read_result(ROOT / "reports" / "results" / f"{stem}.json")
        assert fingerprint(result) == numbers, f"{stem}.json is another run's: pudnet reproduce --commit"
        assert result["profile"] == "laptop"


@each
def test_it_is_light_and_names_no_place(path):
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size <= MAX_BYTES
    assert not re.search(r"/(root|home|tmp|work|Users)/|[A-Za-z]:\\\\\\\\|file://", text)
    assert not re.search(r"it/s\]|s/it\]|Warning:", text), "a progress bar or a warning: pudnet reproduce --commit"


@each
def test_it_has_no_shell_lines_devices_or_paths(path):
    for source in code_of(path):
        assert not re.search(r"^\s*[!%]", source, re.MULTILINE), source
        assert not re.search(r"\.cuda\(|device\(['\"]cuda|\.to\(['\"]cuda", source), source
        assert not re.search(r"['\"](~?/\w|[A-Za-z]:\\|\.\./)", source), source


@each
def test_it_imports_the_public_face_alone(path):
    tree = ast.parse("\n".join(code_of(path)))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert "pudnet_lib.batch" not in modules, "from pudnet_lib import publish"
    assert not modules & {"pudnet_lib.studies", "pudnet_lib.figures"}


@each_experiment
def test_it_hands_its_results_over(path):
    assert re.match(r"(\w+ = )?publish\(", code_of(path)[-1].lstrip()), "end with publish(…)"
    assert path.stem.endswith(re.search(r"publish\(\s*['\"](\w+)['\"]", code_of(path)[-1])[1])
