"""The large-scale experiment's figures and its table beside the paper's claims.

Our choice; the paper has no counterpart. A network trained from scratch is a curve over its seconds, not one point.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from pudnet_lib.batch.labels import end_labels
from pudnet_lib.batch.site import claims
from pudnet_lib.methods.contenders import REFINED_SHARED
from pudnet_lib.plots import METHOD_COLOURS, colour_of, figure, intervals
from pudnet_lib.studies.imagenet_tables import METRICS, TOP1, speed

#: Beside the curve; what is not here stands in the other figure only.
SHOWN = ("PudNet (kit)", "PudNet (paper)", "shared network", REFINED_SHARED, "ProtoNet", "fine-tuned")


def figure_seconds(summary: pd.DataFrame) -> Figure:
    """Draw accuracy against the seconds that a method spends on the unseen classes; a panel a metric.

    Args:
        summary: From ``imagenet.summary``.

    Returns:
        The figure; bars are 95 % intervals over classes and seeds, seconds on a logarithmic scale.
    """
    drawn, axes = figure(10.4, 3.8, 1, len(METRICS))
    for ax, metric in zip(axes[0], METRICS, strict=True):
        rows = summary[summary["metric"] == metric]
        scratch = rows[rows["method"].str.startswith("GC, ")].sort_values("prediction_seconds")
        colour = METHOD_COLOURS["from scratch"]
        _points(ax, scratch, colour)
        ax.plot(scratch["prediction_seconds"], scratch["mean"], color=colour)
        last = scratch.iloc[-1]
        ends = {"GC from scratch": (last["prediction_seconds"], float(last["mean"]), colour)}
        for row in rows[rows["method"].isin(SHOWN)].to_dict(orient="records"):
            name = str(row["method"])
            _points(ax, pd.DataFrame([row]), colour_of(name))
            ends[name] = (last["prediction_seconds"], float(row["mean"]), colour_of(name))
        ax.axhline(float(rows["chance"].mean()), color=METHOD_COLOURS["chance"], linestyle="--", linewidth=1)
        ax.annotate(
            "chance", (0.99, float(rows["chance"].mean())), (0, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", fontsize=9, color="#6a6a6a",
        )  # fmt: skip
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
        ax.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.4)))
        top = float(rows["high"].clip(upper=100).max())
        ax.set_ylim(0, 1.05 * top)
        ax.set_xlabel("seconds on the unseen classes (log scale)")
        ax.set_ylabel(f"{metric} (%)")
        end_labels(ax, ends)
    return drawn


def _points(ax: Axes, rows: pd.DataFrame, colour: str) -> None:
    error = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
    ax.errorbar(rows["prediction_seconds"], rows["mean"], yerr=error, fmt="o", color=colour, markersize=5, elinewidth=2)


def figure_accuracies(summary: pd.DataFrame) -> Figure:
    """Draw every method's top-1 accuracy, best at the top.

    Args:
        summary: From ``imagenet.summary``.

    Returns:
        The figure; bars are 95 % intervals over classes and seeds.
    """
    rows = summary[summary["metric"] == TOP1].sort_values("mean", ascending=False)
    drawn, axes = figure(7.2, 0.25 * len(rows) + 0.9)
    intervals(rows, axes[0, 0], unit=f"top-1 accuracy over {rows['ways'].iloc[0]} unseen classes (%)")
    return drawn


def table_of_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Put the measured ratios of seconds beside those that the paper's abstracts claim.

    Args:
        table: From ``imagenet.run``.

    Returns:
        One row a claim [abs] and design: setting, metric, from scratch, its seconds, predicted, its seconds, ratio, and
        the ratio to the shortest GC run that is as good ("none is" where none reaches the prediction).
    """
    rows: list[dict[str, Any]] = [
        {
            "setting": f"{claim['setting']} [abs]", "metric": claim["metric"], "from scratch": claim["scratch"],
            "seconds from scratch": claim["scratch_seconds"], "predicted": claim["predicted"],
            "seconds predicted": claim["predicted_seconds"], "ratio": claim["ratio"], "ratio at equal accuracy": "—",
        }
        for claim in claims()
    ]  # fmt: skip
    setting = f"measured: {table['target'].iloc[0]}, {table['ways'].iloc[0]} classes of {table['dataset'].iloc[0]}"
    for metric in METRICS:
        for row in speed(table, metric).to_dict(orient="records"):
            equal = f"{row['first_ratio']:.1f} × ({row['first_method']})" if row["first_method"] else "none is as good"
            rows.append(
                {
                    "setting": f"{setting}, {row['method']}", "metric": f"{metric}, %",
                    "from scratch": f"{row['scratch']:.1f}", "seconds from scratch": f"{row['scratch_seconds']:.1f} s",
                    "predicted": f"{row['predicted']:.1f}", "seconds predicted": f"{row['predicted_seconds']:.2f} s",
                    "ratio": f"{row['ratio']:.3g} ×", "ratio at equal accuracy": equal,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
