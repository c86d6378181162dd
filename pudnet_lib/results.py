"""Result files: what an experiment found, with everything needed to find it again.

Our choice; the paper has no counterpart. One small JSON file an experiment: question, one-sentence answer, a tidy table
with 95 % intervals, figures, and the provenance (config, seed, commit, versions, device, seconds, memory). Written
atomically and validated against ``report/result.schema.json`` on both ways, so that a half-written or hand-edited file
is noticed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import pandas as pd

from pudnet_lib.errors import PudNetError

SCHEMA_VERSION = 1
# What a result depends on; the working tree counts as changed only where one of these differs from the commit.
SOURCES = ("pudnet_lib", "notebooks", "benchmarks", "scripts", "pyproject.toml")
PACKAGES = ("pudnet-kit", "torch", "torchvision", "numpy", "pandas", "scikit-learn", "scikit-image", "torchmetrics")


@dataclasses.dataclass(frozen=True)
class Headline:
    """One line of the report's headline table: a predicted network beside one trained from scratch.

    Attributes:
        setting: Target network and dataset, in words.
        metric: What is compared, such as "top-1 accuracy, %".
        scratch: The metric of the network trained from scratch.
        scratch_seconds: Its training time in seconds.
        predicted: The metric of the predicted network.
        predicted_seconds: Its prediction time in seconds, recalibration and class means included.
        chance: The chance level of the metric.
        scratch_interval: 95 % interval (low, high).
        predicted_interval: 95 % interval (low, high).
        claim: Which of the seed's claims it stands beside: "draft", "imagenet", or "" for none.
    """

    setting: str
    metric: str
    scratch: float
    scratch_seconds: float
    predicted: float
    predicted_seconds: float
    chance: float
    scratch_interval: tuple[float, float] | None = None
    predicted_interval: tuple[float, float] | None = None
    claim: str = ""


def plain(value: Any) -> Any:
    """Turn a value into plain JSON: tuples to lists, NumPy scalars to numbers, floats to 7 digits, NaN to None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return str(value)


def provenance(config: Any, seconds: float, seed: int | None = None, **extra: Any) -> dict[str, Any]:
    """Record where a result comes from.

    Args:
        config: The experiment's frozen config.
        seconds: Wall-clock seconds that the experiment took.
        seed: The seed; by default the config's.
        **extra: More facts to keep.

    Returns:
        A plain dict: config, seed, seconds, commit, versions, device, peak memory in MB.
    """
    facts = {"config": config, "seed": getattr(config, "seed", None) if seed is None else seed, "seconds": seconds}
    facts |= {"commit": git_commit(), "versions": versions(), "device": device_name()}
    facts |= {"peak_memory_mb": peak_memory_mb(), "peak_gpu_memory_mb": _peak_gpu_memory_mb(), **extra}
    return dict(plain(facts))


def git_commit() -> str:
    """Name the commit of the code, with ``+dirty`` where code or notebooks differ from it; "unknown" outside git."""
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        # An installed package may lie inside somebody else's repository.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return "unknown"
        commit = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--", *(name for name in SOURCES if (root / name).exists()))
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("+dirty" if changed else "")


@cache
def versions() -> dict[str, str]:
    """List Python's version and those of the packages that a number may depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def device_name() -> str:
    """Name the machine's GPU, or its processor and the number of usable cores."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {usable} cores"


def peak_memory_mb() -> float:
    """Tell this process's largest resident memory so far, in MB (10⁶ bytes)."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux a child inherits its parent's ru_maxrss across exec.
        peak = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if peak:
            return int(peak[0].split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _peak_gpu_memory_mb() -> float | None:
    import torch

    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None


@cache
def _validator() -> Callable[[Any], Any]:
    schema = json.loads((Path(__file__).parent / "batch" / "result.schema.json").read_text(encoding="utf-8"))
    compiled: Callable[[Any], Any] = fastjsonschema.compile(schema)
    return compiled


def validate(result: Mapping[str, Any], source: str) -> None:
    """Check a result against the schema.

    Args:
        result: The parsed result.
        source: Where it comes from, for the message.

    Raises:
        PudNetError: Naming the first place that does not fit.
    """
    try:
        _validator()(result)
    except fastjsonschema.JsonSchemaValueException as error:
        reason = error.message.replace("data", "result", 1)
        raise PudNetError(f"{source} is no valid result file: {reason}. Run the experiment again.") from None


def atomic_write(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_result(
    path: Path | str,
    name: str,
    question: str,
    answer: str,
    rows: pd.DataFrame,
    provenance: Mapping[str, Any],
    headline: Sequence[Headline] = (),
    *,
    title: str = "",
    profile: str = "",
    variant: str = "",
    figures: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Write a result file, atomically.

    Args:
        path: The JSON file.
        name: The experiment's id, such as "intra_dataset".
        question: What the experiment asks, one sentence.
        answer: What it found, one sentence made from the numbers.
        rows: Tidy table, one row a method, dataset and metric; at least ``metric`` and ``mean``.
        provenance: From ``provenance``.
        headline: Lines of the report's headline table.
        title: Title of the card; by default made from the name.
        profile: The profile; by default the one in the provenance, if any.
        variant: Which member of a fan-out, such as "width=8, seed=1".
        figures: Entries with ``name``, ``alt`` (alternative text) and ``file``, relative to ``path``'s folder.

    Returns:
        The result as written.

    Raises:
        PudNetError: If it does not fit the schema; nothing is written then.
    """
    result = {
        "schema": SCHEMA_VERSION,
        "experiment": name,
        "variant": variant,
        "title": title or name.replace("_", " ").capitalize(),
        "question": question,
        "answer": answer,
        "profile": profile,
        "headline": plain(list(headline)),
        "rows": plain(rows.to_dict(orient="records")),
        "figures": plain(list(figures)),
        "provenance": plain(provenance),
    }
    validate(result, str(path))
    atomic_write(Path(path), json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return result


def read_result(path: Path | str) -> dict[str, Any]:
    """Read and check a result file.

    Raises:
        PudNetError: If it is missing, not JSON or does not fit the schema.
    """
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PudNetError(f"There is no result file {path}; run `pudnet reproduce` first.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PudNetError(f"{path} is no JSON file ({error}); run the experiment again.") from None
    validate(result, str(path))
    return dict(result)


def read_results(folder: Path | str) -> list[dict[str, Any]]:
    """Read all result files of a folder, in order of their file names."""
    return [read_result(path) for path in sorted(Path(folder).glob("*.json"))]
