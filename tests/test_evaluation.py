"""Intervals by hand and by simulation, swaps that keep their promise, paired differences."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.evaluate import (
    Swapper,
    crossed_interval,
    difference,
    episode_dataset,
    evaluate_fits,
    gains,
    interval,
    measure,
    percent_interval,
    summarise,
)
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.methods import Recipe
from pudnet_lib.methods.training import meta_train


def source(name: str, classes: int, value: int) -> ImageDataset:
    """Images whose red pixel tells the class and whose green pixel tells the source."""
    labels = torch.arange(classes * 6) % classes
    images = torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8)
    images[:, 0], images[:, 1] = (labels * 10)[:, None, None].to(torch.uint8), value
    return ImageDataset(images, labels, tuple(f"{name}{c}" for c in range(classes)), name)


def test_interval_by_hand():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high - found.mean == pytest.approx(4.302653 / 3**0.5, rel=1e-5)  # t(0.975, 2) · s / √n, s = 1
    assert str(interval([2.0, 2.0])) == "2.0 [2.0, 2.0]"
    assert interval([1.0, 3.0]).signed().startswith("+2.0 [")
    for bad in ([1.0], [1.0, float("nan")]):
        with pytest.raises(PudNetError, match="at least two finite values"):
            interval(bad)


def test_crossed_interval_of_one_seed_is_the_plain_one():
    values = np.array([[1.0, 2.0, 4.0, 8.0]])
    assert crossed_interval(values) == interval(values[0])


@pytest.mark.parametrize(("seed_spread", "episode_spread"), [(0.0, 2.0), (1.0, 2.0), (2.0, 0.5)])
def test_crossed_intervals_cover_the_truth(seed_spread, episode_spread):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        values = rng.normal(0, seed_spread, (3, 1)) + rng.normal(0, episode_spread, (1, 40)) + rng.normal(0, 1, (3, 40))
        found = crossed_interval(values)
        covered += found.low <= 0 <= found.high
    assert covered / 1000 >= 0.92


def test_swapped_sketches_come_from_where_they_should():
    sources = [source("a", 6, 1), source("b", 4, 2)]
    sampler = EpisodeSampler(sources, EpisodeConfig(3, 1, 1, 1))
    swapper = Swapper(sources, per_class=2)
    for index in range(20):
        episode = sampler.episode(index, source=0)
        names = [sources[0].class_names[int(c)] for c in episode.classes]
        near, near_labels = swapper.sketch(episode, names, index, "near")
        assert (near[:, 1] == 1).all()
        assert not {int(v) // 10 for v in near[:, 0, 0, 0]} & {int(c) for c in episode.classes}
        assert near_labels.tolist() == [0, 0, 1, 1, 2, 2]
        far, _ = swapper.sketch(episode, names, index, "far")
        assert (far[:, 1] == 2).all()


def test_impossible_swaps_are_refused():
    one = [source("a", 3, 1)]
    episode = EpisodeSampler(one, EpisodeConfig(3, 1, 1, 1)).episode(0)
    swapper = Swapper(one, 1)
    with pytest.raises(PudNetError, match="second source"):
        swapper.sketch(episode, one[0].class_names, 0, "far")
    with pytest.raises(PudNetError, match="0 classes outside the episode"):
        swapper.sketch(episode, one[0].class_names, 0, "near")


def test_all_methods_learn_from_sketch_and_support_and_never_from_the_query():
    data = source("a", 4, 1)
    episode = EpisodeSampler([data], EpisodeConfig(2, 2, 2, 2)).episode(3)
    training = episode_dataset(episode, data)
    assert len(training) == len(episode.sketch) + len(episode.support)
    seen = []

    def fit(images: ImageDataset) -> torch.nn.Module:
        seen.append(len(images))
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, images.num_classes))
        original = network.forward
        network.forward = lambda x: original(x.float())
        return network

    table = evaluate_fits(fit, EpisodeSampler([data], EpisodeConfig(2, 2, 2, 2)), 2)
    assert seen == [8, 8]
    assert table["chance"].tolist() == [50, 50]
    assert table["value"].between(0, 100).all()


def test_the_same_episodes_for_all_methods_and_no_gain_for_a_network_that_sees_nothing():
    sources = [source("a", 6, 1), source("b", 6, 200)]
    sampler, target = EpisodeSampler(sources, EpisodeConfig(2, 1, 1, 2)), TargetConfig(width=2)
    found = {}
    for name, model in {"PudNet": PudNet(PudNetConfig(target)), "shared": SharedNetwork(SharedConfig(target))}.items():
        table = evaluate_fits(
            partial(predict, model), sampler, 2, None, model, Swapper(sources, 1), ("own", "far", "near")
        )
        assert len(table) == 2 * 2 * 3  # sources, episodes, swaps
        found[name] = table.pivot(index=["dataset", "episode"], columns="swap", values="value")
    assert (found["shared"]["own"] == found["shared"]["far"]).all()
    assert (found["shared"]["own"] == found["shared"]["near"]).all()
    assert found["PudNet"].index.equals(found["shared"].index)


def test_difference_is_paired_and_takes_common_episodes():
    rows = [("a", g, v) for g, v in enumerate([10.0, 50.0, 90.0])] + [("b", g, v) for g, v in enumerate([8.0, 48.0])]
    table = pd.DataFrame(rows, columns=["method", "episode", "value"]).assign(dataset="d", seed=0)
    found = difference(table, "a", "b")
    assert (found.mean, found.low, found.high, found.n) == (2, 2, 2, 2)  # pairing removes the episodes' spread
    with pytest.raises(PudNetError, match="no method 'c'"):
        difference(table, "a", "c")


def test_intervals_of_percentages_stay_within_0_and_100():
    wide = percent_interval(np.array([[0.0, 30, 3, 0, 2]]))
    assert 0 < wide.low < wide.mean < wide.high < 100
    plain = crossed_interval(np.array([[0.0, 30, 3, 0, 2]]))
    assert plain.low < 0
    narrow, straight = (f(np.array([[50.0, 51, 49, 50]])) for f in (percent_interval, crossed_interval))
    assert (narrow.low, narrow.high) == pytest.approx((straight.low, straight.high), abs=0.01)
    assert percent_interval(np.array([[100.0, 100, 100]])).high == 100
    for percent in np.arange(0.2, 100, 0.2):  # values that are all the same: no end on the wrong side by rounding
        same = percent_interval(np.full((1, 4), percent))
        assert same.low <= same.mean <= same.high


def test_summarise_by_hand():
    rows = [("a", d, s, g, v + s) for d, v in (("x", 50.0), ("y", 60.0)) for s in (0, 1) for g in (0, 1)]
    table = pd.DataFrame(rows, columns=["method", "dataset", "seed", "episode", "value"]).assign(
        chance=25.0, seconds=2.0
    )
    found = summarise(table).set_index("dataset")
    assert found["mean"].tolist() == [50.5, 60.5, 55.5]
    assert found.loc["all sources", ["n", "seeds", "chance", "seconds"]].tolist() == [4, 2, 25.0, 2.0]
    assert found.loc["x", "low"] < 50
    one = summarise(table.head(1)).iloc[0]
    assert (one["mean"], one["n"]) == (50.0, 1)
    assert np.isnan(one["low"])
    with pytest.raises(PudNetError, match="'value' column"):
        summarise(table.drop(columns="value"))


def test_measure_gives_one_table_with_controls_and_finds_it_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    small, pool = EpisodeConfig(2, 2, 2, 2), Pool(PoolConfig(("fashion", "glyphs")))
    methods = {"PudNet": Recipe("pudnet"), "1-NN on pixels": Recipe("1-NN"), "GC": Recipe("scratch", lr=0.1, epochs=1)}
    runs = meta_train(methods, pool, 1, (0,), TargetConfig(width=2), small, progress=False)
    calls = [measure(runs, pool.unseen_episodes(small), 2, slow_count=1, swap_from=pool.train) for _ in range(2)]
    pd.testing.assert_frame_equal(*calls)
    counts = calls[0].groupby("method").size().to_dict()
    assert counts == {"PudNet": 4, "PudNet, far swap": 4, "PudNet, near swap": 4, "1-NN on pixels": 4, "GC": 2}
    assert calls[0]["value"].between(0, 100).all()
    found = gains(calls[0], "PudNet", {"far gain": "PudNet, far swap", "not there": "nobody"})
    assert found["dataset"].tolist() == ["fashion", "glyphs", "all sources"]
    with pytest.raises(PudNetError, match=r"Unknown control 'far swop'.*far swap"):
        measure(runs, pool.unseen_episodes(small), 2, controls=("far swop",))
