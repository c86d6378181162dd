"""Run notebooks: a subprocess each, with a hard time limit, watched for hangs; here or on a dask cluster.

A job carries its notebook, an outcome its files: a dask worker needs this package and nothing else. A notebook that
hangs (no processor time used) is killed and run once more. The subprocess is this module, too: it tells its progress
on stdout, one JSON line a cell, and ends with its kernel once its parent has died.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import psutil
from ipykernel.kernelspec import write_kernel_spec

from pudnet_lib.errors import PudNetError
from pudnet_lib.files import PREFIX, lock, write_atomically
from pudnet_lib.parallel import end_with_parent

#: Called with a job's name ("" for the whole batch) and a word on where it is.
Progress = Callable[[str, str], None]
GRACE = 20.0  # seconds that a notebook gets beyond its limit to end by itself
JOB_VARIABLE = "PUDNET_JOB"  # all descendants of a job carry this variable, so that also its orphans are found
_running: dict[str, subprocess.Popen[bytes]] = {}  # by the job's tag


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
            kill(process.pid, tag)


def run_dask(
    jobs: Sequence[Job], scheduler: str, progress: Progress, gpus: int = 0, every: float = 60.0
) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs on a dask cluster; yield each with its outcome, as they end: a lost worker is a failed outcome."""
    try:
        from distributed import Client, wait

        connected = Client(scheduler, timeout=15)
    except ImportError:
        raise PudNetError("The dask engine needs the package distributed: pip install 'pudnet-kit[dask]'.") from None
    except (OSError, ValueError) as error:
        answer = f"No dask scheduler answers at {scheduler} ({error})"
        raise PudNetError(f"{answer}; start one with `dask scheduler`.") from None
    with connected as client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        offers = sorted((float(worker["resources"].get("GPU", 0)) for worker in workers), reverse=True)
        if max(offers, default=0) < gpus:
            offered = ", ".join(f"{offer:g}" for offer in offers[:8]) or "no worker is there"
            start = f"Start some with `dask worker {scheduler} --resources GPU={gpus}`, or leave --gpus out."
            there = f"the {len(offers)} workers offer: {offered}"
            raise PudNetError(f"No dask worker at {scheduler} offers GPU={gpus}; {there}. {start}")
        left = {}
        for job in jobs:  # impure: a second batch runs again what the first one failed at
            how = {"key": f"{job.name}-{job.digest[:12]}", "resources": {"GPU": gpus} if gpus else None}
            left[client.submit(run_job, job, pure=False, **how)] = job
            progress(job.name, "sent")
        while left:
            try:
                done = wait(list(left), timeout=every, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                progress("", f"{len(left)} of {len(jobs)} jobs wait or run on {scheduler}")
                continue
            for future in done:
                lost = future.exception()
                yield left.pop(future), Outcome("failed", f"the worker broke off: {lost}") if lost else future.result()


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
    return replace(second, attempts=2, error=note)


def _attempt(job: Job, folder: Path, say: Callable[[str], None]) -> tuple[Outcome, bool]:
    (folder / "results").mkdir(parents=True)
    (folder / "source.ipynb").write_text(job.source, encoding="utf-8")
    cwd = job.cwd if job.cwd and Path(job.cwd).is_dir() else str(folder)
    (folder / "job.json").write_text(json.dumps({**asdict(job), "source": "", "cwd": cwd}), encoding="utf-8")
    tag, started = uuid.uuid4().hex, time.monotonic()
    told = {"PROFILE": job.profile, "RESULTS": str(folder / "results"), "VARIANT": job.variant}
    environment = {**os.environ, **own_kernel(folder / "jupyter"), **{f"PUDNET_{name}": v for name, v in told.items()}}
    # A killed kernel's connection file goes with its job's folder; a debugger's check would print warnings.
    environment |= {JOB_VARIABLE: tag, "TMPDIR": str(folder), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    if job.threads:
        environment |= {"OMP_NUM_THREADS": str(job.threads), "MKL_NUM_THREADS": str(job.threads)}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pudnet_lib.batch.runner", str(folder / "job.json")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True,
        )  # fmt: skip
        _running[tag] = process
        cells = len(json.loads(job.source)["cells"])
        reader = threading.Thread(target=_read_progress, args=(process.stdout, cells, say), daemon=True)
        reader.start()
        try:
            verdict, idle = _watch(process, job, started)
        finally:
            kill(process.pid, tag)
            process.wait()
            del _running[tag]
            reader.join(timeout=5)
    seconds = round(time.monotonic() - started, 2)
    log_text = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip()
    broke_off = f"the run broke off: {log_text.splitlines()[-1] if log_text else 'no message'}"
    outcome: dict[str, Any] = {"status": "timeout" if verdict else "failed", "error": verdict or broke_off}
    if (folder / "outcome.json").exists():
        outcome = json.loads((folder / "outcome.json").read_text(encoding="utf-8"))
    hung = outcome["status"] == "timeout" and idle >= min(job.idle_limit, job.time_limit / 2)
    # A run that failed after publish() has no result.
    found = sorted((folder / "results").glob("*")) if outcome["status"] == "ok" else []
    kept = [path for path in (folder / "executed.ipynb", folder / "log.txt", *found) if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}
    return Outcome(**{"seconds": seconds, **outcome, "files": files}), hung


def _read_progress(lines: IO[bytes], cells: int, say: Callable[[str], None]) -> None:
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # something that a library printed
            say(f"cell {json.loads(line)['cell']} of {cells}")


def _watch(process: subprocess.Popen[bytes], job: Job, started: float) -> tuple[str, float]:
    """Wait for the end, the time limit or a hang; tell the reason to stop ("" for the end) and the idle seconds."""
    last, awake, used, idle = started, 0.0, 0.0, 0.0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
            return "", idle
        now, total = time.monotonic(), 0.0
        for part in tree(process.pid):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += sum(part.cpu_times()[:2])  # user and system
        step, last = min(now - last, 5.0), now  # a machine that was asleep in between is no hang
        awake, idle = awake + step, idle + step
        if total < used or total - used > 0.02 * idle + 0.05:  # a waiting kernel wakes up now and then
            idle, used = 0.0, total
        if idle > job.idle_limit:
            return f"hung: no processor time for {job.idle_limit:g} s", idle
        if awake > job.time_limit + GRACE:
            return f"not done after {job.time_limit:g} s", idle


def tree(pid: int, tag: str = "") -> list[psutil.Process]:
    """List a process and its descendants; with a tag also those whose parents have died."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        found = {p.pid: p for p in (top, *top.children(recursive=True))}
    for process in psutil.process_iter() if tag else ():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(JOB_VARIABLE) == tag:
                found[process.pid] = process
    return list(found.values())


def kill(pid: int, tag: str) -> None:
    """Kill a process's tree, and whatever else carries the tag; not this process."""
    for process in tree(pid, tag):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid != os.getpid():
                process.kill()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a temporary folder that is locked as long as it is in use."""
    made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
    with made as name, lock(Path(name) / ".lock", "in use"):
        yield Path(name)


def own_kernel(folder: Path) -> dict[str, str]:
    """Write a ``python3`` kernel that is this interpreter; return the variables that make Jupyter prefer it."""
    write_kernel_spec(folder / "kernels" / "python3", {"display_name": "Python 3 (PudNet Kit)"})
    searched = [str(folder.resolve()), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    return {"JUPYTER_PATH": os.pathsep.join(searched)}


def execute(place: Path) -> None:
    """Run ``source.ipynb`` beside a ``job.json`` with papermill, and write ``outcome.json``."""
    import resource  # there is none on Windows

    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    started, folder, job = time.monotonic(), place.parent, json.loads(place.read_text(encoding="utf-8"))
    limit = job["time_limit"]

    def cell_started(cell: Any, cell_index: int) -> None:
        if cell.cell_type == "code":
            print(json.dumps({"cell": cell_index}), flush=True)

    left: Any = {"timeout_func": lambda cell: max(1, int(limit - (time.monotonic() - started)))}
    how: Any = {"kernel_name": "python3", "progress_bar": False, "cwd": job["cwd"], "on_cell_start": cell_started}
    given, made, status, error = str(folder / "source.ipynb"), str(folder / "executed.ipynb"), "ok", ""
    try:
        execute_notebook(given, made, job["parameters"], start_timeout=120, execution_timeout=int(limit), **left, **how)
    except PapermillExecutionError as failure:
        status, error = "failed", f"{failure.ename}: {failure.evalue}"
    except (CellTimeoutError, TimeoutError):
        status, error = "timeout", f"not done after {limit:g} s"
    except DeadKernelError:
        status, error = "failed", "the kernel died; was there enough memory?"
    # The kernel is this process's only child, and it has ended.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    took = {"seconds": round(time.monotonic() - started, 2), "peak_memory_mb": round(peak, 1)}
    write_atomically(place.with_name("outcome.json"), json.dumps({"status": status, "error": error, **took}).encode())


def _stop() -> None:
    kill(os.getpid(), os.environ.get(JOB_VARIABLE, ""))
    os._exit(1)


if __name__ == "__main__":
    end_with_parent(_stop)
    execute(Path(sys.argv[1]))
