"""What a batch has to run: notebooks × seeds × grid, each job with a content hash of all that it depends on.

The hash covers the cells, the package's code and data, parameters and versions; images elsewhere need ``force``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

from pudnet_lib.batch.notebook import check_parameters, experiment_id, read_notebook, strip
from pudnet_lib.batch.runner import Job
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.profiles import known_profile
from pudnet_lib.results import file_stem, versions

PACKAGE = Path(__file__).parents[1]
#: Parts of the package that no notebook's result depends on.
BESIDE_THE_POINT = ("cli", "__main__.py", "batch/")
TIME_LIMITS = {"smoke": 180.0, "laptop": 1200.0, "paper": 24 * 3600.0}


@cache
def package_digest() -> str:
    """Hash the package's code and data (SHA-256), without what no result depends on."""
    total = hashlib.sha256()
    for name in sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*") if p.is_file()):
        if "__pycache__" not in name and not name.startswith(BESIDE_THE_POINT):
            total.update(name.encode() + b"\0" + hashlib.sha256((PACKAGE / name).read_bytes()).digest())
    return total.hexdigest()


def digest(notebook: nbformat.NotebookNode, parameters: Mapping[str, Any], profile: str) -> str:
    """Hash all that a run depends on (SHA-256)."""
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
    facts = [cells, parameters, profile, package_digest(), versions()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def all_notebooks(folder: Path) -> list[Path]:
    """List the experiments: the notebooks of a folder, in order of their names."""
    return sorted(path for path in folder.glob("*.ipynb") if not path.name.startswith("."))


def find_notebooks(wanted: Sequence[str], folder: Path) -> list[Path]:
    """Find notebooks by path, file name, number ("02") or experiment ("intra_dataset")."""
    there = all_notebooks(folder)
    if not there and not wanted:
        raise PudNetError(f"There is no notebook in {folder}; run this in the project's folder.")
    found: list[Path] = []
    for name in wanted:
        stem = name.removesuffix(".ipynb")
        matches = [path for path in there if stem in (path.stem, path.stem.split("_")[0], experiment_id(path))]
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
        notebook = read_notebook(path)
        strip(notebook)
        for variant, chosen in variants(seeds, grid or {}):
            given = check_parameters(path, {"profile": profile, **chosen})
            name, source, place = file_stem(path.stem, variant), nbformat.writes(notebook), str(path.parent.resolve())
            facts = digest(notebook, given, profile), limit, idle_limit, place, threads
            jobs.append(Job(name, source, given, profile, variant, *facts))
    twice = [name for name, count in Counter(job.name.casefold() for job in jobs).items() if count > 1]
    twice += [n for n, count in Counter(experiment_id(p).casefold() for p in notebooks).items() if count > 1]
    if twice:
        raise PudNetError(f"Two jobs have the name {twice[0]}, and one would overwrite the other: rename one of them.")
    return jobs
