"""One look for all figures: palette, style, and the drawings that several notebooks need, with seaborn.

Our choice. The palette is Okabe and Ito's, safe for colour-blind readers; a method keeps its colour in every figure.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from itertools import cycle, product
from typing import Any

import matplotlib as mpl
import matplotlib.font_manager
import numpy as np
import pandas as pd
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, NullFormatter
from PIL import Image

from pudnet_lib.core.episodes import Episode

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
#: A method has one colour in all figures, and methods of one kind share it; others take the palette in order.
METHOD_COLOURS = {
    "PudNet": "#0072B2", "PudNet (kit)": "#0072B2", "plain": "#332288", "PudNet (paper)": "#332288",
    "refined": "#8C6D31", "far swap": "#56B4E9", "near swap": "#CC79A7", "class attention": "#CC79A7",
    "from scratch": "#D55E00", "on pixels": "#000000", "on HOG": "#000000", "ImageNet-pretrained features": "#F0E442",
    **dict.fromkeys(("shared network", "constant embedding", "specialist"), "#009E73"),
    **dict.fromkeys(("fine-tuned", "pretrained", "linear head"), "#E69F00"),
    **dict.fromkeys(("ProtoNet", "MatchingNet", "Meta-Baseline", "Meta-DeepBDC", "MUSML", "chance"), "#7F7F7F"),
}  # fmt: skip
STYLE: dict[Any, Any] = {
    "figure.dpi": 110, "figure.facecolor": "white", "figure.constrained_layout.use": True, "font.size": 10,
    "axes.titlesize": 11, "axes.titlelocation": "left", "axes.titleweight": "medium", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "axes.prop_cycle": cycler(color=PALETTE),
    "grid.color": "#b0b0b0", "grid.alpha": 0.35, "grid.linewidth": 0.6, "lines.linewidth": 1.8,
    "svg.fonttype": "none", "image.cmap": "cividis",
}  # fmt: skip
#: Fonts that are tried in turn for a glyph, those that this machine has.
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "Yu Gothic", "Arial Unicode MS")
_INSTALLED = {font.name for font in mpl.font_manager.fontManager.ttflist}
# Names of classes are anybody's: a $ is a $, and a glyph that no font has is an empty box without a warning each.
_NAMES: dict[Any, Any] = {"text.parse_math": False, "font.family": [name for name in FONTS if name in _INSTALLED]}
STYLE |= _NAMES
mpl.rcParams.update(_NAMES)
warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from (current )?font")


def plain_text(text: object, most: int = 24) -> str:
    """A user's name on one line, at most so many characters, for labels and titles."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


class NotebookFigure(Figure):
    """A figure that a notebook shows as PNG without pyplot, and so without its global list of open figures."""

    def draw(self, renderer: Any) -> None:
        """Draw; a logarithmic axis says 0.01, for mathematical text is switched off."""
        for axis in (axis for ax in self.axes for axis in (ax.xaxis, ax.yaxis)):
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(NullFormatter())
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        drawn, small = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png", dpi=90)
        # A quarter of the size, so that a notebook stays light; this method alone keeps the palette's colours exactly.
        light = Image.open(drawn).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
        light.save(small, format="png", optimize=True)
        return small.getvalue()


def figure(width: float = 6.4, height: float = 3.4, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """Make an empty figure in the kit's style, without touching matplotlib's global state."""
    with mpl.rc_context(STYLE):
        drawn = NotebookFigure(figsize=(width, height))
        axes = drawn.subplots(rows, columns, squeeze=False)
    return drawn, axes


def colour_of(method: str, position: int = 0) -> str:
    """Give a method its colour: the fixed one ("PudNet, far swap" has that of "far swap"), or the palette's."""
    kind = method.rpartition(", ")[2]
    kind = kind[kind.find(" on ") + 1 :] if kind.endswith((" on pixels", " on HOG")) else kind
    kind = "ImageNet-pretrained features" if method.startswith("ImageNet-pretrained") else kind
    kind = "from scratch" if kind.endswith((" epoch", " epochs")) else kind
    return METHOD_COLOURS.get(kind, PALETTE[position % len(PALETTE)])


def intervals(
    rows: pd.DataFrame, axes: Axes, unit: str = "accuracy (%)", colours: Callable[[str, int], str] = colour_of,
    order: Sequence[str] = (),
) -> Axes:  # fmt: skip
    """Draw means with their 95 % intervals as labelled dots, one line a method; chance as a dashed line."""
    methods = [*order] or [str(name) for name in rows["method"]]
    _dots(axes, rows, methods, "{:.1f}", colours=colours)
    if "chance" in rows and rows["chance"].notna().any():
        axes.axvline(float(rows["chance"].mean()), color=METHOD_COLOURS["chance"], linestyle="--", linewidth=1)
    axes.set(xlabel=unit, ylim=(len(methods) - 0.4, -0.9))
    axes.set_yticks(range(len(methods)), methods)
    axes.grid(visible=False, axis="y")
    return axes


def accuracies(table: pd.DataFrame, summary: pd.DataFrame, datasets: Sequence[str] = ()) -> Figure:
    """Draw every method's accuracy: episodes as faint points, mean and 95 % interval, the numbers in the margin."""
    panels = [*datasets] or [*dict.fromkeys(summary["dataset"])]
    methods = [*dict.fromkeys(summary["method"])]
    drawn, axes = figure(2.6 + 2.3 * len(panels), 0.9 + 0.3 * len(methods), 1, len(panels))
    palette = {method: colour_of(method, place) for place, method in enumerate(methods)}
    for place, (dataset, ax) in enumerate(zip(panels, axes[0], strict=True)):
        points = table if dataset not in set(table["dataset"]) else table[table["dataset"] == dataset]
        means = points[points["method"].isin(methods)].groupby(["method", "episode"], sort=False)["value"].mean()
        look: Any = {"palette": palette, "size": 2.5, "alpha": 0.25, "legend": False, "jitter": 0.2}
        sns.stripplot(means.reset_index(), x="value", y="method", hue="method", order=methods, ax=ax, **look)
        intervals(summary[summary["dataset"] == dataset], ax, "accuracy, %", order=methods)
        ax.set(title=dataset, ylabel="", xlim=(0, 101))
        ax.tick_params(labelleft=place == 0)
    return drawn


def paired_gains(found: pd.DataFrame, title: str = "") -> Figure:
    """Draw paired gains in points with their 95 % intervals, one panel a dataset; zero is a line."""
    panels, rows = [*dict.fromkeys(found["dataset"])], [*dict.fromkeys(found["metric"])]
    drawn, axes = figure(2.6 + 2.0 * len(panels), 1.0 + 0.34 * len(rows), 1, len(panels))
    for place, (dataset, ax) in enumerate(zip(panels, axes[0], strict=True)):
        ax.axvline(0, color="#6a6a6a", linewidth=1)
        part = found[found["dataset"] == dataset]
        several = part["method"].nunique() > 1
        for shift, (method, mine) in enumerate(part.groupby("method", sort=False)):
            colour = colour_of(str(method), shift) if several else colour_of
            _dots(ax, mine, rows, "" if shift else "{:+.1f}", "metric", colour, 0.22 * shift)
        ax.set(title=dataset, xlabel="points", ylim=(len(rows) - 0.4, -0.6))
        ax.set_yticks(range(len(rows)), rows if place == 0 else [""] * len(rows))
        ax.grid(visible=False, axis="y")
    if title:
        drawn.suptitle(title, x=0.01, ha="left", fontsize=11)
    return drawn


def _dots(
    ax: Axes, rows: pd.DataFrame, order: Sequence[str], text: str, label: str = "method",
    colours: Callable[[str, int], str] | str = colour_of, shift: float = 0.0,
) -> None:  # fmt: skip
    """Means as dots with their intervals as bars, the numbers in the right margin."""
    for row in rows.to_dict(orient="records"):
        place, mean = order.index(str(row[label])), row["mean"]
        at, colour = place + shift, colours if isinstance(colours, str) else colours(str(row[label]), place)
        if np.isfinite(row["low"]):
            ax.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=3, alpha=0.5, solid_capstyle="round")
        ax.plot(mean, at, "o", color=colour, markersize=6, zorder=3)
        ax.annotate(text.format(mean), (1.01, at), xycoords=("axes fraction", "data"), va="center", fontsize=8)


def learning_curves(log: pd.DataFrame, columns: Sequence[str] = ("loss", "accuracy")) -> Figure:
    """Draw what meta-training logged against its steps: one panel a column, one colour a method, seeds as a band."""
    shown = [c for c in columns if c in log and log.loc[log[c].notna(), "step"].nunique() > 1]
    width = max(1, int(log["step"].max()) // 20)
    drawn, axes = figure(3.2 * len(shown) + 2.2, 3.0, 1, len(shown))
    palette = dict(zip(dict.fromkeys(log["method"]), cycle(PALETTE), strict=False))
    binned = log.assign(step=(np.ceil(log["step"] / width) * width).astype(int))
    for column, ax in zip(shown, axes[0], strict=True):
        part = binned.dropna(subset=[column]).groupby(["method", "seed", "step"], sort=False)[column].mean()
        look: Any = {"hue_order": [*palette], "palette": palette, "errorbar": ("pi", 100), "linewidth": 1.5}
        legend = column == shown[-1]
        sns.lineplot(part.reset_index(), x="step", y=column, hue="method", ax=ax, legend=legend, **look)
        ax.set(xlabel="meta-training step", ylabel=column)
    sns.move_legend(axes[0, -1], "upper left", bbox_to_anchor=(1.02, 1), title="", frameon=False, fontsize=8)
    return drawn


def accuracy_against_seconds(summary: pd.DataFrame, dataset: str, title: str = "") -> Figure:
    """Draw accuracy against the seconds that learning a dataset takes, on a logarithmic axis; names in the margin."""
    rows = summary[summary["dataset"] == dataset].sort_values("mean", ascending=False).reset_index(drop=True)
    drawn, axes = figure(7.6, 1.2 + 0.19 * len(rows))
    ax = axes[0, 0]
    for place, row in enumerate(rows.to_dict(orient="records")):
        colour = colour_of(str(row["method"]), place)
        if np.isfinite(row["low"]):
            ax.plot([row["seconds"]] * 2, [row["low"], row["high"]], color=colour, linewidth=2, alpha=0.4)
        ax.plot(row["seconds"], row["mean"], marker="os^Dv<>PX*hp"[place % 12], color=colour, linestyle="",
                markersize=7, label=f"{row['method']}: {row['mean']:.1f} %, {row['seconds']:.2g} s")  # fmt: skip
    ax.set(xscale="log", xlabel="seconds to learn a data set (CPU, one thread)", ylabel="accuracy, %", title=title)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), frameon=False, fontsize=8)
    return drawn


def show_episode(episode: Episode, names: Sequence[str] = (), each: int = 6) -> Figure:
    """Show an episode: one row a class; sketch, support and query side by side."""
    ways = len(episode.classes)
    drawn, axes = figure(9.0, 0.4 + 0.48 * ways, 1, 3)
    for part, ax in zip(("sketch", "support", "query"), axes[0], strict=True):
        images, labels = getattr(episode, part), getattr(episode, f"{part}_labels")
        rows = [images[labels == k][:each].float().cpu().numpy().transpose(0, 2, 3, 1) for k in range(ways)]
        tiles = [np.concatenate([*row, *[np.full_like(row[0], 255)] * (each - len(row))], 1) for row in rows]
        mosaic = np.concatenate(tiles) / (255 if max(t.max() for t in tiles) > 1 else 1)
        ax.imshow(mosaic.squeeze(), cmap="gray", interpolation="nearest", aspect="auto")
        ax.set(title=f"{part}: {len(images) // ways} per class", xticks=[])
        ax.grid(visible=False)
        size = len(mosaic) / ways
        labelled = [plain_text(names[int(c)]) if names else str(int(c)) for c in episode.classes]
        ax.set_yticks([size * (k + 0.5) for k in range(ways)], labelled if part == "sketch" else [""] * ways)
        ax.tick_params(length=0)
    return drawn


def heatmap(values: pd.DataFrame, title: str = "", unit: str = "") -> Figure:
    """Draw a table as a heat map with its numbers."""
    drawn, axes = figure(2.0 + 1.1 * values.shape[1], 1.1 + 0.55 * values.shape[0])
    sns.heatmap(values, annot=True, fmt=".1f", ax=axes[0, 0], cmap="cividis", cbar_kws={"label": unit}, linewidths=1)
    axes[0, 0].set(title=title)
    axes[0, 0].tick_params(axis="y", rotation=0)
    return drawn


def curves_by_steps(rows: pd.DataFrame, zero: bool = True) -> Figure:
    """Draw quantities against meta-training steps: one row of axes a width, one column a metric, a colour a method."""
    widths, metrics = sorted(rows["width"].unique()), [*dict.fromkeys(rows["metric"])]
    drawn, axes = figure(2.0 + 2.7 * len(metrics), 2.5 * len(widths), len(widths), len(metrics))
    for (width, metric), ax in zip(product(widths, metrics), axes.flat, strict=True):
        part = rows[(rows["width"] == width) & (rows["metric"] == metric)]
        for method, colour in zip(dict.fromkeys(rows["method"]), cycle(PALETTE), strict=False):
            mine = part[part["method"] == method].sort_values("step").astype({"low": float, "high": float})
            ax.plot(mine["step"], mine["mean"], marker="o", markersize=3, color=colour, label=method)
            ax.fill_between(mine["step"], mine["low"], mine["high"], color=colour, alpha=0.15, linewidth=0)
        if zero:
            ax.axhline(0, color="#6a6a6a", linewidth=1)
        ax.set(xscale="log", title=f"{metric}, width {width:g}")
        ax.set_xlabel("meta-training steps" if width == widths[-1] else "")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=8)
    return drawn
