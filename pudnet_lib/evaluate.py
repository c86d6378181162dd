"""Evaluation on episodes of unseen classes: accuracy with intervals, chance level, seconds, and the controls.

Paper, Section 4 [rec]: accuracy of predicted networks on unseen classes. Our choice: far swap (the sketch of another
source) and near swap (the sketch of other classes of the same source) stand beside every prediction; they tell whether
the hypernetwork knows what *kind* of images it sees, and *which classes*. Batch norm is recalibrated and class means
are taken on the episode's sketch and support, by all methods alike. ``measure`` gives one long table, ``summarise``,
``gains`` and ``difference`` read it, and every interval is made in one way: crossed over seeds and episodes.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import chain, product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats
from torch import Tensor, nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import Episode, EpisodeSampler
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig
from pudnet_lib.errors import PudNetError, unknown_name
from pudnet_lib.files import write_atomically
from pudnet_lib.images.cache import cache_folder
from pudnet_lib.methods.training import Run, run_folder
from pudnet_lib.parallel import parallel

Swap = Literal["own", "far", "near"]
#: Controls by their names in tables.
CONTROLS: dict[str, Swap] = {"far swap": "far", "near swap": "near"}


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; ``n`` values from ``seeds`` seeds."""

    mean: float
    low: float
    high: float
    n: int
    seeds: int = 1

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"

    def signed(self) -> str:
        """As text with signs, for differences: "+1.2 [-0.3, +2.7]"."""
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Student's 95 % interval of independent values."""
    x = np.asarray(values, dtype=float)
    if len(x) < 2 or not np.isfinite(x).all():
        raise PudNetError(f"An interval needs at least two finite values; got {len(x)}: {x[:5]}.")
    mean, low, high = (float(bound[0]) for bound in student_bounds(x[:, None]))
    return Interval(mean, low, high, len(x))


def crossed_interval(values: np.ndarray) -> Interval:
    """95 % interval of (S, G) values: the same G episodes, measured with S seeds of meta-training."""
    s, g = values.shape
    if s == 1:
        return interval(values[0])
    mean = float(values.mean())
    seed_mean, episode_mean = values.mean(1), values.mean(0)
    ms_seed, ms_episode = g * seed_mean.var(ddof=1), s * episode_mean.var(ddof=1)
    rest = values - seed_mean[:, None] - episode_mean[None] + mean
    ms_rest = float((rest**2).sum()) / ((s - 1) * (g - 1))
    of_seeds = max(ms_seed - ms_rest, 0.0) / (s * g)  # σ²_seed / S
    of_episodes = max(ms_episode, ms_rest) / (s * g)  # σ²_episode / G + σ²_rest / (S·G)
    quantiles = stats.t.ppf(0.975, [s - 1, g - 1])
    half = math.sqrt(quantiles[0] ** 2 * of_seeds + quantiles[1] ** 2 * of_episodes)
    return Interval(mean, mean - half, mean + half, s * g, s)


def percent_interval(values: np.ndarray) -> Interval:
    """``crossed_interval`` of percentages: its ends are put on the logit's scale, so that they stay within 0..100."""
    found = crossed_interval(values)
    share = found.mean / 100
    if not 0 < share < 1:
        return replace(found, low=max(0.0, found.low), high=min(100.0, found.high)) if 0 <= share <= 1 else found
    half = (found.high - found.mean) / 100 / (share * (1 - share))  # the delta method: half a width, in logits
    low, high = 100 * special.expit(special.logit(share) + np.array([-half, half]))
    return replace(found, low=min(float(low), found.mean), high=max(float(high), found.mean))  # whatever rounding does


#: The mean over sources, each with the same weight.
ALL = "all sources"
#: Metrics whose intervals stay within 0 and 100.
PERCENTAGES = ("accuracy", "top-1 accuracy", "top-5 accuracy")


def grid(rows: pd.DataFrame) -> np.ndarray:
    """Values (S, G) of one method: seeds by episodes; of several sources, episodes of one number are averaged first."""
    rows = rows.assign(**{name: rows.get(name, 0) for name in ("seed", "episode", "dataset")})
    return _over_sources(rows.pivot_table(index="seed", columns=["dataset", "episode"], values="value"))


def _over_sources(wide: pd.DataFrame) -> np.ndarray:
    """Sources weigh the same, and episodes stay independent."""
    values: np.ndarray = wide.T.groupby(level="episode").mean().T.dropna(axis="columns").to_numpy()
    return values


def interval_of(rows: pd.DataFrame, percent: bool = True) -> Interval:
    """Mean and 95 % interval of one method's rows, crossed over seeds and episodes; no interval of a single value."""
    values = grid(rows)
    seeds, episodes = values.shape
    if values.size == 1:
        return Interval(float(values[0, 0]), float("nan"), float("nan"), 1)
    if episodes == 1:  # one number a seed
        return replace(interval(values[:, 0]), seeds=seeds)
    return percent_interval(values) if percent else crossed_interval(values)


def summarise(table: pd.DataFrame, by: Sequence[str] = ("method",), over_all: bool = True) -> pd.DataFrame:
    """Mean of each method, dataset and metric with its 95 % interval, crossed over seeds and episodes.

    Args:
        table: Long, with ``value`` and any of method, dataset, seed, episode, metric, chance, seconds, meta_seconds.
        by: Columns that tell rows apart besides dataset and metric.
        over_all: Add rows of dataset "all sources", the sources' mean, where there are several.

    Returns:
        The columns of ``by``, dataset, metric, mean, low, high, n, seeds; mean chance and meta_seconds, median seconds.
    """
    if table.empty or "value" not in table:
        raise PudNetError(f"summarise needs rows with a 'value' column; got {len(table)} rows of {list(table)}.")
    table = table.assign(**{c: v for c, v in {"metric": "accuracy", "dataset": ""}.items() if c not in table})
    rows = []
    for keys, part in table.groupby([*by, "metric"], sort=False, dropna=False):
        named = dict(zip((*by, "metric"), keys, strict=True))
        several = part["dataset"].nunique() > 1 and over_all
        for dataset in [*dict.fromkeys(part["dataset"]), *([ALL] if several else [])]:
            own = part if dataset == ALL else part[part["dataset"] == dataset]
            found = interval_of(own, named["metric"] in PERCENTAGES)
            row = named | {"dataset": dataset, **vars(found)}
            row |= {c: float(own[c].mean()) for c in ("chance", "meta_seconds") if c in own}
            row |= {"seconds": float(own["seconds"].median())} if "seconds" in own else {}
            rows.append(row)
    return pd.DataFrame(rows)


def gains(
    table: pd.DataFrame, method: str, rivals: Mapping[str, str], by: Sequence[str] = ("dataset",), over_all: bool = True
) -> pd.DataFrame:
    """Paired differences of a method and others on the same episodes, in percentage points.

    Args:
        table: From ``measure``.
        method: The one.
        rivals: Name of the gain to the method that is subtracted, such as {"far gain": "PudNet (kit), far swap"}; what
            is not in the table is left out.
        by: ("dataset",) for one row a source, () for their mean alone.
        over_all: Add rows of dataset "all sources".
    """
    datasets = [*dict.fromkeys(table["dataset"])] if by else []
    rows = []
    for name, rival in rivals.items():
        if rival not in set(table["method"]):
            continue
        for dataset in [*datasets, *([None] if over_all else [])]:
            found = difference(table, method, rival, dataset)
            rows.append({"method": method, "metric": name, "dataset": dataset or ALL, **vars(found)})
    return pd.DataFrame(rows)


def verdict(found: Interval) -> str:
    """The first word of an answer: "Yes" where the whole interval is above zero, "No" below, else "Undecided"."""
    return "Yes" if found.low > 0 else ("No" if found.high < 0 else "Undecided")


class Swapper:
    """Draws the sketches of the controls."""

    def __init__(self, sources: Sequence[ImageDataset], per_class: int, seed: int = 0) -> None:
        self.sources, self.per_class, self.seed = tuple(sources), per_class, seed
        self._by_class = [[ids.numpy() for ids in d.indices_by_class()] for d in sources]

    def sketch(
        self, episode: Episode, names: Sequence[str], index: int, swap: Swap, support: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Draw a swapped sketch of as many classes as the episode has."""
        rng = np.random.default_rng((self.seed, index, 0 if swap == "far" else 1))
        if swap == "far":
            others = [s for s in range(len(self.sources)) if s != episode.source_index]
            if not others:
                raise PudNetError("A far swap needs a second source; the pool has one only.")
            source, banned = int(rng.choice(others)), set()
        else:
            source, banned = episode.source_index, set(names)
        data = self.sources[source]
        free = [c for c, n in enumerate(data.class_names) if n not in banned and len(self._by_class[source][c])]
        ways = min(len(episode.classes), len(free))
        if ways < 2:
            raise PudNetError(f"{data.name} has {ways} classes outside the episode; a near swap needs at least two.")
        chosen = rng.choice(free, size=ways, replace=False)
        per_class = self.per_class + min(support, len(episode.support) // len(episode.classes))
        picks = [rng.permutation(self._by_class[source][c])[:per_class] for c in chosen]
        labels = np.repeat(np.arange(ways), [len(p) for p in picks])
        return data.images[torch.from_numpy(np.concatenate(picks))], torch.from_numpy(labels)


def evaluate_fits(
    fit: Callable[..., nn.Module], sampler: EpisodeSampler, episodes: int, sources: Sequence[int] | None = None,
    model: ParameterModel | None = None, swapper: Swapper | None = None, swaps: Sequence[Swap] = ("own",),
) -> pd.DataFrame:  # fmt: skip
    """Let a method learn each episode's training images and classify its queries: one row an episode and swap.

    With a ``model`` the sketch that it looks at is given to ``fit``: the episode's own, or a swapped one.
    """
    rows, support = [], 0 if model is None else PredictConfig().support(model)
    for source, index in product(range(len(sampler.pool)) if sources is None else sources, range(episodes)):
        episode = sampler.episode(index, source=source)
        data = episode_dataset(episode, sampler.pool[source])
        for swap in swaps:
            given: dict[str, Any] = {}
            if swap != "own":
                swapper = swapper or Swapper(sampler.pool, sampler.config.sketch_per_class)
                given["sketch"] = swapper.sketch(episode, data.class_names, index, swap, support)
            elif model is not None:
                given["sketch"] = episode.given(support)
            began = time.perf_counter()
            network = fit(data, **given)
            seconds = time.perf_counter() - began
            device = next(chain(network.parameters(), network.buffers())).device
            with torch.no_grad():
                right = network(episode.query.to(device)).argmax(1).cpu() == episode.query_labels
            row = {"dataset": data.name, "episode": index, "value": 100 * float(right.float().mean())}
            rows.append(row | {"chance": 100 / len(episode.classes), "seconds": seconds, "swap": swap})
    return pd.DataFrame(rows)


def episode_dataset(episode: Episode, source: ImageDataset) -> ImageDataset:
    """An episode's training images, sketch and support together: what every method may learn from."""
    return ImageDataset(
        *episode.given(len(episode.support)), tuple(source.class_names[int(c)] for c in episode.classes), source.name
    )


def difference(table: pd.DataFrame, method: str, rival: str, dataset: str | None = None) -> Interval:
    """Paired difference of two methods over the same episodes, in percentage points.

    Args:
        table: From ``measure``.
        method: The one.
        rival: The other, subtracted.
        dataset: One source; by default all, each with the same weight.

    Returns:
        Mean and interval, crossed over seeds and episodes where both have the same seeds.
    """
    if dataset is not None:
        table = table[table["dataset"] == dataset]
    sides = []
    for name in (method, rival):
        part = table[table["method"] == name]
        if part.empty:
            raise PudNetError(f"The table has no method {name!r}; it has {sorted(set(table['method']))}.")
        sides.append(part.pivot_table(index="seed", columns=["dataset", "episode"], values="value"))
    common = sides[0].columns.intersection(sides[1].columns)  # trained rivals are measured on fewer episodes
    sides = [side[common] for side in sides]
    if len(sides[0]) != len(sides[1]):  # the mean over seeds of the side that has several
        sides = [side.mean(axis="index").to_frame().T for side in sides]
    return crossed_interval(_over_sources(sides[0] - sides[1].set_axis(sides[0].index)))


def measure(
    runs: Sequence[Run], episodes: EpisodeSampler, count: int, controls: Sequence[str] = tuple(CONTROLS),
    slow_count: int = 0, swap_from: Sequence[ImageDataset] = (), sources: Sequence[int] | None = None, jobs: int = 1,
    progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Let every method learn and classify the same episodes. What was measured before is read from the cache.

    Args:
        runs: From ``meta_train``.
        episodes: Episodes of classes that meta-training has not seen.
        count: Episodes a source.
        controls: Swapped sketches for methods that look at the dataset: "far swap", "near swap".
        slow_count: Episodes a source for methods that are trained on each; by default all.
        swap_from: All classes of each source, in the order of the sampler's pool; by default the sampler's own.
        sources: Indices of the sources that take part; by default all.
        jobs: Methods side by side, each in its own process.
        progress: Show one bar.

    Returns:
        One row a method (a control is "method, far swap"), source, seed and episode: method, dataset, seed, episode,
        metric, value (accuracy in %), chance in %, seconds of learning the dataset, meta_seconds of meta-training.
    """
    if unknown := {*controls} - {*CONTROLS}:
        raise unknown_name("control", min(unknown), CONTROLS)
    swapper = Swapper(swap_from or episodes.pool, episodes.config.sketch_per_class)
    chosen = tuple(range(len(episodes.pool)) if sources is None else sources)
    tables, missing, names = [], [], []
    for run in runs:
        kind, options = run.recipe.kind, run.recipe.options
        blind = options.get("embedding") == "constant" and not options.get("refine")
        swaps = tuple(controls) if (kind.conditioned and not blind) or kind.derive else ()
        number = (slow_count or count) if kind.slow else count
        facts = [
            _code(), run.recipe.method, sorted(options.items()), run.recipe.lr, run.seed, asdict(run.target),
            run_folder(run.training).name if run.training else "", swaps, number, chosen, asdict(episodes.config),
            episodes.seed, episodes.images_and_classes(), [_digest(d) for d in episodes.pool],
            [_digest(d) for d in episodes.query_pool or ()], [_digest(d) for d in swapper.sources],
        ]  # fmt: skip
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:20]
        tables.append((run, cache_folder() / "tables" / f"{digest}.csv"))
        if not tables[-1][1].is_file():
            missing.append((run, swaps, number, chosen, tables[-1][1]))
            names.append(f"{run.name}, seed {run.seed}")
    parallel(_measure, missing, jobs, "method" if progress else "", names, (episodes, swapper))
    found = [pd.read_csv(path).assign(method=run.name) for run, path in tables]
    table = pd.concat(found, ignore_index=True)
    table["method"] += (", " + table["control"].astype(str)).where(table["control"].notna(), "")
    return table[["method", "dataset", "seed", "episode", "metric", "value", "chance", "seconds", "meta_seconds"]]


def _measure(item: tuple[Run, tuple[str, ...], int, tuple[int, ...], Path], shared: tuple[Any, Swapper]) -> None:
    """Measure one run and keep its table."""
    (run, controls, number, sources, path), (sampler, swapper) = item, shared
    outcome, kind = run.outcome(), run.recipe.kind
    model = outcome.model if outcome else None
    given: dict[str, Any] = {"lr": run.recipe.lr} if kind.tuned else {}
    given |= {} if kind.model or kind.derive else run.recipe.options
    fit = partial(kind.fit, model=model, target=run.target, seed=run.seed, **given)
    looks = model if kind.conditioned or kind.derive else None
    swaps: list[Swap] = ["own", *(swap for name, swap in CONTROLS.items() if name in controls)]
    table = evaluate_fits(fit, sampler, number, sources, looks, swapper, swaps)
    control = table.pop("swap").map({swap: name for name, swap in CONTROLS.items()})  # none of its own sketch
    seconds = outcome.seconds if outcome else np.nan
    table = table.assign(control=control, seed=run.seed, metric="accuracy", meta_seconds=seconds)
    write_atomically(path, table.to_csv(index=False).encode())


@cache
def _code() -> str:
    """A hash of the code that a measured number depends on."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in [Path(__file__), *sorted((folder / "core").glob("*.py")), *sorted((folder / "methods").glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _digest(data: ImageDataset) -> str:
    """A few images and all counts: enough to tell one source from another, and its versions."""
    some = data.images[:: max(1, len(data) // 16)][:16].contiguous().numpy().tobytes()
    return hashlib.sha256(some + repr((data.name, len(data), data.class_names)).encode()).hexdigest()[:16]


class Crossing(NamedTuple):
    """Where a rival reaches the level: at, the first place where it may be there already, the first where it surely is.

    What can't be said within the rival's budget is infinite; ``first`` and ``last`` are the ends of what was measured.
    """

    at: float
    low: float
    high: float
    first: float
    last: float

    @property
    def censored(self) -> str:
        """Empty for a crossing within the places measured, else "before" or "never"."""
        return "never" if math.isinf(self.at) else ("before" if self.at <= self.first else "")

    def scaled(self, factor: float) -> Crossing:
        """The same crossing in another unit: every place times a factor."""
        return Crossing(*(factor * place for place in self))

    def text(self, digits: int = 0) -> str:
        """As text: "12 [8, 20]", "more than 60 [more than 60, …]", "at most 3 [at most 3, 5]"."""

        def place(value: float) -> str:
            if math.isinf(value):
                return f"more than {self.last:,.{digits}f}"
            return f"{'at most ' if value <= self.first else ''}{value:,.{digits}f}"

        return f"{place(self.at)} [{place(self.low)}, {place(self.high)}]"


def student_bounds(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, lower and upper 95 % bound of each column."""
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or len(x) < 2:
        raise PudNetError(f"An interval needs at least two episodes; got an array of shape {x.shape}.")
    mean, half = x.mean(0), stats.t.ppf(0.975, len(x) - 1) * x.std(0, ddof=1) / math.sqrt(len(x))
    return mean, mean - half, mean + half


def first_reach(places: ArrayLike, values: ArrayLike, log: bool = False, stay: bool = False) -> float:
    """First place at which a curve is at least zero, by interpolation between the measured places."""
    x, y = np.asarray(places, dtype=float), np.asarray(values, dtype=float)
    there = y >= 0
    if stay:
        there = np.logical_and.accumulate(there[::-1])[::-1]
    if not there.any():
        return math.inf
    index = int(there.argmax())
    if index == 0:
        return float(x[0])
    ends = slice(index - 1, index + 1)
    place = np.interp(0, y[ends], np.log(x[ends]) if log else x[ends])
    return float(np.exp(place) if log else place)


def crossing(places: ArrayLike, differences: ArrayLike, log: bool = False, stay: bool = False) -> Crossing:
    """Find where a rival's curve reaches the level that was subtracted from it."""
    mean, lower, upper = student_bounds(differences)
    x = np.asarray(places, dtype=float)
    at, early, late = (first_reach(x, curve, log, stay) for curve in (mean, upper, lower))
    return Crossing(at, early, late, float(x[0]), float(x[-1]))


def earliest(crossings: Sequence[Crossing]) -> Crossing:
    """The crossing of the best of several rivals: each end is the earliest of theirs."""
    winner = min(crossings, key=lambda c: c.at)
    low, high, last = min(c.low for c in crossings), min(c.high for c in crossings), max(c.last for c in crossings)
    return Crossing(winner.at, low, high, winner.first, last)
