"""The committed results: valid, complete, and what reports/README.md shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from pudnet_lib.experiments.record import read_result
from pudnet_lib.report.site import readme_text

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "reports" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_is_valid_and_has_its_figures(path):
    result = read_result(path)
    assert result["profile"] in ("laptop", "paper")
    assert path.stat().st_size < 500_000
    for figure in result["figures"]:
        text = (path.parent / figure["file"]).read_text(encoding="utf-8")
        assert text.startswith("<svg")
        assert "<script" not in text


def test_no_figure_is_left_over():
    named = {figure["file"] for path in RESULTS for figure in read_result(path)["figures"]}
    assert {path.name for path in (ROOT / "reports" / "results").glob("*.svg")} == named


def test_the_readme_is_made_from_them(monkeypatch):
    committed = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
    assert committed == readme_text(ROOT), "run: pudnet site"
