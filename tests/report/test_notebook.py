from __future__ import annotations

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
    with_outputs,
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


def test_a_notebook_without_profile_runs_without_it(notebook):
    assert check_parameters(notebook("01_toy", parameters="x: int = 1"), {"profile": "smoke"}) == {}


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("seed: int = 0\nwidth: int = = 3", "cell 2 .parameters., line 2: 'width: int = = 3' is no Python"),
        ("%matplotlib inline\nseed: int = 0", "'%matplotlib inline' is no Python; move it to another cell"),
        ("!pip install x", "'!pip install x' is no Python"),
        ("a, b = 1, 2", "sets no single name"),
    ],
)
def test_a_parameters_cell_that_is_no_plain_python_is_one_line_with_the_fix(notebook, parameters, words):
    with pytest.raises(PudNetError, match=words) as error:
        declared_parameters(notebook("01_toy", parameters=parameters))
    assert "\n" not in str(error.value)


def test_annotations_may_be_unions_and_containers(notebook):
    cell = (
        "a: int | None = None\nb: list[str] = []\nc: Literal['x', 'y'] = 'x'\nd: Path = None\ne: tuple[int, ...] = ()"
    )
    path = notebook("01_toy", parameters=cell)
    good = {"a": None, "b": ["z"], "c": "y", "d": 3, "e": (1, 2)}
    assert check_parameters(path, good | {"e": [1, 2]}) == good
    for bad in ({"a": "1"}, {"b": [1]}, {"c": "z"}, {"e": ["1"]}):
        with pytest.raises(PudNetError, match="of 01_toy"):
            check_parameters(path, bad)


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


def test_committed_outputs_hold_no_bars_places_times_or_counts(notebook, tmp_path):
    import base64
    import io

    import numpy as np
    from PIL import Image

    path = notebook("01_toy", "x", "y", "z")
    source = read_notebook(path)
    executed = read_notebook(path)
    executed.cells.insert(2, v4.new_code_cell("profile = 'laptop'", metadata={"tags": ["injected-parameters"]}))
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)).save(picture, "PNG")
    png = base64.b64encode(picture.getvalue()).decode()
    first, second, third = executed.cells[-3:]
    first.outputs = [
        v4.new_output("stream", name="stderr", text="UserWarning: no\n"),
        v4.new_output("stream", name="stdout", text=f"train: 3%|#  | 1/30 [00:01, 2.1it/s]\nkept {tmp_path}/a.txt\n"),
        v4.new_output("stream", name="stdout", text=f"in {tmp_path} and {'/home'}/ann/x/y.txt, 0x7f0011223344\n"),
    ]
    second.outputs = [
        v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "m"}}),
        v4.new_output(
            "execute_result", {"image/png": png, "image/svg+xml": "<svg/>", "text/plain": "F"}, execution_count=3
        ),
    ]
    third.metadata["papermill"] = {"start_time": "2026"}
    made = with_outputs(path, executed, tmp_path)
    assert [cell.source for cell in made.cells] == [cell.source for cell in source.cells]
    assert [o.text for o in made.cells[-3].outputs] == ["kept ./a.txt\n", "in . and y.txt, 0x0\n"]
    (figure,) = made.cells[-2].outputs
    assert set(figure.data) == {"image/png", "text/plain"}
    assert len(figure.data["image/png"]) < len(png)
    counts = [cell.execution_count for cell in made.cells if cell.cell_type == "code"]
    assert counts == [*range(1, len(counts) + 1)]
    assert figure.execution_count == made.cells[-2].execution_count
    assert "papermill" not in made.cells[-1].metadata
    nbformat.validate(made)
    second.outputs[1].data["text/plain"] = "x" * 700_000
    with pytest.raises(PudNetError, match=r"01_toy.ipynb takes 7.. kB.*starts with 'y'"):
        with_outputs(path, executed, tmp_path)


def test_strip_keeps_jupytext_and_refuses_other_languages(notebook):
    path = notebook("01_toy")
    made = nbformat.read(path, 4)
    made.metadata["jupytext"] = {"formats": "ipynb,py"}
    nbformat.write(made, path)
    strip_file(path)
    assert nbformat.read(path, 4).metadata.jupytext.formats == "ipynb,py"
    made.metadata["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    nbformat.write(made, path)
    with pytest.raises(PudNetError, match="notebook in R"):
        strip_file(path)
