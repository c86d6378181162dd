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

from pudnet_lib.batch import reproduce as batch
from pudnet_lib.batch.reproduce import BatchConfig, commit, read_run, read_runs, reproduce
from pudnet_lib.batch.runner import Outcome
from pudnet_lib.errors import PudNetError
from pudnet_lib.files import lock


@pytest.fixture
def faked(monkeypatch):
    """Replace the engine: notebooks are not run; those with "broken" in their name fail. Gives the names that ran."""
    ran = []

    def engine(jobs, parallel, progress):
        for job in jobs:
            ran.append(job.name)
            executed = {"executed.ipynb": job.source.encode()}
            if "broken" in job.name:
                yield job, Outcome("failed", "ValueError: no", 1.0, files=executed)
            else:
                yield job, Outcome("ok", "", 1.0, 50.0, files=executed | _results(job))

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


def _results(job) -> dict[str, bytes]:
    """What a notebook would publish: a result with one figure, named after the job."""
    from pudnet_lib.results import SCHEMA_VERSION

    facts = {"config": {}, "seed": 0, "seconds": 1, "commit": "c", "versions": {}, "device": "d", "peak_memory_mb": 1}
    figure = f"{job.name}.{job.parameters.get('width', 'plot')}.svg"
    result = {
        "schema": SCHEMA_VERSION, "experiment": "alpha", "variant": "", "title": "A", "question": "Q?", "answer": "A.",
        "profile": job.profile, "headline": [], "rows": [{"metric": "m", "mean": 1.0}],
        "figures": [{"name": "plot", "alt": "A plot of a thing", "file": figure}], "provenance": facts,
    }  # fmt: skip
    return {f"results/r.{e}": c for e, c in (("json", json.dumps(result).encode()), ("csv", b"m"))} | {
        f"results/{figure}": b"<svg/>"
    }


def test_only_commit_touches_what_is_committed(project, notebook, faked):
    path = notebook("01_alpha", "1 + 1")
    before = path.read_bytes()
    smoke = reproduce(config=BatchConfig("smoke"))
    laptop = reproduce(config=BatchConfig("laptop"))
    results = project / "reports" / "results"
    assert not results.exists()
    assert path.read_bytes() == before
    with pytest.raises(PudNetError, match="smoke run"):
        commit(smoke)
    commit(laptop)
    assert sorted(p.name for p in results.iterdir()) == ["01_alpha.plot.svg", "r.csv", "r.json"]
    # A figure that a newer result no longer has is removed.
    commit(reproduce(config=BatchConfig("laptop"), grid={"width": [3]}))
    assert sorted(p.name for p in results.iterdir()) == ["01_alpha.width=3.3.svg", "r.csv", "r.json"]


def test_a_name_in_a_result_cannot_leave_its_folder(project, notebook, faked):
    """An old result's path, relative or absolute, used to be deleted by the next batch."""
    notebook("01_alpha")
    results = project / "reports" / "results"
    results.mkdir(parents=True)
    victim = project / "victim.txt"
    victim.write_text("precious")
    runs = reproduce(config=BatchConfig("laptop"))
    for name in ("../../victim.txt", str(victim)):
        old = json.loads((project / "reports/runs/laptop/01_alpha/results/r.json").read_text())
        old["figures"][0]["file"] = name
        (results / "r.json").write_text(json.dumps(old))
        commit(runs)
        assert victim.read_text() == "precious"
    record = project / "reports" / "runs" / "laptop" / "01_alpha" / "run.json"
    record.write_text(record.read_text().replace('"name": "01_alpha"', '"name": "../../../../outside"'))
    assert read_run(record.parent) is None


def test_a_kill_between_setting_aside_and_moving_loses_nothing(project, notebook, faked):
    notebook("01_alpha")
    reproduce(config=BatchConfig("smoke"))
    folder = project / "reports" / "runs" / "smoke"
    (folder / "01_alpha").rename(folder / ".01_alpha.old")
    (folder / ".01_alpha.new").mkdir()
    reproduce(config=BatchConfig("smoke"))
    assert faked == ["01_alpha"]
    assert [path.name for path in folder.iterdir() if path.name != ".lock"] == ["01_alpha"]


@pytest.mark.parametrize(("file", "content"), [("executed.ipynb", ""), ("results/r.json", '{"sch'), ("run.json", "{")])
def test_what_is_damaged_is_run_again(project, notebook, faked, file, content):
    notebook("01_alpha")
    reproduce(config=BatchConfig("smoke"))
    (project / "reports" / "runs" / "smoke" / "01_alpha" / file).write_text(content)
    reproduce(config=BatchConfig("smoke"))
    assert faked == ["01_alpha", "01_alpha"]


def test_a_full_disk_fails_one_run_and_not_the_batch(project, notebook, faked, monkeypatch):
    notebook("01_alpha")
    notebook("02_beta")
    write = batch.write_atomically

    def full(path, content):
        if "01_alpha" in str(path):
            raise PudNetError(f"Could not write {path.name}: No space left on device.")
        write(path, content)

    monkeypatch.setattr(batch, "write_atomically", full)
    runs = reproduce(config=BatchConfig("smoke"))
    assert [run.status for run in runs] == ["failed", "ok"]
    assert "No space left" in runs[0].error


def test_seeds_and_grid_make_one_run_each(project, notebook, faked):
    notebook("01_alpha")
    runs = reproduce(config=BatchConfig("smoke", seeds=(0, 1)), grid={"width": [8, 16]})
    assert [run.variant for run in runs] == [f"width={w}, seed={s}" for w in (8, 16) for s in (0, 1)]
    assert runs[3].parameters == {"profile": "smoke", "seed": 1, "width": 16}


def test_two_batches_do_not_mix(project, notebook, faked):
    notebook("01_alpha")
    folder = project / "reports" / "runs" / "smoke"
    folder.mkdir(parents=True)
    with lock(folder / ".lock", ""), pytest.raises(PudNetError, match="Another batch"):
        reproduce(config=BatchConfig("smoke"))


def test_records_that_cannot_be_read_count_as_none(tmp_path):
    assert read_run(tmp_path) is None
    (tmp_path / "run.json").write_text('{"name": "half')
    assert read_run(tmp_path) is None


@pytest.mark.parametrize("bad", [{"jobs": 0}, {"engine": "dask"}, {"seeds": (-1,)}, {"time_limit": -3}])
def test_a_config_that_cannot_work_is_an_error(bad):
    with pytest.raises(PudNetError):
        BatchConfig(**bad)


def _normal(text: str) -> str:
    """Leave out what differs between two runs: their times and memory, and the commit of a tree that is worked in."""
    return re.sub(r"· [\d.]+ (s|min \d+ s) · [\d.]+ [MG]B · commit <code>[^<]*", "", text)


def _pages(project) -> dict[str, str]:
    reports = project / "reports"
    files = [reports / "index.html", *reports.glob("site/**/*.html"), *reports.glob("runs/laptop/*/results/*")]
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
        for path in (project / "reports").glob("runs/laptop/*/results/*.json"):
            json.loads(path.read_text())
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = _pages(project)
    assert pages == _pages(uncut)
    assert len(pages) == 1 + 3 + 9
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
    names = ["alpha.laptop.csv", "alpha.laptop.json", "alpha.laptop.plot.svg"]
    assert sorted(path.name for path in (folder / "01_alpha" / "results").iterdir()) == names


def test_gpus_that_no_worker_offers_stop_the_batch_at_once(project, notebook):
    distributed = pytest.importorskip("distributed")
    notebook("01_alpha")
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        config = BatchConfig("smoke", engine="dask", scheduler=cluster.scheduler_address, gpus=1)
        with pytest.raises(PudNetError, match=r"offers GPU=1; the 1 workers offer: 0\. Start some with .dask worker"):
            reproduce(config=config)


def test_jobs_that_wait_on_a_cluster_say_so(notebook):
    distributed = pytest.importorskip("distributed")
    from pudnet_lib.batch.reproduce import make_jobs
    from pudnet_lib.batch.runner import run_dask

    jobs, words = make_jobs([notebook("01_alpha", "1")], "smoke"), []
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        done = list(run_dask(jobs, cluster.scheduler_address, lambda *w: words.append(w), every=0.2))
    assert [outcome.status for _, outcome in done] == ["ok"]
    assert ("", f"1 of 1 jobs wait or run on {cluster.scheduler_address}") in words


def test_a_scheduler_that_does_not_answer_is_a_clear_error(project, notebook, monkeypatch):
    distributed = pytest.importorskip("distributed")

    def refuse(*_, **__):
        raise OSError("Timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    notebook("01_alpha")
    with pytest.raises(PudNetError, match="No dask scheduler answers at tcp://nowhere:1"):
        reproduce(config=BatchConfig("smoke", engine="dask", scheduler="tcp://nowhere:1"))
