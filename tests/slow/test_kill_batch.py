"""A batch killed at random moments and repeated gives the same numbers and leaves nothing running or lying about.

Run by hand, and weekly by CI (docs/robustness.md):

    PUDNET_KILLS=10 python -m pytest tests/slow/test_kill_batch.py

PUDNET_KILL_NOTEBOOKS names some notebooks, such as "06 02"; by default all. A notebook may take PUDNET_KILL_LIMIT
seconds (900): a slow machine is no failure here. Both batches train anew, so that training is killed, too; other
batches may run meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pudnet_lib.batch.runner import JOB_VARIABLE
from pudnet_lib.files import PREFIX
from pudnet_lib.results import read_results

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("PUDNET_KILLS", "0"))
NOTEBOOKS = os.environ.get("PUDNET_KILL_NOTEBOOKS", "").split()
LIMIT = os.environ.get("PUDNET_KILL_LIMIT", "900")
#: Metrics of time and memory, and what is computed from them, differ from run to run.
MEASURED = re.compile(r"second|\bs\b|\bms\b|time|memory|MB|speed|ratio|pays|break-even|energy", re.IGNORECASE)


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


def alive(temporary: Path) -> list[str]:
    """Processes of the jobs whose temporary folders are there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            own = process.environ()
            if JOB_VARIABLE in own and own.get("TMPDIR", "").startswith(str(temporary)):
                found += [" ".join(process.cmdline())] if process.status() != psutil.STATUS_ZOMBIE else []
    return found


@pytest.mark.slow
@pytest.mark.skipif(not KILLS, reason="slow: PUDNET_KILLS=10 runs it")
def test_a_killed_batch_of_the_notebooks_ends_in_the_same_numbers(tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    def begin(out: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "pudnet_lib", "reproduce", *NOTEBOOKS, "--profile", "smoke"]
        command += ["--time-limit", LIMIT, "--out-dir", str(tmp_path / out)]
        own = {"PUDNET_CACHE": str(tmp_path / f"{out}-cache"), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
        with (tmp_path / f"{out}.txt").open("w") as log:
            return subprocess.Popen(command, env=os.environ | own, cwd=ROOT, stdout=log, stderr=log)

    def run(out: str) -> None:
        assert begin(out).wait() == 0, (tmp_path / f"{out}.txt").read_text()[-2000:]

    started = time.monotonic()
    run("uncut")
    whole, dice, cut = time.monotonic() - started, random.Random(0), 0
    for kill in range(KILLS):
        process = begin("killed")
        try:  # on average a tenth of a batch for ten kills: few of them come too late to cut anything
            process.wait(timeout=dice.uniform(1, max(2, min(whole / 2, 2 * whole / KILLS))))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL if kill % 2 == 0 else signal.SIGTERM)
            process.wait()
            cut += 1
        deadline = time.monotonic() + 60
        while alive(temporary) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not alive(temporary), "a process outlived its batch"
    run("killed")
    assert cut >= 0.7 * KILLS, f"only {cut} of {KILLS} kills found a batch at work"
    uncut, killed = numbers(tmp_path / "uncut"), numbers(tmp_path / "killed")
    assert uncut
    assert not {key: (uncut.get(key), killed.get(key)) for key in uncut | killed if uncut.get(key) != killed.get(key)}
    for folder in temporary.glob(f"{PREFIX}*"):  # kill -9 leaves folders, which the next batch sweeps when a day old
        os.utime(folder, (0, 0))
    run("killed")
    assert not list(temporary.iterdir())
    assert not [p.name for p in (tmp_path / "killed" / "smoke").glob(".*") if p.name != ".lock"]
