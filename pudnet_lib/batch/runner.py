"""Run one job from outside: a subprocess with a hard time limit, watched for hangs, its files brought back.

Our choice; the paper has no counterpart. A job carries its notebook, and an outcome carries its files, so the same
function runs here in a thread or on another machine in a dask worker. A notebook that hangs (no processor time used) is
killed and run once more; a slow one is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pudnet_lib.batch.kernels import own_kernel

#: Seconds that a notebook gets beyond its limit to end by itself.
GRACE = 20.0


_running: set[subprocess.Popen[bytes]] = set()


def stop_all() -> None:
    """Kill all jobs that this process has started."""
    for process in list(_running):
        _kill_tree(process)


@dataclass(frozen=True)
class Job:
    """One notebook with one set of parameters.

    Attributes:
        name: Unique name: the notebook's stem, profile left out, and the variant.
        source: The notebook's text.
        parameters: What papermill injects.
        profile: The profile.
        variant: Which member of a fan-out, "" for none.
        digest: Content hash of everything that the run depends on.
        time_limit: Seconds.
        idle_limit: Seconds without any processor time after which it counts as hung.
        cwd: Working directory of the kernel; the job's own folder where it does not exist.
        threads: Cores that the notebook may use; 0 leaves that to the libraries.
    """

    name: str
    source: str
    parameters: dict[str, Any]
    profile: str
    variant: str = ""
    digest: str = ""
    time_limit: float = 1200.0
    idle_limit: float = 120.0
    cwd: str = ""
    threads: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        status: "ok", "failed" or "timeout".
        error: One line.
        seconds: Wall-clock seconds of the last attempt.
        peak_memory_mb: The kernel's largest resident memory, MB.
        attempts: 2 after a hang.
        files: Path relative to the job's folder → content: executed notebook, results, log.
    """

    status: str
    error: str = ""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    attempts: int = 1
    files: dict[str, bytes] = field(default_factory=dict)


def run_job(job: Job, progress: Callable[[str], None] | None = None) -> Outcome:
    """Run a notebook; retry a hang once.

    Args:
        job: The job.
        progress: Called with a word on where it is, such as "cell 3".

    Returns:
        The outcome; this function does not raise for anything that a notebook does.
    """
    say = progress or (lambda word: None)
    with tempfile.TemporaryDirectory(prefix="pudnet-", ignore_cleanup_errors=True) as folder:
        first, hung = _attempt(job, Path(folder) / "1", say)
        if not hung:
            return first
        say("hung; running once more")
        second, hung_again = _attempt(job, Path(folder) / "2", say)
    note = "hung twice" if hung_again else "hung once, then ran through" if second.status == "ok" else second.error
    return Outcome(**{**vars(second), "attempts": 2, "error": note})


def _attempt(job: Job, folder: Path, say: Callable[[str], None]) -> tuple[Outcome, bool]:
    folder.mkdir()
    (folder / "results").mkdir()
    (folder / "source.ipynb").write_text(job.source, encoding="utf-8")
    cwd = job.cwd if job.cwd and Path(job.cwd).is_dir() else str(folder)
    (folder / "job.json").write_text(json.dumps({**asdict(job), "source": "", "cwd": cwd}), encoding="utf-8")
    environment = {
        **os.environ,
        **own_kernel(folder / "jupyter"),
        "PUDNET_PROFILE": job.profile,
        "PUDNET_RESULTS": str(folder / "results"),
        "PUDNET_VARIANT": job.variant,
        # A debugger's check prints warnings into every executed notebook otherwise.
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    if job.threads:
        environment |= {"OMP_NUM_THREADS": str(job.threads), "MKL_NUM_THREADS": str(job.threads)}
    started = time.monotonic()
    cells = len(json.loads(job.source)["cells"])
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pudnet_lib.batch.execute", str(folder / "job.json")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
        _running.add(process)
        reader = threading.Thread(target=_read_progress, args=(process, cells, say), daemon=True)
        reader.start()
        try:
            verdict, idle = _watch(process, job, started)
        finally:
            _kill_tree(process)
            _running.discard(process)
            reader.join(timeout=5)
    seconds = round(time.monotonic() - started, 2)
    outcome: dict[str, Any]
    if (folder / "outcome.json").exists():
        outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    else:
        log_text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()
        last = log_text.splitlines()[-1] if log_text else "no message"
        outcome = {"status": "timeout" if verdict else "failed", "error": verdict or f"the run broke off: {last}"}
    hung = outcome["status"] == "timeout" and idle >= min(job.idle_limit, job.time_limit / 2)
    kept = [folder / "executed.ipynb", folder / "log.txt", *sorted((folder / "results").glob("*"))]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept if path.is_file()}
    if outcome["status"] != "ok":  # a run that failed after publish() has no result
        files = {name: data for name, data in files.items() if not name.startswith("results/")}
    return Outcome(**{"seconds": seconds, **outcome, "files": files}), hung


def _read_progress(process: subprocess.Popen[bytes], cells: int, say: Callable[[str], None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            say(f"cell {json.loads(line)['cell']} of {cells}")
        except (ValueError, KeyError, TypeError):
            continue  # something that a library printed


def _watch(process: subprocess.Popen[bytes], job: Job, started: float) -> tuple[str, float]:
    """Wait for the end, the time limit or a hang; tell the reason to stop ("" for the end) and the idle seconds."""
    last, awake, used, idle = started, 0.0, 0.0, 0.0
    while True:
        try:
            process.wait(timeout=0.5)
            return "", idle
        except subprocess.TimeoutExpired:
            pass
        now, total = time.monotonic(), _processor_seconds(process.pid)
        # A machine that was asleep in between is no hang: a step counts for a few seconds at most.
        step, last = min(now - last, 5.0), now
        awake, idle = awake + step, idle + step
        # A waiting kernel wakes up now and then; work uses more than 2 % of a core.
        if total < used or total - used > 0.02 * idle + 0.05:
            idle, used = 0.0, total
        if idle > job.idle_limit:
            return f"hung: no processor time for {job.idle_limit:g} s", idle
        if awake > job.time_limit + GRACE:
            return f"not done after {job.time_limit:g} s", idle


def _tree(pid: int) -> list[psutil.Process]:
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _processor_seconds(pid: int) -> float:
    total = 0.0
    for process in _tree(pid):
        try:
            times = process.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += times.user + times.system
    return total


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    for member in _tree(process.pid):
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()
