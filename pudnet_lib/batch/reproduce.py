"""``pudnet reproduce``: run notebooks × seeds × grid, keep what they found, go on where a killed batch stopped.

A run is kept in ``reports/runs/PROFILE/NAME``, moved there in one step; it is done as long as its content hash stays:
cells, the package's code and data, parameters, versions (``force`` for images elsewhere).
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import nbformat
from pydantic import TypeAdapter

from pudnet_lib.batch import notebook as nb
from pudnet_lib.batch.runner import Job, Outcome, Progress, run_dask, run_local
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.files import lock, sweep, sync_folder, write_atomically
from pudnet_lib.images.cache import cache_folder
from pudnet_lib.profiles import known_profile
from pudnet_lib.results import below, file_stem, git_commit, project_root, read_result, versions

PACKAGE = Path(__file__).parents[1]
TIME_LIMITS = {"smoke": 180.0, "laptop": 1200.0, "paper": 24 * 3600.0}


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
        for name in ("time_limit", "idle_limit"):
            if (getattr(self, name) or 1) <= 0:
                raise PudNetError(f"{name} is {getattr(self, name)}; expected seconds above 0.")
        if self.gpus < 0 or any(seed < 0 for seed in self.seeds):
            raise PudNetError("A seed or the number of GPUs is negative; expected 0 or more.")
        if self.engine == "dask" and not self.scheduler:
            raise PudNetError("The dask engine needs --scheduler ADDRESS, such as tcp://head:8786.")


@dataclass(frozen=True)
class Run:
    """What is known of a run; stored as ``run.json``. ``error`` may tell of a hang in a run that is ok."""

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
    """Read a run's record; None where there is none, it is damaged, or it names another run than its folder."""
    try:
        run = TypeAdapter(Run).validate_json((folder / "run.json").read_bytes())
    except (OSError, ValueError):
        return None
    return run if (run.name, run.profile) == (folder.name, folder.parent.name) else None


def read_runs(folder: Path) -> list[tuple[Path, Run]]:
    """Read all runs of a profile's folder, in order of their names."""
    return [(path, run) for path in sorted(folder.glob("[!.]*")) if (run := read_run(path)) is not None]


def reproduce(
    notebooks: Sequence[str] = (), config: BatchConfig | None = None, grid: Mapping[str, Sequence[Any]] | None = None,
    out_dir: Path | None = None, show: Callable[[list[str]], AbstractContextManager[Progress]] | None = None,
) -> list[Run]:  # fmt: skip
    """Run notebooks that are not done yet; one that fails does not stop the others."""
    config, root = config or BatchConfig(), project_root()
    folder = (out_dir or root / "reports" / "runs") / config.profile
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A share of the cores each; a single job decides by itself.
    share = max(1, cores // config.jobs) if config.jobs > 1 and config.engine == "local" else 0
    limits, found = (config.time_limit, config.idle_limit), find_notebooks(notebooks, root / "notebooks")
    jobs = make_jobs(found, config.profile, config.seeds, grid, *limits, share)
    with lock(folder / ".lock", f"Another batch is at work in {folder.name}; wait for it or stop it."):
        sweep(folder, cache_folder())
        _recover(folder)
        done = {} if config.force else {job.name: run for job in jobs if (run := _finished(folder, job))}
        with show([job.name for job in jobs]) if show else nullcontext(lambda *_: None) as progress:
            for run in done.values():
                progress(run.name, f"done before ({run.seconds:.0f} s)")
            left = [job for job in jobs if job.name not in done]
            if config.engine == "dask":
                outcomes = run_dask(left, config.scheduler, progress, config.gpus) if left else iter(())
            else:
                outcomes = run_local(left, config.jobs, progress)
            for job, outcome in outcomes:
                run = done[job.name] = _keep(folder, job, outcome)
                good = f"done in {run.seconds:.0f} s, {run.peak_memory_mb:.0f} MB" + f" ({run.error})" * bool(run.error)
                progress(job.name, good if run.status == "ok" else f"FAILED: {run.error}")
    return [done[job.name] for job in jobs]


def commit(runs: Sequence[Run], out_dir: Path | None = None) -> list[Path]:
    """Make good runs the committed results: ``reports/results``, and the outputs of the notebooks themselves."""
    root = project_root()
    bad = next((run for run in runs if run.status != "ok" or run.profile == "smoke"), None)
    if bad:
        why = "is a smoke run" if bad.profile == "smoke" else f"failed ({bad.error})"
        raise PudNetError(f"{bad.name} {why}; only good runs of laptop or paper are committed.")
    new, notebooks, old = dict[Path, bytes](), {}, set()
    for run in runs:
        folder = (out_dir or root / "reports" / "runs") / run.profile / run.name
        for path in sorted((folder / "results").glob("*.json")):
            target, result = root / "reports" / "results" / path.name, read_result(path)
            for name in [*(figure["file"] for figure in result["figures"]), f"{path.stem}.csv", path.name]:
                new[target.parent / name] = below(path.parent, name).read_bytes()
            with contextlib.suppress(PudNetError):  # what is damaged is overwritten
                old |= {below(target.parent, figure["file"]) for figure in read_result(target)["figures"]}
        source = next((path for path in all_notebooks(root / "notebooks") if path.stem == run.name), None)
        if source and not run.variant and run.parameters.get("profile") == "laptop":
            notebooks[source] = nb.with_outputs(source, nb.read_notebook(folder / "executed.ipynb"), root)
    changed = [path for path, content in new.items() if not path.exists() or path.read_bytes() != content]
    for path in changed:
        write_atomically(path, new[path])
    for path in old - set(new):
        path.unlink(missing_ok=True)
    for path, notebook in notebooks.items():
        before = path.read_bytes()
        nb.write_notebook(path, notebook)
        changed += [path] if path.read_bytes() != before else []
    return changed


def _finished(folder: Path, job: Job) -> Run | None:
    """Tell whether a job is done: a good run of the same content hash, its files there and whole."""
    run = read_run(folder / job.name)
    if run is not None and (run.status, run.digest) == ("ok", job.digest):
        with contextlib.suppress(PudNetError, OSError):
            nb.read_notebook(folder / job.name / "executed.ipynb")
            for path in (folder / job.name / "results").glob("*.json"):
                for figure in read_result(path)["figures"]:
                    below(path.parent, figure["file"]).stat()
            return run
    return None


def _recover(folder: Path) -> None:
    """Clear what a killed batch left: a run that was set aside comes back where no newer one took its place."""
    for aside in folder.glob(".*.old"):
        place = folder / aside.name[1 : -len(".old")]
        if not place.exists():
            aside.rename(place)
    for leftover in (*folder.glob(".*.old"), *folder.glob(".*.new")):
        shutil.rmtree(leftover)


def _keep(folder: Path, job: Job, outcome: Outcome) -> Run:
    """Write a run's folder beside its place and move it there; the older run is set aside until then."""
    facts = {name: value for name, value in vars(outcome).items() if name != "files"}
    facts |= {name: getattr(job, name) for name in ("name", "profile", "variant", "digest", "parameters")}
    run = Run(**facts, commit=git_commit(), finished=datetime.now(UTC).isoformat(timespec="seconds"))
    new, aside, place = folder / f".{job.name}.new", folder / f".{job.name}.old", folder / job.name
    try:
        for name, data in outcome.files.items():
            write_atomically(below(new, name), data)
        write_atomically(new / "run.json", json.dumps(dataclasses.asdict(run), indent=1).encode())
        if place.exists():
            place.rename(aside)
        new.rename(place)
        sync_folder(folder)
        shutil.rmtree(aside, ignore_errors=True)
    except (OSError, PudNetError) as error:  # a full disk: the other notebooks still get their chance
        shutil.rmtree(new, ignore_errors=True)
        return dataclasses.replace(run, status="failed", error=f"its files could not be kept: {error}")
    return run


@cache
def package_digest() -> str:
    """Hash the package's code and data (SHA-256), without what no result depends on."""
    total = hashlib.sha256()
    for name in sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*") if p.is_file()):
        if "__pycache__" not in name and not name.startswith(("cli", "__main__.py", "batch/")):
            total.update(name.encode() + b"\0" + hashlib.sha256((PACKAGE / name).read_bytes()).digest())
    return total.hexdigest()


def all_notebooks(folder: Path) -> list[Path]:
    """List the experiments: the notebooks of a folder, in order of their names."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def find_notebooks(wanted: Sequence[str], folder: Path) -> list[Path]:
    """Find notebooks by path, file name, number ("02") or experiment ("intra_dataset")."""
    if not (there := all_notebooks(folder)) and not wanted:
        raise PudNetError(f"There is no notebook in {folder}; run this in the project's folder.")
    found: list[Path] = []
    for name in wanted:
        stem = name.removesuffix(".ipynb")
        matches = [path for path in there if stem in (path.stem, path.stem.split("_")[0], nb.experiment_id(path))]
        if not matches and not Path(name).is_file():
            raise unknown_name("notebook", stem, [path.stem for path in there])
        found += [Path(name)] if Path(name).is_file() else matches
    return list(dict.fromkeys(path.resolve() for path in found)) if wanted else there


def variants(seeds: Sequence[int], grid: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Fan out: (name such as "width=8, seed=1", parameters) for each combination; one nameless one without any."""
    axes = {**grid, **({"seed": list(seeds)} if seeds else {})}
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        yield ", ".join(f"{name}={_word(value)}" for name, value in chosen.items()), chosen


def _word(value: Any) -> str:
    """Write a value so that no two values are written alike, and without the comma that separates parameters."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_/.~][\w/.~+ -]*", value)
    text = value if plain and value not in ("true", "false", "null") else json.dumps(value, ensure_ascii=False)
    return str(text).replace(", ", ";") if not isinstance(value, str) else str(text).replace(",", "\\u002c")


def make_jobs(
    notebooks: Sequence[Path], profile: str, seeds: Sequence[int] = (), grid: Mapping[str, Sequence[Any]] | None = None,
    time_limit: float | None = None, idle_limit: float = 120.0, threads: int = 0,
) -> list[Job]:  # fmt: skip
    """Make the jobs of a batch; everything that can be checked is checked here, before anything runs."""
    limit = TIME_LIMITS[known_profile(profile)] if time_limit is None else time_limit
    jobs = []
    for path in notebooks:
        notebook = nb.read_notebook(path)
        nb.strip(notebook)
        cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
        for variant, chosen in variants(seeds, grid or {}):
            given = nb.check_parameters(path, {"profile": profile, **chosen})
            name, source, place = file_stem(path.stem, variant), nbformat.writes(notebook), str(path.parent.resolve())
            depends = json.dumps([cells, given, profile, package_digest(), versions()], sort_keys=True)
            digest = hashlib.sha256(depends.encode()).hexdigest()
            jobs.append(Job(name, source, given, profile, variant, digest, limit, idle_limit, place, threads))
    twice = [name for name, count in Counter(job.name.casefold() for job in jobs).items() if count > 1]
    twice += [n for n, count in Counter(nb.experiment_id(p).casefold() for p in notebooks).items() if count > 1]
    if twice:
        raise PudNetError(f"Two jobs have the name {twice[0]}, and one would overwrite the other: rename one of them.")
    return jobs
