from __future__ import annotations

import pandas as pd
import pytest

from pudnet_lib.batch.compare import compare
from pudnet_lib.errors import PudNetError
from pudnet_lib.results import write_result

FACTS = {"config": {}, "seed": 0, "seconds": 1.0, "commit": "c", "versions": {}, "device": "d", "peak_memory_mb": 1.0}


def results(folder, *rows):
    table = pd.DataFrame(
        [dict(zip(("method", "mean", "low", "high"), row, strict=True)) | {"metric": "top-1"} for row in rows]
    )
    write_result(folder / "toy.laptop.json", "toy", "Q?", "A.", table, FACTS, profile="laptop")
    return folder


def test_only_what_leaves_its_interval_has_moved(tmp_path):
    before = results(
        tmp_path / "a", ("steady", 50, 48, 52), ("up", 50, 49, 51), ("gone", 1, 0, 2), ("exact", 5, None, None),
        ("lost", 3, None, None),
    )  # fmt: skip
    after = results(
        tmp_path / "b", ("steady", 53, 51, 55), ("up", 60, 58, 62), ("new", 1, 0, 2), ("exact", 5.1, None, None),
        ("lost", None, None, None),
    )  # fmt: skip
    table = compare(before, after).set_index("what")
    assert table["status"].to_dict() == {
        "up": "moved", "exact": "moved", "lost": "moved", "gone": "gone", "new": "new", "steady": "within"
    }  # fmt: skip
    assert list(table.index)[:2] == ["up", "exact"]
    assert table.loc["up", "change"] == 10
    assert table.loc["up", "run"] == "laptop"
    assert set(compare(before, before)["status"]) == {"within"}


def test_folders_without_results_are_an_error(tmp_path):
    with pytest.raises(PudNetError, match="no folder"):
        compare(tmp_path / "none", tmp_path)
    with pytest.raises(PudNetError, match="no result files"):
        compare(tmp_path, tmp_path)
