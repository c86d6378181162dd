"""Results: what an experiment found, with everything needed to find it again.

One small JSON file an experiment: question, answer, a tidy table with 95 % intervals, figures, and the provenance.
Files are written atomically and checked against ``batch/result.schema.json`` on both ways.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fastjsonschema
import matplotlib as mpl
import numpy as np
import pandas as pd
import psutil

from pudnet_lib.errors import PudNetError
from pudnet_lib.files import write_atomically
from pudnet_lib.profiles import known_profile

SCHEMA_VERSION = 1
RESULTS_VARIABLE, ROOT_VARIABLE, VARIANT_VARIABLE = "PUDNET_RESULTS", "PUDNET_ROOT", "PUDNET_VARIANT"
#: What a result depends on; the working tree counts as changed only where one of these differs from the commit.
SOURCES = ("pudnet_lib", "notebooks", "benchmarks", "scripts", "pyproject.toml")
PACKAGES = ("pudnet-kit", "torch", "torchvision", "numpy", "pandas", "scikit-learn", "scikit-image", "torchmetrics")
MAX_SVG_BYTES = 1_000_000  # a larger drawing makes the report page slow; it is kept as a picture instead


@dataclasses.dataclass(frozen=True)
class Headline:
    """One line of the report's headline table: a predicted network beside one trained from scratch.

    Attributes:
        setting: Target network and dataset, in words.
        metric: What is compared, such as "top-1 accuracy, %".
        scratch: The metric of the network trained from scratch; then its training time in seconds.
        predicted: The metric of the predicted network; then its prediction time, recalibration and class means
            included. Intervals (95 %) are (low, high).
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


def project_root() -> Path:
    """Find the project: ``PUDNET_ROOT``, else the nearest folder upwards with ``notebooks``, else the package's."""
    if os.environ.get(ROOT_VARIABLE):
        return Path(os.environ[ROOT_VARIABLE]).resolve()
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).parents[1]):
        if (folder / "notebooks").is_dir() and folder.name != "notebooks":
            return folder
    return here


def results_folder(profile: str) -> Path:
    """Tell where ``publish`` writes: where a batch says, else an ignored folder; never among the committed results."""
    named = os.environ.get(RESULTS_VARIABLE)
    return Path(named) if named else project_root() / "reports" / "runs" / profile / "by-hand" / "results"


def below(folder: Path, name: str) -> Path:
    """Resolve a name that a file gave below a folder; anything that leads out of it is refused."""
    bad = not name or "\0" in name or Path(name).is_absolute()
    if bad or folder.resolve() not in (folder / name).resolve().parents:
        why = "the file that holds it was not written by the kit"
        raise PudNetError(f"{name!r} is no name of a file in {folder.name}/; {why}.")
    return folder / name


def file_stem(name: str, variant: str = "") -> str:
    """Make a file name from a name and a variant: ``intra_dataset.laptop.width=8.seed=1``."""
    if not variant:
        return name
    wished = ".".join(part.strip() for part in variant.split(", "))
    stem = re.sub(r"[^A-Za-z0-9=_+.-]+", "-", wished)[:80].strip(".-")
    if stem != wished or stem != stem.lower():
        stem += "-" + hashlib.sha256(variant.encode()).hexdigest()[:6]
    return f"{name}.{stem}"


def plain(value: Any) -> Any:
    """Turn a value into plain JSON: tuples to lists, NumPy scalars to numbers, floats to 7 digits, NaN to None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    return value if isinstance(value, bool | int | str) else str(value)


def provenance(config: Any, seconds: float, seed: int | None = None, **extra: Any) -> dict[str, Any]:
    """Record where a result comes from."""
    import torch

    if seed is None:
        seed = config.get("seed") if isinstance(config, Mapping) else getattr(config, "seed", None)
    facts = {"config": config, "seed": seed, "seconds": seconds, "commit": git_commit(), "versions": versions()}
    facts |= {"device": device_name(), "threads": torch.get_num_threads(), "peak_memory_mb": peak_memory_mb()}
    gpu = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None
    return dict(plain(facts | {"peak_gpu_memory_mb": gpu, **extra}))


def git_commit() -> str:
    """Name the commit of the code, with ``+dirty`` where code or notebooks differ from it; "unknown" outside git."""
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, timeout=20).strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return "unknown"  # an installed package inside somebody else's repository
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
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@cache
def device_name() -> str:
    """Name the machine's GPU, or its processor and the number of usable cores."""
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    model = _proc("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {usable} core" + "s" * (usable != 1)


def _proc(path: str, name: str) -> str:
    """Read a value of one of Linux's tables; empty where there is none."""
    found = re.search(rf"^{name}\s*: *(.*)", Path(path).read_text() if Path(path).exists() else "", re.MULTILINE)
    return found[1].strip() if found else ""


def peak_memory_mb() -> float:
    """Tell this process's largest resident memory so far, in MB (10⁶ bytes)."""
    # Not getrusage: on Linux a child inherits its parent's ru_maxrss across exec.
    if peak := _proc("/proc/self/status", "VmHWM"):
        return int(peak.split()[0]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024) / 1e6


_fits = fastjsonschema.compile(json.loads((Path(__file__).parent / "batch" / "result.schema.json").read_bytes()))


def _validate(result: Mapping[str, Any], source: str) -> None:
    try:
        _fits(result)
    except fastjsonschema.JsonSchemaValueException as error:
        reason = error.message.replace("data", "result", 1)
        raise PudNetError(f"{source} is no valid result file: {reason}. Run the experiment again.") from None


def publish(
    name: str, table: pd.DataFrame, figures: Mapping[str, tuple[Any, str]] | None = None, *, question: str,
    answer: str, config: Any, profile: str, title: str = "", headline: Sequence[Headline | Mapping[str, Any]] = (),
    variant: str = "",
) -> Path:  # fmt: skip
    """Hand over what a notebook found; its last cell calls this.

    Args:
        name: The experiment's id: the notebook's name without its number, such as "intra_dataset".
        table: One row a method, dataset and metric: ``metric``, ``mean`` and, where they exist, ``method``,
            ``dataset``, ``low``, ``high`` (95 % interval), ``n``, ``seeds``, ``chance``, ``seconds``; other columns are
            kept. From raw ``value`` rows ``evaluate.summarise`` makes the means.
        figures: Name → (matplotlib figure, or a seaborn grid; alternative text that says what is to be seen).
        question: What the experiment asks, one sentence.
        answer: What it found, Markdown: yes or no with one number first, then at most two sentences.
        config: All that was chosen: a mapping or a dataclass.
        profile: The parameters cell's profile.
        title: The report's heading; by default made from the name.
        headline: Lines of the report's headline table, if the experiment has any.
        variant: Makes the result one beside the profile's own, such as "emoji for tiny-imagenet".

    Returns:
        The JSON file, in an ignored folder (``reports/runs/…``); ``pudnet reproduce --commit`` is what commits it.

    Raises:
        PudNetError: If something does not fit the schema; no result is written then.
    """
    known_profile(profile)
    if "mean" not in table and "value" in table:
        from pudnet_lib.evaluate import summarise

        table = summarise(table)
    if lacking := {"metric", "mean"} - set(table):
        found = f"{' or '.join(sorted(lacking))}, but {', '.join(map(str, table))}"
        raise PudNetError(f"publish: the table has no column {found}; expected one row a method, dataset and metric.")
    variant = ", ".join(filter(None, [os.environ.get(VARIANT_VARIABLE), variant]))
    stem = file_stem(f"{name}.{profile}", variant)
    path, entries, drawings = results_folder(profile) / f"{stem}.json", [], {}
    for key, (figure, alternative) in (figures or {}).items():
        suffix, content = drawing(figure, f"{stem}-{key}")
        entries.append({"name": key, "alt": alternative, "file": f"{stem}.{key}.{suffix}"})
        drawings[f"{stem}.{key}.{suffix}"] = content
    facts = provenance(config, time.time() - psutil.Process().create_time())
    more: Any = {"title": title, "profile": profile, "variant": variant, "figures": entries, "drawings": drawings}
    result = write_result(path, name, question, answer, table, facts, headline, **more)
    print(f"Published {path.stem}: {len(result['rows'])} rows, numbers {fingerprint(result)}")
    return path


def fingerprint(result: Mapping[str, Any]) -> str:
    """Tell a result's numbers and words from others: what a committed notebook prints must be its result file's."""
    said = [result[part] for part in ("answer", "headline", "rows")]
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]


def places(value: float) -> int:
    """Tell how many decimals a number is written with: about three digits, the one rounding of figures and tables."""
    size = abs(value)
    return 0 if size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3


def number(value: float | None) -> str:
    """Write a number with about three digits and thousands separators; a dash for none."""
    if value is None or not math.isfinite(value):
        return "—"
    if float(value).is_integer() and abs(value) < 1e12:
        return f"{value:,.0f}"
    text = f"{value:,.{places(value)}f}"
    return text if float(text.replace(",", "")) else f"{value:.2g}"


def with_interval(mean: float | None, low: float | None = None, high: float | None = None) -> str:
    """Write ``74.6 ± 1.2``, or ``74.6 (73.1 to 77.0)`` where the interval is lopsided."""
    if mean is None or low is None or high is None or not math.isfinite(mean + low + high):
        return number(mean)
    below_mean, above = mean - low, high - mean
    digits = places(max(abs(mean), abs(low), abs(high)))
    if abs(above - below_mean) > 0.1 * (above + below_mean):
        return f"{mean:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"
    return f"{mean:,.{digits}f} ± {(high - low) / 2:.{digits}f}"


def duration(value: float | None) -> str:
    """Write a time: ``0.05 s``, ``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    if value is None or value < 10:
        return "—" if value is None else f"{value:.2g} s"
    if (whole := round(value)) < 120:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"


def drawing(figure: Any, name: str) -> tuple[str, bytes]:
    """Draw a matplotlib figure (or a seaborn grid) as SVG, or as PNG where that would be very large."""
    figure = getattr(figure, "figure", None) or figure
    figure.patch.set_gid("background-figure")
    for number, axes in enumerate(figure.axes):
        axes.patch.set_gid(f"background-axes-{number}")
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    if len(text) > MAX_SVG_BYTES:
        picture = io.BytesIO()
        figure.savefig(picture, format="png", bbox_inches="tight", dpi=110, metadata={"Software": None})
        return "png", picture.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return "svg", re.sub(r"[ \t]+\n", "\n", text).encode()


def write_result(
    path: Path | str, name: str, question: str, answer: str, rows: pd.DataFrame, provenance: Mapping[str, Any],
    headline: Sequence[Headline | Mapping[str, Any]] = (), *, title: str = "", profile: str = "", variant: str = "",
    figures: Sequence[Mapping[str, str]] = (), drawings: Mapping[str, bytes] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write a result file, atomically."""
    result = {
        "schema": SCHEMA_VERSION, "experiment": name, "variant": variant,
        "title": title or name.replace("_", " ").capitalize(), "question": question, "answer": answer,
        "profile": profile, "headline": plain(list(headline)), "rows": plain(rows.to_dict(orient="records")),
        "figures": plain(list(figures)), "provenance": plain(provenance),
    }  # fmt: skip
    _validate(result, str(path))
    write_atomically(Path(path).with_suffix(".csv"), pd.DataFrame(result["rows"]).to_csv(index=False).encode())
    for file, content in (drawings or {}).items():  # first: a result that exists names only figures that exist
        write_atomically(Path(path).parent / file, content)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(Path(path), f"{text}\n".encode())
    return result


def read_result(path: Path | str) -> dict[str, Any]:
    """Read and check a result file."""
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PudNetError(f"There is no result file {path}; run `pudnet reproduce` first.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PudNetError(f"{path} is no JSON file ({error}); run the experiment again.") from None
    _validate(result, str(path))
    return dict(result)


def read_results(folder: Path | str) -> list[dict[str, Any]]:
    """Read all result files of a folder, in order of their file names."""
    return [read_result(path) for path in sorted(Path(folder).glob("*.json"))]
