"""The committed results: valid, complete, and what reports/README.md shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pudnet_lib.batch.site import readme_text
from pudnet_lib.results import read_result

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "reports" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_is_valid_and_has_its_figures(path):
    result = read_result(path)
    assert result["profile"] != "smoke"
    assert path.stat().st_size < 500_000
    for figure in result["figures"]:
        file = path.parent / figure["file"]
        if file.suffix == ".svg":
            text = file.read_text(encoding="utf-8")
            assert text.startswith("<svg")
            assert "<script" not in text
        else:
            assert file.read_bytes().startswith(b"\x89PNG")


def test_no_figure_is_left_over():
    named = {figure["file"] for path in RESULTS for figure in read_result(path)["figures"]}
    assert {path.name for path in (ROOT / "reports" / "results").glob("*.[sp][vn]g")} == named


def test_the_readme_is_made_from_them(monkeypatch):
    committed = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
    assert committed == readme_text(ROOT), "run: pudnet site --readme"
    assert len(committed.encode()) < 30_000


def test_the_table_of_the_search_stands_in_the_docs():
    rows = read_result(ROOT / "reports" / "results" / "conditioning_search.json")["rows"]
    text = (ROOT / "docs" / "conditioning.md").read_text(encoding="utf-8").partition("search's table: begin")[2]
    for row in rows:
        if row["metric"] in ("validation", "accuracy") and row["dataset"] == "all sources":
            line = next(line for line in text.splitlines() if line.startswith(f"| {row['method']} "))
            assert f"{row['mean']:.1f} [{row['low']:.1f}, {row['high']:.1f}]" in line
