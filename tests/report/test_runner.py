"""One notebook in its own process: outcomes, limits, hangs, and the kernel it runs in."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from pudnet_lib.batch import runner
from pudnet_lib.batch.lab import lab_command
from pudnet_lib.batch.reproduce import make_jobs
from pudnet_lib.batch.runner import own_kernel, run_job, temporary_folder
from pudnet_lib.files import sweep


@pytest.fixture
def misleading(tmp_path, monkeypatch):
    """A user's ``python3`` kernel that is another environment's: it cannot start."""
    folder = tmp_path / "user" / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "user"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    return folder


def test_a_run_brings_its_files_back_and_uses_this_interpreter(notebook, result_cell, misleading):
    path = notebook("01_toy", "import sys; print(sys.executable)", result_cell("toy"))
    words = []
    outcome = run_job(make_jobs([path], "smoke", seeds=[3])[0], words.append)
    assert (outcome.status, outcome.error, outcome.attempts) == ("ok", "", 1)
    assert set(outcome.files) == {
        "executed.ipynb",
        "log.txt",
        *(f"results/toy.smoke.seed=3.{end}" for end in ("csv", "json", "plot.svg")),
    }
    executed = nbformat.reads(outcome.files["executed.ipynb"].decode(), 4)
    assert sys.executable in "".join(o.get("text", "") for c in executed.cells for o in c.get("outputs", []))
    assert json.loads(outcome.files["results/toy.smoke.seed=3.json"])["provenance"]["seed"] == 3
    assert outcome.seconds > 0
    assert outcome.peak_memory_mb > 20
    assert words[0].startswith("cell ")


def test_nbval_and_lab_use_this_interpreter_too(notebook, misleading, tmp_path):
    path = notebook("01_toy", f"import sys; assert sys.executable == {sys.executable!r}")
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "-c", os.devnull, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    code = "from jupyter_client.kernelspec import KernelSpecManager as K; print(K().get_kernel_spec('python3').argv[0])"
    command, environment = lab_command(["--no-browser"], tmp_path / "lab")
    assert command[:3] == [sys.executable, "-m", "pudnet_lib.batch.lab"]
    for variables, expected in ((os.environ, "/bin/false"), (environment, sys.executable)):
        found = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == expected


def test_own_kernel_keeps_the_path_that_was_there(monkeypatch, tmp_path):
    monkeypatch.setenv("JUPYTER_PATH", "/somewhere")
    assert own_kernel(tmp_path)["JUPYTER_PATH"] == f"{tmp_path.resolve()}{os.pathsep}/somewhere"


def test_a_failure_keeps_the_executed_copy_with_its_traceback_and_no_result(notebook, result_cell):
    path = notebook("01_toy", result_cell("toy"), "1 / 0", "after = 1")
    outcome = run_job(make_jobs([path], "smoke")[0])
    assert (outcome.status, outcome.error) == ("failed", "ZeroDivisionError: division by zero")
    assert set(outcome.files) == {"executed.ipynb", "log.txt"}
    assert b"ZeroDivisionError" in outcome.files["executed.ipynb"]


def test_what_a_job_leaves_in_temporary_folders_lies_in_its_own(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(runner.tempfile, "tempdir", str(tmp_path))
    path = notebook("01_toy", "import tempfile; tempfile.mkstemp(); print(tempfile.gettempdir())")
    outcome = run_job(make_jobs([path], "smoke")[0])
    assert outcome.status == "ok", outcome.error
    executed = nbformat.reads(outcome.files["executed.ipynb"].decode(), 4)
    assert f"{tmp_path}/pudnet-" in "".join(o.get("text", "") for c in executed.cells for o in c.get("outputs", []))
    assert not list(tmp_path.glob("tmp*"))  # a kernel's connection file is one of them
    assert not list(tmp_path.glob("pudnet-*"))


def test_a_dying_kernel_is_a_failure(notebook):
    outcome = run_job(make_jobs([notebook("01_toy", "import os; os._exit(1)")], "smoke")[0])
    assert outcome.status == "failed"
    assert "kernel died" in outcome.error


def test_a_slow_notebook_is_stopped_and_not_retried(notebook):
    path = notebook("01_toy", "while True: pass")
    outcome = run_job(make_jobs([path], "smoke", time_limit=4)[0])
    assert (outcome.status, outcome.attempts) == ("timeout", 1)
    assert "4 s" in outcome.error


def test_a_hang_is_retried_once_and_said(notebook, tmp_path):
    marker = tmp_path / "marker"
    cell = f"import pathlib, time\np = pathlib.Path({str(marker)!r})\nif not p.exists(): p.touch(); time.sleep(300)"
    words = []
    job = make_jobs([notebook("01_toy", cell)], "smoke", idle_limit=2.5)[0]
    outcome = run_job(job, words.append)
    assert (outcome.status, outcome.attempts, outcome.error) == ("ok", 2, "hung once, then ran through")
    assert "hung; running once more" in words


def test_the_hard_limit_stops_what_does_not_stop_by_itself(notebook, monkeypatch):
    monkeypatch.setattr(runner, "GRACE", -60.0)  # the outer limit is over at once
    outcome = run_job(make_jobs([notebook("01_toy", "while True: pass")], "smoke", time_limit=61)[0])
    assert (outcome.status, outcome.attempts) == ("timeout", 1)


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for(pid_files: list, deadline: float) -> list[int]:
    while time.monotonic() < deadline and not all(p.exists() and p.read_text() for p in pid_files):
        time.sleep(0.1)
    return [int(p.read_text()) for p in pid_files]


def test_a_batch_that_is_killed_leaves_neither_kernel_nor_its_workers(notebook, tmp_path):
    """Kill -9 of the parent: runner, kernel and a pool worker that the kernel started end, too."""
    files = [tmp_path / "kernel", tmp_path / "worker"]
    cell = f"""import os, pathlib, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
pathlib.Path({str(files[1])!r}).write_text(str(worker.pid))
pathlib.Path({str(files[0])!r}).write_text(str(os.getpid())); time.sleep(300)"""
    job = make_jobs([notebook("01_toy", cell)], "smoke")[0]
    code = f"from pudnet_lib.batch.runner import *; run_job(Job(**{vars(job)!r}))"
    parent = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 150
    pids = _wait_for(files, deadline)
    parent.kill()
    parent.wait()
    while any(map(_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, pids))


def test_orphans_of_a_kernel_that_died_end_with_the_job(notebook, tmp_path):
    file = tmp_path / "worker"
    cell = f"""import os, pathlib, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
pathlib.Path({str(file)!r}).write_text(str(worker.pid)); os._exit(9)"""
    outcome = run_job(make_jobs([notebook("01_toy", cell)], "smoke")[0])
    assert "kernel died" in outcome.error
    assert not _alive(int(file.read_text()))


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_the_lab_server_ends_with_its_command(project, tmp_path, how):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", f"--port={port}", "--ServerApp.port_retries=0", "--allow-root", "--ServerApp.token=x"]
    places = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    command = [sys.executable, "-m", "pudnet_lib", "lab", "--", *options]
    parent = subprocess.Popen(command, env=os.environ | places, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    for line in parent.stderr:
        if b"is running at" in line:
            break
    (server,) = [p for p in psutil.Process(parent.pid).children() if "lab" in " ".join(p.cmdline())]
    getattr(parent, how)()
    parent.wait(timeout=60)
    deadline = time.monotonic() + 30
    while _alive(server.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    parent.stderr.close()
    assert not _alive(server.pid)


def test_old_temporary_folders_are_swept_and_those_in_use_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, young, foreign = (tmp_path / name for name in ("pudnet-old", "pudnet-young", "other-old"))
    for folder in (old, young, foreign):
        folder.mkdir()
    for name in (".pudnet-half", "whole"):
        (foreign / name).touch()
        os.utime(foreign / name, (0, 0))
    with temporary_folder() as used:
        for folder in (old, foreign, used):
            os.utime(folder, (0, 0))
        sweep(foreign)
        assert used.exists()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["other-old", "pudnet-young", "whole"]
