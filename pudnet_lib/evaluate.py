"""Evaluation on episodes of unseen classes: accuracy with intervals, chance level, seconds, and the controls.

Paper, Section 4 [rec]: accuracy of predicted networks on unseen classes. Our choice: far swap (the sketch of another
source) and near swap (the sketch of other classes of the same source) stand beside every prediction; they tell whether
the hypernetwork knows what *kind* of images it sees, and *which classes*. Batch norm
is recalibrated and class means are taken on the episode's sketch and support, by all methods alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import Episode, EpisodeSampler
from pudnet_lib.core.model import ParameterModel
from pudnet_lib.core.predict import PredictConfig, predict
from pudnet_lib.errors import PudNetError

Swap = Literal["own", "far", "near"]


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
    """Student's 95 % interval of independent values.

    Args:
        values: At least two finite values.

    Returns:
        Mean and interval.

    Raises:
        PudNetError: If there are fewer than two values, or one is NaN.
    """
    x = np.asarray(values, dtype=float)
    if len(x) < 2 or not np.isfinite(x).all():
        raise PudNetError(f"An interval needs at least two finite values; got {len(x)}: {x[:5]}.")
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(float(x.mean()), float(x.mean()) - half, float(x.mean()) + half, len(x))


def crossed_interval(values: np.ndarray) -> Interval:
    """95 % interval where the same G episodes were measured with S seeds of meta-training.

    The mean's variance has a part of the seeds and a part of the episodes and the rest (a two-way layout, crossed
    random effects; a negative estimate counts as zero). Each part gets Student's quantile for its own degrees of
    freedom, so that three seeds are not taken for a hundred episodes: tested to cover at least 92 % in simulations.
    With one seed this is ``interval`` over episodes, and says nothing about other seeds.

    Args:
        values: (S, G).

    Returns:
        Mean and interval.
    """
    s, g = values.shape
    if s == 1:
        return interval(values[0])
    mean = float(values.mean())
    seed_mean, episode_mean = values.mean(1), values.mean(0)
    ms_seed = g * seed_mean.var(ddof=1)
    ms_episode = s * episode_mean.var(ddof=1)
    rest = values - seed_mean[:, None] - episode_mean[None] + mean
    ms_rest = float((rest**2).sum()) / ((s - 1) * (g - 1))
    of_seeds = max(ms_seed - ms_rest, 0.0) / (s * g)  # σ²_seed / S
    of_episodes = max(ms_episode, ms_rest) / (s * g)  # σ²_episode / G + σ²_rest / (S·G)
    quantiles = stats.t.ppf(0.975, [s - 1, g - 1])
    half = float(np.sqrt(quantiles[0] ** 2 * of_seeds + quantiles[1] ** 2 * of_episodes))
    return Interval(mean, mean - half, mean + half, s * g, s)


class Swapper:
    """Draws the sketches of the controls.

    Args:
        sources: All classes of each source, in the order of the sampler's pool.
        per_class: Images a class.
        seed: Seed of the draws.
    """

    def __init__(self, sources: Sequence[ImageDataset], per_class: int, seed: int = 0) -> None:
        self.sources, self.per_class, self.seed = tuple(sources), per_class, seed
        self._by_class = [[ids.numpy() for ids in d.indices_by_class()] for d in sources]

    def sketch(
        self, episode: Episode, names: Sequence[str], index: int, swap: Swap, support: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Draw a swapped sketch of as many classes as the episode has.

        Args:
            episode: The episode that will be classified.
            names: Its class names, which a near swap leaves out.
            index: Number of the episode, for the seed.
            swap: ``"far"`` or ``"near"``.
            support: Images a class more, for a predictor that looks at so many of the support's.

        Returns:
            Sketch (S, C, H, W) and labels (S,).

        Raises:
            PudNetError: If there is no other source, or too few other classes.
        """
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


def evaluate_episodes(
    model: ParameterModel,
    sampler: EpisodeSampler,
    episodes: int,
    swapper: Swapper | None = None,
    swaps: Sequence[Swap] = ("own",),
    config: PredictConfig | None = None,
    sources: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Predict for episodes and classify their queries.

    Args:
        model: PudNet or shared network.
        sampler: Episodes of unseen classes.
        episodes: Episodes a source.
        swapper: Where swapped sketches come from; needed for the swaps.
        swaps: ``"own"``, ``"far"``, ``"near"``: each is one row an episode.
        config: How to predict; its sketch size is not used, the episode has its sketch.
        sources: Indices of the sources to evaluate; by default all of the pool.

    Returns:
        One row an episode, source and swap: dataset, episode, swap, accuracy in %, chance in %, seconds of the
        prediction (batch-norm recalibration and class means included).
    """
    rows, config = [], config or PredictConfig()
    for source in range(len(sampler.pool)) if sources is None else sources:
        for index in range(episodes):
            episode = sampler.episode(index, source=source)
            data = sampler.pool[source]
            training = episode_dataset(episode, data)
            for swap in swaps:
                if swap == "own":
                    sketch = episode.given(config.support(model))
                elif swapper is None:
                    raise PudNetError(f"The {swap} swap needs a Swapper with all classes of the sources.")
                else:
                    sketch = swapper.sketch(episode, training.class_names, index, swap, config.support(model))
                network = predict(model, training, config, sketch)
                rows.append(_row(network, episode, data.name, index, sum(network.seconds.values())) | {"swap": swap})
    return pd.DataFrame(rows)


def evaluate_fits(
    fit: Callable[[ImageDataset], nn.Module],
    sampler: EpisodeSampler,
    episodes: int,
    sources: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Let a baseline learn each episode's training images and classify its queries.

    Args:
        fit: Training images to a network from uint8 images (N, C, H, W) to logits (N, K).
        sampler: Episodes of unseen classes.
        episodes: Episodes a source.
        sources: Indices of the sources to evaluate; by default all of the pool.

    Returns:
        One row an episode and source: dataset, episode, value (accuracy in %), chance in %, seconds of the fit.
    """
    rows = []
    for source in range(len(sampler.pool)) if sources is None else sources:
        for index in range(episodes):
            episode, data = sampler.episode(index, source=source), sampler.pool[source]
            began = time.perf_counter()
            network = fit(episode_dataset(episode, data))
            rows.append(_row(network, episode, data.name, index, time.perf_counter() - began))
    return pd.DataFrame(rows)


def episode_dataset(episode: Episode, source: ImageDataset) -> ImageDataset:
    """An episode's training images, sketch and support together: what every method may learn from."""
    return ImageDataset(
        *episode.given(len(episode.support)),
        tuple(source.class_names[int(c)] for c in episode.classes),
        source.name,
    )


def _row(network: nn.Module, episode: Episode, dataset: str, index: int, seconds: float) -> dict[str, object]:
    device = next(network.parameters()).device
    with torch.no_grad():
        right = network(episode.query.to(device)).argmax(1).cpu() == episode.query_labels
    accuracy, chance = 100 * float(right.float().mean()), 100 / len(episode.classes)
    return {"dataset": dataset, "episode": index, "value": accuracy, "chance": chance, "seconds": seconds}


def compare_models(
    models: Mapping[str, Sequence[ParameterModel]],
    sampler: EpisodeSampler,
    episodes: int,
    swapper: Swapper,
    swaps: Sequence[Swap] = ("own", "far", "near"),
    swapped: Sequence[str] = ("PudNet",),
    config: PredictConfig | None = None,
) -> pd.DataFrame:
    """Evaluate several methods, each with its seeds, on the same episodes.

    Args:
        models: Method to its models, one a seed.
        sampler: Episodes of unseen classes.
        episodes: Episodes a source.
        swapper: Sketches of the controls.
        swaps: What to predict from; ``"near"`` needs classes outside the episodes.
        swapped: Methods for which the swaps are measured as well as ``"own"``.
        config: How to predict.

    Returns:
        Long form: method ("PudNet", "PudNet, far swap", …), dataset, seed, episode, metric, value in %, chance,
        seconds.
    """
    tables = []
    for method, seeds in models.items():
        kinds: Sequence[Swap] = swaps if method in swapped else ("own",)
        for seed, model in enumerate(seeds):
            table = evaluate_episodes(model, sampler, episodes, swapper, kinds, config)
            suffix = table["swap"].map({"own": "", "far": ", far swap", "near": ", near swap"})
            tables.append(table.assign(method=method + suffix, seed=seed, metric="accuracy"))
    return pd.concat(tables, ignore_index=True)


def difference(table: pd.DataFrame, method: str, rival: str, dataset: str | None = None) -> Interval:
    """Paired difference of two methods over the same episodes, in percentage points.

    Args:
        table: From ``compare_models``.
        method: The one.
        rival: The other, subtracted.
        dataset: One source; by default all, each with the same weight.

    Returns:
        Mean and interval, crossed over seeds and episodes where both have the same seeds.

    Raises:
        PudNetError: If one of the two is not in the table.
    """
    if dataset is not None:
        table = table[table["dataset"] == dataset]
    sides = []
    for name in (method, rival):
        part = table[table["method"] == name]
        if part.empty:
            raise PudNetError(f"The table has no method {name!r}; it has {sorted(set(table['method']))}.")
        wide = part.pivot_table(index="seed", columns=["dataset", "episode"], values="value")
        sides.append(wide)
    common = sides[0].columns.intersection(sides[1].columns)  # trained rivals are measured on fewer episodes
    sides = [side[common] for side in sides]
    if len(sides[0]) != len(sides[1]):  # the mean over seeds of the side that has several
        sides = [side.mean(axis="index").to_frame().T for side in sides]
    # episodes of one index are averaged over sources, so that sources weigh the same and episodes stay independent
    paired = pd.DataFrame(sides[0].to_numpy() - sides[1].to_numpy(), columns=sides[0].columns)
    return crossed_interval(paired.T.groupby(level="episode").mean().T.to_numpy())
