"""The inter-dataset comparison: who is left out, its tables by hand, a tiny run from end to end with its figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pudnet_lib.errors import PudNetError
from pudnet_lib.figures import inter_dataset_figures as figures
from pudnet_lib.images.sources import list_sources
from pudnet_lib.studies import inter_dataset, inter_tables
from pudnet_lib.studies.inter_dataset import Config, Split, left_out, splits
from pudnet_lib.studies.trust_calibration import TrustStudy


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("PUDNET_DATA", str(tmp_path / "nothing"))


def test_every_source_in_turn_is_the_unseen_one(no_data):
    found = splits(Config(sources=("fashion", "emoji", "glyphs")))
    assert found == [
        Split("fashion", ("emoji", "glyphs")),
        Split("emoji", ("fashion", "glyphs")),
        Split("glyphs", ("fashion", "emoji")),
    ]


def test_what_is_not_there_is_left_out_and_named_with_the_way_to_get_it(no_data):
    config = Config(others=("cifar100",))
    assert [split.unseen for split in splits(config)] == ["fashion", "emoji", "glyphs"]
    assert left_out(config)["tiny-imagenet"] == {s.name: s.how_to_get for s in list_sources()}["tiny-imagenet"]
    assert list(left_out(config)) == ["cifar10", "omniglot", "tiny-imagenet", "cifar100"]


def test_other_datasets_are_in_no_pool(no_data):
    last = splits(Config(sources=("fashion", "emoji"), others=("glyphs",)))[-1]
    assert last == Split("glyphs", ("fashion", "emoji"))


def test_mistaken_and_too_few_sources_are_errors(no_data, tmp_path):
    with pytest.raises(PudNetError, match="Did you mean 'fashion'"):
        splits(Config(sources=("fashoin", "emoji")))
    with pytest.raises(PudNetError, match="needs at least two"):
        splits(Config(sources=("fashion", "cifar10")))
    with pytest.raises(PudNetError, match="Unknown method"):
        Config(methods=("PudNett",))
    with pytest.raises(PudNetError, match="Unknown target"):
        Config(target="ConvNet")
    with pytest.raises(PudNetError, match="at least 2"):
        Config(whole_draws=1)


def table_of(values: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """Method → source → accuracy of each episode."""
    rows = [
        {"method": m, "dataset": d, "episode": g, "value": v, "prediction_seconds": 3.0 if m.startswith("GC") else 1.0}
        | ({} if m.startswith("GC") else {"meta_training_seconds": 100.0})
        for m, sources in values.items()
        for d, vs in sources.items()
        for g, v in enumerate(vs)
    ]
    return pd.DataFrame(rows).assign(target="ConvNet-3, width 4", ways="5", seed=0, chance=20.0)


@pytest.fixture
def table() -> pd.DataFrame:
    return table_of({
        "PudNet (kit)": {"a": [60.0, 70.0], "b": [50.0, 52.0], "c": [40.0, 44.0]},
        "PudNet (kit), far swap": {"a": [58.0, 66.0], "b": [50.0, 52.0], "c": [37.0, 41.0]},
        "shared network": {"a": [57.0, 67.0], "b": [52.0, 54.0], "c": [42.0, 46.0]},
        "GC, 30 epochs": {"a": [50.0, 50.0], "b": [50.0, 50.0], "c": [50.0, 50.0]},
    })  # fmt: skip


@pytest.fixture
def trust() -> pd.DataFrame:
    rows = [
        {"dataset": d, "episode": g, "seed": s, "distance": x + s, "estimate": 60.0, "accuracy": 58.0, "low": 50.0,
         "high": 70.0, "per_class": 20}
        for d, x in (("a", 1.0), ("b", 4.0), ("c", 2.0))
        for g in (0, 1)
        for s in (0, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(method="PudNet (kit)")


def test_a_new_sources_gain_has_the_sources_as_its_sample(table):
    found = inter_tables.gains(table).set_index(["dataset", "metric"])
    assert found.loc[("a", "far gain"), "mean"] == pytest.approx(3)
    new = found.loc[("a new source", "gain over shared")]
    values = np.array([3.0, -2.0, -2.0])
    half = 4.302653 * values.std(ddof=1) / np.sqrt(3)  # Student's quantile of two degrees of freedom
    assert (new["mean"], new["low"], new["high"], new["n"]) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half, 3)
    )


def test_distance_stands_beside_the_gain(table, trust):
    found = inter_tables.similarity(table, trust)
    shared = found[found["metric"] == "gain over shared"].set_index("dataset")
    assert shared["distance"].to_dict() == {"a": 1.5, "b": 4.5, "c": 2.5}
    assert (shared.loc["a", "distance_low"], shared.loc["a", "distance_high"]) == (1.0, 2.0)
    assert set(found["metric"]) == {"gain over shared", "gain over GC, 30 epochs"}


def test_rank_correlation_is_exact():
    rows = pd.DataFrame({"distance": [1.0, 2.0, 3.0, 4.0], "mean": [9.0, 5.0, 3.0, 1.0]})
    rho, p = inter_tables.rank_correlation(rows)
    assert rho == pytest.approx(-1)
    assert p == pytest.approx(2 / 24)  # two of 4! orders are as extreme
    assert np.isnan(inter_tables.rank_correlation(rows[:2])[0])


def test_answer_and_published_rows_say_it(table, trust):
    text = inter_tables.answer(table, trust, ("cifar10",))
    assert "far gain +2.0" in text
    assert "off by +2.0 [+2.0, +2.0] points" in text
    assert "in 100 % of 12 reports" in text
    assert text.endswith("Left out, because not there: cifar10.")
    rows = inter_tables.rows_to_publish(table, trust).set_index("metric")
    assert rows.loc["trust: bias", "mean"] == pytest.approx(2)
    assert rows.loc["trust: coverage", "mean"] == 100
    assert not np.isinf(rows.select_dtypes("number")).any().any()


def test_a_tiny_run_with_its_trust_reports_and_figures(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    config = replace(
        inter_dataset.PROFILES["smoke"],
        sources=("fashion", "glyphs"),
        methods=("PudNet (kit)", "shared network"),
        trust=TrustStudy(sizes=(4,), episodes=2, fit_episodes=2, fit_epochs=1, query_per_class=4),
    )
    found, trust = inter_dataset.run(config), inter_dataset.trust(config)
    assert found["value"].between(0, 100).all()
    episodes, whole = (found[found["ways"] == ways] for ways in ("5", "all"))
    assert {"PudNet (kit), near swap", "PudNet (kit), far swap", "GC, 1 epoch"} <= set(episodes["method"])
    assert "PudNet (kit), near swap" not in set(whole["method"])
    assert whole.groupby("dataset")["chance"].first().round(1).to_dict() == {"fashion": 10.0, "glyphs": 2.8}
    assert set(trust["dataset"]) == {"fashion", "glyphs"}
    assert (trust["nearest"] != trust["dataset"]).all()  # the unseen source is no part of its pool
    assert trust[["fine_tuned", "scratch"]].notna().all().all()
    summary, gains = inter_dataset.summary(found), inter_dataset.gains(found)
    assert [t.get_text() for t in figures.figure_gains(gains, "5").axes[0].get_yticklabels()] == [
        "fashion", "glyphs", "all sources", "a new source",
    ]  # fmt: skip
    labels = [t.get_text() for t in figures.figure_whole(summary).axes[0].get_yticklabels()]
    assert labels == ["fashion\n(10 classes)", "glyphs\n(36 classes)"]
    drawn = figures.figure_similarity(inter_tables.similarity(found, trust))
    assert {"fashion", "glyphs"} <= {t.get_text() for t in drawn.axes[0].texts}
    assert "off by" in figures.figure_reliability(trust).axes[0].get_title()
    assert {"fine-tune", "scratch"} == {t.get_text() for t in figures.figure_when_to_train(trust).axes[0].texts}
    assert "PudNet (kit) reaches" in inter_dataset.answer(found, trust)
