"""``pudnet reproduce``: run notebooks, keep what they found, go on where a killed batch stopped.

Our choice; the paper has no counterpart. A run is kept in ``reports/runs/PROFILE/NAME`` and moved there in one step, so
that it is there whole or not at all; laptop and paper results are then copied to the committed ``reports/results``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pudnet_lib.batch.engines import Progress, run_dask, run_local
from pudnet_lib.batch.places import project_root
from pudnet_lib.batch.plan import find_notebooks, make_jobs
from pudnet_lib.batch.runner import Job, Outcome
from pudnet_lib.errors import PudNetError
from pudnet_lib.results import atomic_write, git_commit


@dataclass(frozen=True)
class BatchConfig:
    """How notebooks are run.

    Attributes:
        profile: smoke (CI, seconds), laptop (2 cores, minutes) or paper (a GPU).
        seeds: Run each notebook once a seed.
        time_limit: Seconds a notebook; by default 180 (smoke), 1200 (laptop), 86400 (paper).
        idle_limit: Seconds without any processor time after which a notebook counts as hung and is run once more.
        jobs: Notebooks at a time on this machine; each gets its share of the cores.
        engine: local (this machine) or dask (a cluster).
        scheduler: Address of the dask scheduler, such as tcp://head:8786.
        gpus: GPU resources that a notebook takes on a dask worker (workers started with --resources GPU=1).
        force: Run again what is done already.
    """

    profile: str = "laptop"
    seeds: tuple[int, ...] = ()
    time_limit: float | None = None
    idle_limit: float = 120.0
    jobs: int = 1
    engine: Literal["local", "dask"] = "local"
    scheduler: str = ""
    gpus: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise PudNetError(f"jobs is {self.jobs}; expected at least 1.")
        if self.engine == "dask" and not self.scheduler:
            raise PudNetError("The dask engine needs --scheduler ADDRESS, such as tcp://head:8786.")


@dataclass(frozen=True)
class Run:
    """What is known of a run; stored as ``run.json``.

    Attributes:
        name: The job's name.
        profile: The profile.
        variant: Which member of a fan-out.
        status: "ok", "failed" or "timeout".
        error: One line; after a hang also of a run that is ok.
        seconds: Wall-clock seconds.
        peak_memory_mb: The kernel's largest resident memory, MB.
        attempts: 2 after a hang.
        digest: Content hash of all that the run depends on.
        parameters: What was injected.
        commit: The code's commit.
        finished: Time of the end, ISO 8601, UTC.
    """

    name: str
    profile: str
    variant: str
    status: str
    error: str
    seconds: float
    peak_memory_mb: float
    attempts: int
    digest: str
    parameters: dict[str, Any]
    commit: str
    finished: str


def read_run(folder: Path) -> Run | None:
    """Read a run's record; None where there is none, or one of an older form."""
    try:
        return Run(**json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def read_runs(folder: Path) -> list[tuple[Path, Run]]:
    """Read all runs of a profile's folder, in order of their names."""
    found = ((path, read_run(path)) for path in sorted(folder.glob("*")) if not path.name.startswith("."))
    return [(path, run) for path, run in found if run is not None]


def reproduce(
    notebooks: Sequence[str] = (),
    config: BatchConfig | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    out_dir: Path | None = None,
    show: Callable[[list[str]], contextlib.AbstractContextManager[Progress]] | None = None,
) -> list[Run]:
    """Run notebooks that are not done yet; one that fails does not stop the others.

    Args:
        notebooks: Paths, names or numbers; by default all.
        config: How to run them.
        grid: Parameter or config field → values to fan out over.
        out_dir: Where runs are kept, by default ``reports/runs``.
        show: Makes the progress display for the names of the jobs; none by default.

    Returns:
        One record a job, done earlier or now.

    Raises:
        PudNetError: If anything about the request is wrong (nothing has run then), or another batch is at work here.
    """
    config, root = config or BatchConfig(), project_root()
    folder = (out_dir or root / "reports" / "runs") / config.profile
    paths = find_notebooks(notebooks, root / "notebooks")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = make_jobs(
        paths,
        config.profile,
        config.seeds,
        grid,
        config.time_limit,
        config.idle_limit,
        # A share of the cores each; a single job decides by itself.
        threads=max(1, cores // config.jobs) if config.jobs > 1 and config.engine == "local" else 0,
    )
    folder.mkdir(parents=True, exist_ok=True)
    results = root / "reports" / "results" if config.profile != "smoke" else None
    with _only_one(folder):
        for leftover in folder.glob(".*.new"):
            shutil.rmtree(leftover)
        done = {} if config.force else {job.name: run for job in jobs if (run := _finished(folder, job))}
        with show([job.name for job in jobs]) if show else contextlib.nullcontext(_silent) as progress:
            for run in done.values():
                progress(run.name, f"done before ({run.seconds:.0f} s)")
                _promote(folder / run.name, results)
            for job, outcome in _outcomes([job for job in jobs if job.name not in done], config, progress):
                done[job.name] = _keep(folder, job, outcome)
                _promote(folder / job.name, results)
                progress(job.name, _word(done[job.name]))
    return [done[job.name] for job in jobs]


def _silent(name: str, word: str) -> None:
    pass


def _word(run: Run) -> str:
    if run.status == "ok":
        return f"done in {run.seconds:.0f} s, {run.peak_memory_mb:.0f} MB" + (f" ({run.error})" if run.error else "")
    return f"FAILED: {run.error}"


def _outcomes(jobs: Sequence[Job], config: BatchConfig, progress: Progress) -> Iterator[tuple[Job, Outcome]]:
    if not jobs:
        return iter(())
    if config.engine == "dask":
        return run_dask(jobs, config.scheduler, progress, {"GPU": config.gpus} if config.gpus else None)
    return run_local(jobs, config.jobs, progress)


def _finished(folder: Path, job: Job) -> Run | None:
    """Tell whether a job is done: a good run of the same content hash, all its files there."""
    run = read_run(folder / job.name)
    whole = run is not None and run.status == "ok" and run.digest == job.digest
    return run if whole and (folder / job.name / "executed.ipynb").exists() else None


def _keep(folder: Path, job: Job, outcome: Outcome) -> Run:
    """Write a run's folder beside its place and move it there in one step."""
    facts = {name: value for name, value in vars(outcome).items() if name != "files"}
    run = Run(
        name=job.name,
        profile=job.profile,
        variant=job.variant,
        digest=job.digest,
        parameters=job.parameters,
        commit=git_commit(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    )
    new = folder / f".{job.name}.new"
    for name, data in outcome.files.items():
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_bytes(data)
    atomic_write(new / "run.json", json.dumps(dataclasses.asdict(run), indent=1))
    shutil.rmtree(folder / job.name, ignore_errors=True)
    new.rename(folder / job.name)
    return run


def _promote(run_folder: Path, results: Path | None) -> None:
    """Copy a run's result files to the committed ones, figures first, and remove figures that it no longer has."""
    if results is None:
        return
    for path in sorted((run_folder / "results").glob("*"), key=lambda path: path.suffix == ".json"):
        text, target = path.read_text(encoding="utf-8"), results / path.name
        old = target.read_text(encoding="utf-8") if target.exists() else ""
        if old == text:
            continue
        atomic_write(target, text)
        if path.suffix == ".json" and old:
            kept = {figure["file"] for figure in json.loads(text)["figures"]}
            for figure in json.loads(old).get("figures", []):
                if figure["file"] not in kept:
                    (results / figure["file"]).unlink(missing_ok=True)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; a killed process releases it."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PudNetError(f"Another batch is at work in {folder.name}; wait for it or stop it.") from None
        yield
