"""A batch killed at random moments and repeated gives the same numbers and leaves nothing running or lying about.

Run by hand, and weekly by CI (docs/robustness.md):

    PUDNET_KILLS=10 python -m pytest tests/slow/test_kill_batch.py

PUDNET_KILL_NOTEBOOKS names some notebooks, such as "06 02"; by default all.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from pudnet_lib.batch.processes import JOB_VARIABLE
from pudnet_lib.files import PREFIX
from pudnet_lib.results import read_results

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("PUDNET_KILLS", "0"))
NOTEBOOKS = os.environ.get("PUDNET_KILL_NOTEBOOKS", "").split()
#: Metrics of time and memory differ from run to run.
MEASURED = re.compile(r"second|\bs\b|\bms\b|time|memory|MB|speed|ratio|pays|energy", re.IGNORECASE)


def numbers(folder: Path) -> dict[tuple[str, str], object]:
    """The means of all results that a batch left, by what names them."""
    found = {}
    for place in sorted((folder / "smoke").glob("*/results")):
        for result in read_results(place):
            for i, row in enumerate(result["rows"]):
                if not MEASURED.search(str(row["metric"])):
                    key = (result["experiment"], f"{i} {row.get('method')} {row.get('dataset')} {row['metric']}")
                    found[key] = row["mean"]
    return found


def leftovers() -> tuple[list[int], list[str]]:
    """Processes of jobs and temporary folders that nobody holds."""
    alive = []
    for process in psutil.process_iter():
        try:
            if JOB_VARIABLE in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return alive, [p.name for p in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")]


@pytest.mark.slow
@pytest.mark.skipif(not KILLS, reason="slow: PUDNET_KILLS=10 runs it")
def test_a_killed_batch_of_the_notebooks_ends_in_the_same_numbers(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = os.environ | {
        "PUDNET_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(temporary),
        "OMP_NUM_THREADS": "1",
    }

    def command(out: str) -> list[str]:
        return [sys.executable, "-m", "pudnet_lib", "reproduce", *NOTEBOOKS, "--profile", "smoke", "--out-dir",
                str(tmp_path / out)]  # fmt: skip

    started = time.monotonic()
    subprocess.run(command("uncut"), env=environment, cwd=ROOT, check=True, capture_output=True)
    whole, dice = time.monotonic() - started, random.Random(0)
    before = leftovers()[0]
    for kill in range(KILLS):
        process = subprocess.Popen(
            command("killed"), env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=dice.uniform(1, max(2, whole / 2)))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL if kill % 2 == 0 else signal.SIGTERM)
            process.wait()
        deadline = time.monotonic() + 20
        while set(leftovers()[0]) - set(before) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not set(leftovers()[0]) - set(before), "a process outlived its batch"
    subprocess.run(command("killed"), env=environment, cwd=ROOT, check=True, capture_output=True)
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "uncut") != {}
    for folder in temporary.glob(f"{PREFIX}*"):  # kill -9 leaves folders, which the next batch sweeps when a day old
        os.utime(folder, (0, 0))
    subprocess.run(command("killed"), env=environment, cwd=ROOT, check=True, capture_output=True)
    assert not list(temporary.glob(f"{PREFIX}*"))
    assert not [p.name for p in (tmp_path / "killed" / "smoke").glob(".*") if p.name != ".lock"]
