from __future__ import annotations

import pytest

from pudnet_lib.batch import reproduce as plan
from pudnet_lib.batch.reproduce import find_notebooks, make_jobs, package_digest, variants
from pudnet_lib.cli import parse_grid, parse_value
from pudnet_lib.errors import PudNetError


def test_notebooks_are_found_by_path_name_number_and_experiment(project, notebook):
    first, second = notebook("01_alpha"), notebook("02_beta_two")
    folder = project / "notebooks"
    assert find_notebooks([], folder) == [first, second]
    for name in ("02", "02_beta_two", "02_beta_two.ipynb", "beta_two", str(second)):
        assert find_notebooks([name], folder) == [second]
    with pytest.raises(PudNetError, match=r"'01_alpah'.*Did you mean '01_alpha'"):
        find_notebooks(["01_alpah"], folder)


def test_an_empty_folder_is_an_error(project):
    with pytest.raises(PudNetError, match="no notebook in"):
        find_notebooks([], project / "notebooks")


def test_the_grid_is_read_from_the_command_line():
    assert parse_grid(["width=8,16", "alpha=0,0.1", "sets=[1, 2],[3]", "kind=a,b", "fast=true"]) == {
        "width": [8, 16], "alpha": [0, 0.1], "sets": [[1, 2], [3]], "kind": ["a", "b"], "fast": [True]
    }  # fmt: skip
    for bad in (["width"], ["=3"], ["width="], ["a=1", "a=2"]):
        with pytest.raises(PudNetError, match="Grid entry"):
            parse_grid(bad)
    assert parse_value("None") is None


def test_seeds_and_grid_fan_out():
    assert list(variants([], {})) == [("", {})]
    assert [name for name, _ in variants([0, 1], {"width": [8, 16]})] == [
        "width=8, seed=0", "width=8, seed=1", "width=16, seed=0", "width=16, seed=1"
    ]  # fmt: skip
    assert next(variants([], {"names": [["a", "b"]]}))[0] == 'names=["a";"b"]'


def test_jobs_carry_their_parameters_and_a_hash_of_what_matters(notebook):
    path = notebook("01_alpha", "x = 1")
    (job,) = make_jobs([path], "laptop")
    assert job.parameters == {"profile": "laptop"}
    assert job.time_limit == 1200
    same = make_jobs([path], "laptop")[0]
    assert same.digest == job.digest
    others = {make_jobs([path], "smoke")[0].digest, make_jobs([path], "laptop", seeds=[1])[0].digest}
    notebook("01_alpha", "x = 2")
    others.add(make_jobs([path], "laptop")[0].digest)
    assert job.digest not in others
    assert len(others) == 3


def test_outputs_do_not_change_the_hash_but_code_of_the_package_does(notebook, monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "cli").mkdir()
    try:
        package_digest.cache_clear()
        first = package_digest()
        (tmp_path / "cli" / "b.py").write_text("beside the point")
        package_digest.cache_clear()
        assert package_digest() == first
        (tmp_path / "a.py").write_text("2")
        package_digest.cache_clear()
        assert package_digest() != first
    finally:
        package_digest.cache_clear()


def test_everything_is_checked_before_anything_runs(notebook):
    path = notebook("01_alpha")
    with pytest.raises(PudNetError, match=r"'latop'.*'laptop'"):
        make_jobs([path], "latop")
    with pytest.raises(PudNetError, match=r"'widht'.*'width'"):
        make_jobs([path], "smoke", grid={"widht": [1]})
    with pytest.raises(PudNetError, match="width of 01_alpha"):
        make_jobs([path], "smoke", grid={"width": [8, "wide"]})


@pytest.mark.parametrize(
    "values", [["a b", "a-b"], ["猫", "犬"], [[1, 2], [1.2]], ["1", 1], ["A", "a"], ["x" * 300, "x" * 299]]
)
def test_values_that_a_file_name_cannot_tell_apart_get_names_of_their_own(notebook, values):
    jobs = make_jobs([notebook("01_alpha", parameters="x: object = 0")], "smoke", grid={"x": values})
    names = {job.name.casefold() for job in jobs}
    assert len(names) == 2
    assert all(len(name) < 120 for name in names)


def test_two_jobs_of_one_name_are_refused_before_anything_runs(notebook, tmp_path):
    first = notebook("01_alpha")
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / "01_alpha.ipynb"
    second.write_bytes(first.read_bytes())
    with pytest.raises(PudNetError, match="Two jobs have the name 01_alpha"):
        make_jobs([first, second], "smoke")
    with pytest.raises(PudNetError, match="Two jobs"):
        make_jobs([first], "smoke", grid={"width": [1, 1]})
