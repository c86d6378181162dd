"""Run jobs from outside: a subprocess each, with a hard time limit, watched for hangs; here or on a dask cluster.

A job carries its notebook, and an outcome carries its files, so the same function runs in a thread of this machine or
in a dask worker, which needs this package and nothing else. A notebook that hangs (no processor time used) is killed
and run once more; a slow one is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pudnet_lib.batch.processes import JOB_VARIABLE, kill, own_kernel, temporary_folder, tree
from pudnet_lib.errors import PudNetError
from pudnet_lib.parallel import dask_client

#: Called with a job's name ("" for the whole batch) and a word on where it is.
Progress = Callable[[str, str], None]
#: Seconds that a notebook gets beyond its limit to end by itself.
GRACE = 20.0

_running: dict[str, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Job:
    """One notebook with one set of parameters."""

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
    """What became of a job: status "ok", "failed" or "timeout", one line of error, its files by relative path."""

    status: str
    error: str = ""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    attempts: int = 1
    files: dict[str, bytes] = field(default_factory=dict)


def run_local(jobs: Sequence[Job], parallel: int, progress: Progress) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs on this machine, some at a time; yield each with its outcome, as they end."""
    pool = ThreadPoolExecutor(parallel)
    try:
        futures = {pool.submit(run_job, job, lambda word, name=job.name: progress(name, word)): job for job in jobs}  # type: ignore[misc]
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:  # also after Ctrl-C
        pool.shutdown(wait=False, cancel_futures=True)
        for tag, process in list(_running.items()):
            kill(tree(process.pid, tag))


def run_dask(
    jobs: Sequence[Job], scheduler: str, progress: Progress, gpus: int = 0, every: float = 60.0
) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs on a dask cluster; yield each with its outcome, as they end: a lost worker is a failed outcome."""
    with dask_client(scheduler) as client:
        from distributed import wait

        if gpus:
            offers = [
                float(w["resources"].get("GPU", 0)) for w in client.scheduler_info(n_workers=-1)["workers"].values()
            ]
            if max(offers, default=0) < gpus:
                offered = ", ".join(f"{offer:g}" for offer in sorted(offers, reverse=True)[:8]) or "no worker is there"
                raise PudNetError(
                    f"No dask worker at {scheduler} offers GPU={gpus}; the {len(offers)} workers offer: {offered}. "
                    f"Start some with `dask worker {scheduler} --resources GPU={gpus}`, or leave --gpus out."
                )
        resources = {"GPU": gpus} if gpus else None
        # Impure: a second batch runs again what the first one failed at.
        left = {
            client.submit(run_job, job, key=f"{job.name}-{job.digest[:12]}", pure=False, resources=resources): job
            for job in jobs
        }
        for job in jobs:
            progress(job.name, "sent")
        while left:
            try:
                done = wait(list(left), timeout=every, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                progress("", f"{len(left)} of {len(jobs)} jobs wait or run on {scheduler}")
                continue
            for future in done:
                job = left.pop(future)
                failed = future.status != "finished"
                yield (
                    job,
                    Outcome("failed", f"the worker broke off: {future.exception()}") if failed else future.result(),
                )


def run_job(job: Job, progress: Callable[[str], None] | None = None) -> Outcome:
    """Run a notebook, and once more after a hang; this function does not raise for anything that a notebook does."""
    say = progress or (lambda word: None)
    try:
        with temporary_folder() as folder:
            first, hung = _attempt(job, folder / "1", say)
            if not hung:
                return first
            say("hung; running once more")
            second, hung_again = _attempt(job, folder / "2", say)
    except (OSError, PudNetError) as error:  # a full disk, say, is no reason to end the batch
        return Outcome("failed", f"could not be run: {error}")
    note = "hung twice" if hung_again else "hung once, then ran through" if second.status == "ok" else second.error
    return Outcome(**{**vars(second), "attempts": 2, "error": note})


def _attempt(job: Job, folder: Path, say: Callable[[str], None]) -> tuple[Outcome, bool]:
    (folder / "results").mkdir(parents=True)
    (folder / "source.ipynb").write_text(job.source, encoding="utf-8")
    cwd = job.cwd if job.cwd and Path(job.cwd).is_dir() else str(folder)
    (folder / "job.json").write_text(json.dumps({**asdict(job), "source": "", "cwd": cwd}), encoding="utf-8")
    tag = uuid.uuid4().hex
    environment = {
        **os.environ,
        **own_kernel(folder / "jupyter"),
        JOB_VARIABLE: tag,
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
        _running[tag] = process
        reader = threading.Thread(target=_read_progress, args=(process, cells, say), daemon=True)
        reader.start()
        try:
            verdict, idle = _watch(process, job, started)
        finally:
            kill(tree(process.pid, tag))
            process.wait()
            del _running[tag]
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


def _processor_seconds(pid: int) -> float:
    total = 0.0
    for process in tree(pid):
        try:
            times = process.cpu_times()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        total += times.user + times.system
    return total
