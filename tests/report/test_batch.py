"""Batches: skipping, failing, resuming after a kill, fanning out, on this machine and on a dask cluster."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time

import pytest

from pudnet_lib.batch import batch
from pudnet_lib.batch.batch import BatchConfig, read_run, read_runs, reproduce
from pudnet_lib.batch.runner import Outcome
from pudnet_lib.errors import PudNetError


@pytest.fixture
def faked(monkeypatch):
    """Replace the engine: notebooks are not run; those with "broken" in their name fail. Gives the names that ran."""
    ran = []

    def engine(jobs, parallel, progress):
        for job in jobs:
            ran.append(job.name)
            if "broken" in job.name:
                yield job, Outcome("failed", "ValueError: no", 1.0, files={"executed.ipynb": b"{}"})
            else:
                text = json.dumps({"figures": [{"file": f"{job.name}.svg"}], "width": job.parameters.get("width")})
                files = {"results/r.json": text.encode(), f"results/{job.name}.svg": b"<svg/>"}
                yield job, Outcome("ok", "", 1.0, 50.0, files={"executed.ipynb": b"{}", **files})

    monkeypatch.setattr(batch, "run_local", engine)
    return ran


def test_what_is_done_is_skipped_until_something_changes(project, notebook, faked):
    notebook("01_alpha", "x = 1")
    notebook("02_beta", "x = 1")
    assert [run.status for run in reproduce(config=BatchConfig("smoke"))] == ["ok", "ok"]
    reproduce(config=BatchConfig("smoke"))
    assert faked == ["01_alpha", "02_beta"]
    notebook("02_beta", "x = 2")
    reproduce(config=BatchConfig("smoke"))
    assert faked[2:] == ["02_beta"]
    reproduce(["01"], BatchConfig("smoke", force=True))
    assert faked[3:] == ["01_alpha"]
    (project / "reports" / "runs" / "smoke" / "01_alpha" / "executed.ipynb").unlink()
    reproduce(config=BatchConfig("smoke"))
    assert faked[4:] == ["01_alpha"]


def test_a_failure_stops_nothing_and_is_tried_again(project, notebook, faked):
    notebook("01_broken")
    notebook("02_beta")
    words = []
    from contextlib import nullcontext

    def show(names):
        assert names == ["01_broken", "02_beta"]
        return nullcontext(lambda name, word: words.append(f"{name}: {word}"))

    assert [run.status for run in reproduce(config=BatchConfig("smoke"), show=show)] == ["failed", "ok"]
    assert words == ["01_broken: FAILED: ValueError: no", "02_beta: done in 1 s, 50 MB"]
    folder = project / "reports" / "runs" / "smoke"
    assert (folder / "01_broken" / "executed.ipynb").exists()
    assert [run.name for _, run in read_runs(folder)] == ["01_broken", "02_beta"]
    reproduce(config=BatchConfig("smoke"))
    assert faked == ["01_broken", "02_beta", "01_broken"]


def test_smoke_results_are_never_committed_and_laptop_ones_are(project, notebook, faked):
    notebook("01_alpha")
    reproduce(config=BatchConfig("smoke"))
    assert not (project / "reports" / "results").exists()
    reproduce(config=BatchConfig("laptop"))
    results = project / "reports" / "results"
    assert sorted(path.name for path in results.iterdir()) == ["01_alpha.svg", "r.json"]
    # A figure that a newer result no longer has is removed.
    reproduce(config=BatchConfig("laptop"), grid={"width": [3]})
    assert sorted(path.name for path in results.iterdir()) == ["01_alpha.width=3.svg", "r.json"]


def test_seeds_and_grid_make_one_run_each(project, notebook, faked):
    notebook("01_alpha")
    runs = reproduce(config=BatchConfig("smoke", seeds=(0, 1)), grid={"width": [8, 16]})
    assert [run.variant for run in runs] == [f"width={w}, seed={s}" for w in (8, 16) for s in (0, 1)]
    assert runs[3].parameters == {"profile": "smoke", "seed": 1, "width": 16}


def test_two_batches_do_not_mix(project, notebook, faked):
    notebook("01_alpha")
    folder = project / "reports" / "runs" / "smoke"
    folder.mkdir(parents=True)
    with batch._only_one(folder), pytest.raises(PudNetError, match="Another batch"):
        reproduce(config=BatchConfig("smoke"))


def test_records_that_cannot_be_read_count_as_none(tmp_path):
    assert read_run(tmp_path) is None
    (tmp_path / "run.json").write_text('{"name": "half')
    assert read_run(tmp_path) is None


@pytest.mark.parametrize("bad", [{"jobs": 0}, {"engine": "dask"}])
def test_a_config_that_cannot_work_is_an_error(bad):
    with pytest.raises(PudNetError):
        BatchConfig(**bad)


def _normal(text: str) -> str:
    """Leave out what differs between two runs: their times and memory, and the commit of a tree that is worked in."""
    return re.sub(r"· [\d.]+ (s|min \d+ s) · [\d.]+ [MG]B · commit <code>[^<]*", "", text)


def _pages(project) -> dict[str, str]:
    reports = project / "reports"
    files = [reports / "index.html", reports / "README.md", *reports.glob("site/**/*.html"), *reports.glob("results/*")]
    return {path.relative_to(reports).as_posix(): _normal(path.read_text()) for path in files}


def test_a_batch_killed_at_random_moments_ends_in_the_same_report(project, notebook, result_cell, tmp_path):
    for name in ("alpha", "beta", "gamma"):
        notebook(f"01_{name}", "import time; time.sleep(0.5)", result_cell(name))
    command = [sys.executable, "-m", "pudnet_lib", "reproduce", "--jobs", "3"]
    uncut = tmp_path / "uncut"
    (uncut / "notebooks").mkdir(parents=True)
    for path in (project / "notebooks").glob("*.ipynb"):
        (uncut / "notebooks" / path.name).write_bytes(path.read_bytes())
    subprocess.run(command, env=os.environ | {"PUDNET_ROOT": str(uncut)}, check=True, capture_output=True)

    dice = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(dice.uniform(0.5, 4.0))
        process.kill()
        process.wait()
        # Whatever was killed, what is there is whole.
        for path in (project / "reports").glob("results/*.json"):
            json.loads(path.read_text())
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = _pages(project)
    assert pages == _pages(uncut)
    assert len(pages) == 2 + 3 + 6
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stderr.count("done before") + again.stdout.count("done before") == 3


def test_the_dask_engine_brings_back_the_same_files(project, notebook, result_cell):
    distributed = pytest.importorskip("distributed")
    notebook("01_alpha", result_cell("alpha"))
    notebook("02_broken", "1 / 0")
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, resources={"GPU": 2}
    )
    with cluster:
        config = BatchConfig("laptop", engine="dask", scheduler=cluster.scheduler_address, gpus=1)
        runs = reproduce(config=config)
    assert [run.status for run in runs] == ["ok", "failed"]
    folder = project / "reports" / "runs" / "laptop"
    assert (folder / "02_broken" / "executed.ipynb").exists()
    names = ["alpha.laptop.json", "alpha.laptop.plot.svg"]
    assert sorted(path.name for path in (project / "reports" / "results").iterdir()) == names


def test_a_scheduler_that_does_not_answer_is_a_clear_error(project, notebook, monkeypatch):
    distributed = pytest.importorskip("distributed")

    def refuse(*_, **__):
        raise OSError("Timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    notebook("01_alpha")
    with pytest.raises(PudNetError, match="No dask scheduler answers at tcp://nowhere:1"):
        reproduce(config=BatchConfig("smoke", engine="dask", scheduler="tcp://nowhere:1"))
