from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from pudnet_lib import results as record
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import write_atomically
from pudnet_lib.results import Headline, plain, provenance, read_result, read_results, write_result


@dataclass(frozen=True)
class Config:
    seed: int = 4
    sources: tuple[str, ...] = ("a",)


ROWS = pd.DataFrame([{"method": "PudNet", "metric": "top-1", "mean": 50.0, "low": math.nan, "n": 3}])
FACTS = provenance(Config(), seconds=1.25)


def written(path, **changes):
    given = {"name": "toy", "question": "Does it?", "answer": "Yes.", "rows": ROWS, "provenance": FACTS} | changes
    return write_result(path, **given)


def test_a_result_comes_back_and_nan_is_null(tmp_path):
    path = tmp_path / "toy.json"
    result = written(path, headline=[Headline("s", "m", 1, 2, 3, 4, 5)], profile="smoke")
    assert "NaN" not in path.read_text()
    assert read_result(path) == json.loads(json.dumps(result))
    assert result["rows"][0] == {"method": "PudNet", "metric": "top-1", "mean": 50.0, "low": None, "n": 3}
    assert result["title"] == "Toy"
    assert read_results(tmp_path) == [read_result(path)]


def test_provenance_holds_what_is_needed_to_find_a_result_again():
    assert FACTS["config"] == {"seed": 4, "sources": ["a"]}
    assert FACTS["seed"] == 4
    assert FACTS["seconds"] == 1.25
    assert {"python", "torch", "numpy"} <= set(FACTS["versions"])
    assert FACTS["peak_memory_mb"] > 10
    assert FACTS["device"]
    assert FACTS["commit"]


def test_plain_handles_arrays_scalars_and_sets():
    given = {"a": np.float32(0.5), "b": np.arange(2), "c": (1, math.inf), "d": pd.NA, "e": {3}, "f": 1 / 3}
    assert plain(given) == {"a": 0.5, "b": [0, 1], "c": [1, None], "d": None, "e": [3], "f": 0.3333333}


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": ""},
        {"rows": ROWS.drop(columns="metric")},
        {"rows": ROWS.assign(mean="high")},
        {"rows": ROWS.iloc[:0]},
        {"profile": "huge"},
        {"name": "a b"},
        {"figures": [{"name": "x", "alt": "short", "file": "x.svg"}]},
        {"figures": [{"name": "x", "alt": "long enough to help", "file": "../x.svg"}]},
        {"provenance": {k: v for k, v in FACTS.items() if k != "commit"}},
        {"headline": [Headline("s", "m", math.nan, 2, 3, 4, 5)]},
    ],
)
def test_what_does_not_fit_the_schema_is_not_written(tmp_path, changes):
    with pytest.raises(PudNetError, match="no valid result file"):
        written(tmp_path / "toy.json", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_or_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(PudNetError, match="reproduce"):
        read_result(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"schema": 1, "exper')
    with pytest.raises(PudNetError, match="no JSON"):
        read_result(tmp_path / "half.json")
    (tmp_path / "other.json").write_text('{"schema": 2}')
    with pytest.raises(PudNetError, match="no valid result file"):
        read_result(tmp_path / "other.json")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "toy.json"
    write_atomically(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PudNetError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_peak_memory_is_this_process_own_and_not_its_parents():
    # 300 MB in the parent would show up in a child's ru_maxrss on Linux.
    ballast = np.ones(300_000_000, dtype=np.uint8)
    code = "from pudnet_lib.results import peak_memory_mb; print(peak_memory_mb())"
    child = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert child < record.peak_memory_mb() - ballast.nbytes / 1e6 / 2


def test_outside_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(record, "__file__", str(tmp_path / "a" / "b" / "record.py"))
    assert record.git_commit() == "unknown"
