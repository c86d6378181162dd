"""From result files to what the report page and README show: cards, rows as text, the headline table, inline figures.

Our choice; the paper has no counterpart.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pudnet_lib.batch.claims import CLAIMS
from pudnet_lib.batch.notebook import experiment_id
from pudnet_lib.profiles import PROFILE_NAMES

LABELS = {
    "method": "Method",
    "dataset": "Dataset",
    "metric": "Metric",
    "mean": "Mean ± 95 %",
    "n": "n",
    "seeds": "Seeds",
    "chance": "Chance",
    "prediction_seconds": "Prediction, s",
    "meta_training_seconds": "Meta-training, s",
}
NUMERIC = {"mean", "n", "seeds", "chance", "prediction_seconds", "meta_training_seconds"}


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with about four significant digits and thousands separators; a dash for none."""
    if value is None:
        return "—"
    if float(value).is_integer() and abs(value) < 1e12:
        return f"{value:,.0f}"
    decimals = max(0, digits - len(f"{abs(value):.0f}")) if abs(value) >= 1 else digits - 1
    text = f"{value:,.{min(decimals, 2 if abs(value) >= 10 else 3)}f}"
    return text if float(text.replace(",", "")) or not value else f"{value:.2g}"


def seconds(value: float | None) -> str:
    """Write a time: ``0.05 s``, ``42 s``, ``3 min 10 s``, ``2 h 5 min``."""
    if value is None:
        return "—"
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"


def memory(value: float | None) -> str:
    """Write a memory size given in MB."""
    return "—" if value is None else f"{value / 1000:.1f} GB" if value >= 1000 else f"{value:.0f} MB"


def with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    """Write ``74.6 ± 1.2``, or ``74.6 (73 to 77)`` where the interval is lopsided."""
    if mean is None or low is None or high is None:
        return number(mean)
    below, above = mean - low, high - mean
    if abs(above - below) > 0.05 * (abs(above) + abs(below)):
        return f"{number(mean)} ({number(low)} to {number(high)})"
    half = (high - low) / 2
    places = 1 if half >= 1 else 2 if half >= 0.1 else 3 if half >= 0.001 else 5
    return f"{mean:,.{places}f} ± {half:.{places}f}"


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def rows_as_text(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Lay a result's rows out as a table.

    Args:
        rows: The result's rows.

    Returns:
        Columns (``label``, ``numeric``) and cells as text; columns without any value are left out.
    """
    named = list(dict.fromkeys(key for row in rows for key in row))
    ordered = [key for key in LABELS if key in named] + [
        k for k in named if k not in LABELS and k not in ("low", "high")
    ]
    keys = [key for key in ordered if any(row.get(key) is not None for row in rows)]
    numeric = {k for k in keys if k in NUMERIC or all(_is_number(row.get(k)) for row in rows)}
    columns = [{"label": LABELS.get(k, k.replace("_", " ")), "numeric": k in numeric} for k in keys]

    def text(row: Mapping[str, Any], key: str) -> str:
        if key == "mean":
            return with_interval(row["mean"], row.get("low"), row.get("high"))
        value = row.get(key)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return number(value) if isinstance(value, int | float) else str(value or "—")

    return columns, [[text(row, key) for key in keys] for row in rows]


def headline_lines(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put the measured headlines under the claims that they stand beside.

    Args:
        results: Results, in the order in which they shall stand.

    Returns:
        Lines of text for the table.
    """
    measured = []
    for result in results:
        where = (result["title"], result["profile"], result["variant"], result["provenance"]["device"])
        for line in result["headline"]:
            low, high = line.get("scratch_interval") or (None, None)
            predicted_low, predicted_high = line.get("predicted_interval") or (None, None)
            took = line["predicted_seconds"]
            measured.append({
                "claim": line.get("claim", ""),
                "claimed": False,
                "setting": line["setting"],
                "source": f"measured here: {', '.join(part for part in where if part)}",
                "metric": line["metric"],
                "scratch": with_interval(line["scratch"], low, high),
                "scratch_seconds": seconds(line["scratch_seconds"]),
                "predicted": with_interval(line["predicted"], predicted_low, predicted_high),
                "predicted_seconds": seconds(took),
                "ratio": f"{number(line['scratch_seconds'] / took, 3)} ×" if took else "—",
                "chance": number(line["chance"]),
            })  # fmt: skip
    lines = []
    for claim in CLAIMS:
        lines.append({**claim, "claimed": True})
        lines += [line for line in measured if line["claim"] == claim["claim"]]
    return lines + [line for line in measured if not line["claim"]]


def episode_cards(results: Sequence[dict[str, Any]], notebooks: Sequence[Path]) -> list[dict[str, Any]]:
    """Episode results by experiment, in the notebooks' order; the largest profile without variant leads.

    Args:
        results: Results, prepared for display.
        notebooks: The notebooks, in order.

    Returns:
        Cards with ``main`` and ``others``.
    """
    order = [experiment_id(path) for path in notebooks]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        by_name.setdefault(result["experiment"], []).append(result)

    def place(name: str) -> tuple[int, str]:
        return (order.index(name) if name in order else len(order), name)

    def rank(result: dict[str, Any]) -> tuple[bool, int, str]:
        profile = PROFILE_NAMES.index(result["profile"]) if result["profile"] else -1
        return (bool(result["variant"]), -profile, result["variant"])

    cards = []
    for name in sorted(by_name, key=place):
        main, *others = sorted(by_name[name], key=rank)
        cards.append({"main": main, "others": others})
    return cards


def inline_svg(text: str, alt: str, name: str) -> str:
    """Make an SVG file's text fit into a page: unique ids, described, in the page's ink.

    Args:
        text: The file's text.
        alt: Alternative text.
        name: Unique on the page; put before every id.

    Returns:
        The element.
    """
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"(fill|stroke): #000000", r"\1: currentColor", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    # A page has one scope for style sheets: the file's own rule would reach every element.
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    label = f'<svg role="img" aria-label="{html.escape(alt)}" fill="currentColor" stroke-linejoin="round"'
    return re.sub(r'(<svg\b[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text.replace("<svg", label, 1), count=1)
