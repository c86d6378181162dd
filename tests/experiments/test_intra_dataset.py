"""The intra-dataset comparison: its tables by hand, equal budgets for all, a tiny run from end to end."""

import pandas as pd
import pytest

from pudnet_lib.errors import PudNetError
from pudnet_lib.figures import intra_dataset_figures as figures
from pudnet_lib.methods.contenders import PREDICTORS, Contest, train_config
from pudnet_lib.profiles import configure
from pudnet_lib.studies import intra_dataset, intra_tables


@pytest.fixture
def table() -> pd.DataFrame:
    values = {
        "PudNet (kit)": [80.0, 90.0],
        "PudNet (kit), far swap": [70.0, 80.0],
        "PudNet (kit), near swap": [79.0, 89.0],
        "shared network": [81.0, 91.0],
        "GC, 30 epochs": [85.0, 85.0],
    }
    rows = [
        {"method": m, "episode": g, "value": v, "prediction_seconds": 3.0 if m.startswith("GC") else 1.0}
        | ({} if m.startswith("GC") else {"meta_training_seconds": 100.0})
        for m, vs in values.items()
        for g, v in enumerate(vs)
    ]
    return pd.DataFrame(rows).assign(dataset="toy", target="ConvNet-3, width 4", ways=4, seed=0, chance=25.0)


def test_gains_and_break_even_by_hand(table):
    gains = intra_tables.gains(table)
    found = gains[gains["dataset"] == "toy"].set_index("metric")["mean"]
    assert found.to_dict() == pytest.approx(
        {"far gain": 10, "near gain": 1, "gain over shared": -1, "gain over GC, 30 epochs": 0}
    )
    rows = intra_tables.summary(table)
    rows = rows[rows["dataset"] == "toy"].set_index("method")
    assert rows.loc["PudNet (kit)", "break_even"] == pytest.approx(50)  # 100 s over 2 s saved a dataset
    assert "gain over shared -1.0" in intra_tables.answer(table)


def test_figures_name_every_method(table):
    drawn = figures.figure_accuracies(intra_tables.summary(table), 4)
    assert {t.get_text() for t in drawn.axes[0].get_yticklabels()} == set(table["method"])
    panels = figures.figure_gains(intra_tables.gains(table), 4).axes
    assert [ax.get_title() for ax in panels] == ["toy", "all sources"]


def test_accuracy_against_the_episodes_size(table):
    larger = table.assign(ways=10, chance=10.0, value=table["value"] / 2)
    both = intra_tables.summary(pd.concat([table, larger]))
    (ax,) = figures.figure_ways(both, "ConvNet-3, width 4").axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["4", "10"]
    named = {t.get_text() for t in ax.texts}
    assert named == {"PudNet (kit)", "shared network", "GC, 30 epochs"}
    means = [container.lines[0].get_ydata().tolist() for container in ax.containers]
    assert means == [[85.0, 42.5], [86.0, 43.0], [85.0, 42.5]]


@pytest.mark.parametrize("method", PREDICTORS)
def test_all_get_the_same_number_of_steps(method):
    config = train_config(Contest(steps=10), method, 0)
    assert config.base_steps + config.meta.steps == 10


def test_unknown_methods_and_too_few_episodes():
    with pytest.raises(PudNetError, match="Unknown method"):
        intra_dataset.Config(methods=("PudNett",))
    with pytest.raises(PudNetError, match="at least 2"):
        intra_dataset.Config(episodes=1)


def test_a_studys_fields_give_way_to_what_is_given():
    assert intra_dataset.study("short", steps=None) == {}
    long = intra_dataset.study("long", steps=7, ways=None)
    assert (long["steps"], long["ways"]) == (7, (4, 5, 10))
    config = configure(intra_dataset.PROFILES, "laptop", **long)
    assert config.targets == ("ConvNet-3, width 16",)
    fourth = configure(intra_dataset.PROFILES, "laptop", **intra_dataset.study("photographs"))
    assert set(fourth.sources) - set(config.sources) == {"tiny-imagenet"}
    assert (fourth.targets, fourth.steps, fourth.seeds) == (config.targets, 3500, config.seeds)
    with pytest.raises(PudNetError, match="Did you mean 'long'"):
        intra_dataset.study("lung")


def test_a_tiny_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    smoke = intra_dataset.PROFILES["smoke"]
    config = intra_dataset.replace(
        smoke,
        sources=("fashion", "glyphs"),
        methods=("PudNet (kit)", "shared network"),
        scratch_epochs=(1,),
        seeds=(0,),
    )
    found = intra_dataset.run(config)
    assert {"PudNet (kit), near swap", "shared network", "GC, 1 epoch"} <= set(found["method"])
    assert found["value"].between(0, 100).all()
    assert "PudNet (kit)" in intra_dataset.answer(found)
