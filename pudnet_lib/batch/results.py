"""From an experiment's table to its result file: intervals, figures as SVG, and publish(), a notebook's last cell.

Our choice; the paper has no counterpart. Where results go is settled in places.py.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from pudnet_lib.batch.places import file_stem, project_root, results_folder
from pudnet_lib.errors import PudNetError
from pudnet_lib.profiles import replace_fields, seconds_since_configure
from pudnet_lib.results import Headline, atomic_write, provenance, write_result

VARIANT_VARIABLE = "PUDNET_VARIANT"
#: A larger figure makes the report page slow; rasterise its dense parts (``rasterized=True``).
MAX_SVG_BYTES = 1_500_000


#: Columns that number the values; their means say nothing.
COUNTERS = ("value", "seed", "episode", "index", "fold")


def summarise(table: pd.DataFrame, by: Sequence[str] = ("method", "dataset", "metric")) -> pd.DataFrame:
    """Turn a long-form table into means with 95 % intervals.

    The interval is Student's t over all values of a row (episodes × seeds taken as independent); one value has none.
    Other numeric columns, such as ``chance`` and ``prediction_seconds``, are averaged.

    Args:
        table: One row a measured value: ``by`` columns, ``value``, and possibly ``seed`` and more numeric columns.
        by: What makes a row of the summary; columns that the table lacks are left out.

    Returns:
        One row a combination, in order of appearance: ``by``, mean, low, high, n, seeds, other numeric columns.

    Raises:
        PudNetError: If there is no ``value`` column or no row.
    """
    if "value" not in table or table.empty:
        raise PudNetError(
            f"summarise needs rows with a 'value' column; got {len(table)} rows of {list(table.columns)}."
        )
    keys = [name for name in by if name in table]
    numeric = [c for c in table.select_dtypes("number") if c not in (*keys, *COUNTERS)]
    rows = []
    for values, part in table.groupby(keys, sort=False, dropna=False):
        sample = part["value"].dropna().to_numpy(dtype=float)
        n = len(sample)
        mean = float(sample.mean()) if n else np.nan
        half = float(stats.t.ppf(0.975, n - 1) * stats.sem(sample)) if n > 1 else np.nan
        row = dict(zip(keys, values, strict=True)) | {"mean": mean, "low": mean - half, "high": mean + half, "n": n}
        row["seeds"] = int(part["seed"].nunique()) if "seed" in part else 1
        rows.append(row | {name: float(part[name].mean()) for name in numeric})
    return pd.DataFrame(rows)


def publish(
    experiment: ModuleType,
    table: pd.DataFrame,
    config: Any,
    profile: str,
    *,
    answer: str,
    figures: Mapping[str, tuple[Figure, str]] | None = None,
    headline: Sequence[Headline] = (),
    by: Sequence[str] = ("method", "dataset", "metric"),
    seconds: float | None = None,
    variant: str = "",
) -> Path:
    """Write an experiment's result file and figures; the last cell of each notebook calls this.

    Args:
        experiment: The experiment's module, with ``TITLE``, ``QUESTION`` and ``PROFILES``.
        table: What its ``run`` returned (long form with ``value``), or a table that has ``mean`` already.
        config: The config that ``configure`` returned.
        profile: The parameters cell's profile.
        answer: One sentence made from the numbers.
        figures: Name → (matplotlib figure, alternative text that says what is to be seen).
        headline: Lines of the report's headline table, if the experiment has any.
        by: What makes a row of the table of results.
        seconds: Wall-clock seconds; by default those since ``configure`` (with the pauses, in a notebook left open).
        variant: Makes the result one beside the profile's own, such as "emoji for tiny-imagenet".

    Returns:
        The JSON file.

    Raises:
        PudNetError: If the module lacks one of its names, or something does not fit the schema (no result is written).
    """
    missing = [name for name in ("TITLE", "QUESTION", "PROFILES") if not hasattr(experiment, name)]
    if missing:
        raise PudNetError(f"Experiment {experiment.__name__} lacks {', '.join(missing)}; add them to its module.")
    elapsed = seconds_since_configure() if seconds is None else seconds
    name = experiment.__name__.rpartition(".")[2]
    variant = ", ".join(part for part in (os.environ.get(VARIANT_VARIABLE, ""), variant) if part)
    folder = results_folder(profile, as_profiled=_as_profiled(experiment, config, profile))
    stem = file_stem(f"{name}.{profile}", variant)
    drawn = {key: (svg_text(figure, f"{stem}-{key}"), alt) for key, (figure, alt) in (figures or {}).items()}
    entries = [{"name": key, "alt": alt, "file": f"{stem}.{key}.svg"} for key, (_, alt) in drawn.items()]
    # Figures first: a result file that exists names only figures that exist.
    for entry, (text, _) in zip(entries, drawn.values(), strict=True):
        atomic_write(folder / entry["file"], text)
    path = folder / f"{stem}.json"
    write_result(
        path,
        name,
        experiment.QUESTION,
        answer,
        table if "mean" in table else summarise(table, by),
        provenance(config, elapsed),
        headline,
        title=experiment.TITLE,
        profile=profile,
        variant=variant,
        figures=entries,
    )
    root = project_root()
    print(f"Results: {path.relative_to(root) if path.is_relative_to(root) else path.name}")
    return path


def _as_profiled(experiment: ModuleType, config: Any, profile: str) -> bool:
    """Tell whether a config is its profile's own, but for the seed."""
    return bool(replace_fields(experiment.PROFILES[profile], {"seed": getattr(config, "seed", None)}) == config)


def svg_text(figure: Figure, name: str) -> str:
    """Draw a figure as SVG: text stays text, the same figure gives the same bytes, backgrounds can be restyled.

    Args:
        figure: A matplotlib figure; it is not changed for the eye.
        name: Makes the ids inside the file unique on a page with many figures.

    Returns:
        The file's text, without XML header.

    Raises:
        PudNetError: If the drawing is larger than ``MAX_SVG_BYTES``.
    """
    figure.patch.set_gid("background-figure")
    for number, axes in enumerate(figure.axes):
        axes.patch.set_gid(f"background-axes-{number}")
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    if len(text) > MAX_SVG_BYTES:
        raise PudNetError(
            f"Figure {name} takes {len(text) / 1e6:.1f} MB as SVG; expected at most {MAX_SVG_BYTES / 1e6:.1f} MB. "
            "Draw its dense parts with rasterized=True, or fewer points."
        )
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(r"[ \t]+\n", "\n", text)
