"""Fine-tuning: overtaking and gains of made-up curves by hand, every start, a tiny run from end to end."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from pudnet_lib.core.supervised import ScratchConfig, accuracy
from pudnet_lib.errors import PudNetError
from pudnet_lib.figures import fine_tuning_figures as figures
from pudnet_lib.studies import fine_tuning, fine_tuning_tables
from pudnet_lib.studies.starts import (
    StartConfig,
    initial_network,
    load_dataset,
    load_predictor,
    pretrained_tensors,
    train_from,
)


@pytest.fixture
def table() -> pd.DataFrame:
    curves = {"predicted": [80.0, 82.0, 84.0], "random": [25.0, 81.0, 90.0], "shared network": [79.0, 80.0, 82.0]}
    rows = [
        {"start": start, "episode": g, "step": step, "seconds": 0.1 * step + before, "value": value + g}
        | {"prediction_seconds": before, "meta_training_seconds": 0.0 if start == "random" else 50.0}
        for start, values in curves.items()
        for before in [0.0 if start == "random" else 0.5]
        for g in range(2)
        for step, value in zip((0, 10, 20), values, strict=True)
    ]
    facts = {"optimiser": "Adam", "trainable": "full", "dataset": "toy", "seed": 0, "chance": 25.0, "rate": 0.1}
    table = pd.DataFrame(rows).assign(images=80, metric="accuracy", **facts)
    return table.assign(method=table["start"] + ", Adam")


def test_overtaking_by_hand(table):
    found = fine_tuning_tables.overtaking(table, "predicted", "Adam")
    assert found.at == pytest.approx(10 + 10 * 1 / 7)  # behind by 1 at step 10, ahead by 6 at step 20
    assert (found.low, found.high) == pytest.approx((found.at, found.at))  # both episodes differ by the same
    with pytest.raises(PudNetError, match="from 'random'"):
        fine_tuning_tables.overtaking(table, "predicted", "SGD")


def test_seconds_count_from_zero(table):
    rows = table[table["start"] == "predicted"]
    values = fine_tuning_tables.on_grid(rows, np.array([0.4, 0.5, 1.0]), "seconds")
    assert values[0] == pytest.approx([25, 80, 81])  # at chance until the prediction is there
    drawn = fine_tuning_tables.curves(table, "Adam", over="seconds")
    assert drawn[drawn["start"] == "predicted"]["place"].min() == pytest.approx(0.5)


def test_summary_gains_and_break_even_by_hand(table):
    summary = fine_tuning_tables.summary(table)
    rows = summary[summary["dataset"] == "toy"].set_index(["method", "metric"])
    assert rows.loc[("predicted, Adam", "accuracy"), "mean"] == pytest.approx(84.5)
    assert rows.loc[("predicted, Adam", "accuracy at step 0"), "mean"] == pytest.approx(80.5)
    saved = (80 - 25) / (81 - 25) - 0.5  # scratch is at 80 after 55/56 of its first second
    assert rows.loc[("predicted, Adam", "accuracy"), "break_even"] == pytest.approx(50 / saved)
    gains = fine_tuning_tables.gains(table).set_index("metric")["mean"]
    assert gains.to_dict() == pytest.approx({"gain over random": -6, "gain over shared network": 2})
    assert "-6.0 [-6.0, -6.0] points over scratch" in fine_tuning.answer(table)
    assert list(fine_tuning.overtakings(table)["step"]) == ["11 [11, 11]"] * 2 + ["10 [10, 10]"] * 2


def test_figures_have_a_panel_an_optimiser(table):
    both = pd.concat([table, table.assign(optimiser="GC")])
    for over in ("step", "seconds"):
        drawn = figures.figure_curves(both, over)
        assert [ax.get_title() for ax in drawn.axes] == ["Adam", "GC"]
        texts = {text.get_text() for text in drawn.axes[-1].texts}
        assert {"predicted", "random", "shared network"} <= texts
    names = {t.get_text() for t in figures.figure_ends(fine_tuning.summary(table)).axes[0].get_yticklabels()}
    assert names == set(table["method"])


SMALL = StartConfig(sources=("fashion", "glyphs"))


def test_a_start_is_row_zero_of_its_curve_and_is_not_changed():
    data = load_dataset(SMALL, 1, 0)
    made = initial_network("predicted", data, SMALL)
    before = {n: t.clone() for n, t in made[0].state_dict().items()}
    fit = ScratchConfig(epochs=1, batch_size=32, evaluations=1)
    plain, seconds = train_from("predicted", data, SMALL, fit, made)
    assert seconds == made[1] > 0
    assert plain.curve[0]["value"] == pytest.approx(accuracy(made[0], data.test))
    noisy, _ = train_from("predicted with noise", data, replace(SMALL, noise=0.5), fit, made)
    assert noisy.curve[0]["value"] != plain.curve[0]["value"]
    assert all(torch.equal(t, before[n]) for n, t in made[0].state_dict().items())


def test_random_starts_at_chance_and_swaps_from_other_sketches():
    data = load_dataset(SMALL, 1, 0)
    scratch, seconds = train_from("random", data, SMALL, ScratchConfig(epochs=1, batch_size=32))
    assert seconds == 0
    assert scratch.curve[0]["step"] == 0
    networks = {start: initial_network(start, data, SMALL)[0] for start in ("predicted", "far swap", "near swap")}
    weights = [dict(n.backbone.named_parameters())["blocks.0.0.weight"] for n in networks.values()]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_pretrained_weights_come_from_a_local_file_alone(tmp_path):
    data = load_dataset(SMALL, 1, 0)
    network, _ = initial_network("shared network", data, SMALL)
    path = tmp_path / "weights.safetensors"
    save_file({**network.backbone.state_dict(), "fc.weight": torch.zeros(2, 2)}, path)
    assert "fc.weight" not in pretrained_tensors(str(path))
    config = replace(SMALL, weights=str(path))
    fit = ScratchConfig(epochs=1, batch_size=32, trainable="probe")
    result, _ = train_from("pretrained", data, config, fit)
    weight = result.network.backbone.get_parameter("blocks.0.0.weight")
    assert torch.equal(weight, network.backbone.get_parameter("blocks.0.0.weight"))  # a probe leaves it as it is
    with pytest.raises(PudNetError, match="weights=FILE"):
        pretrained_tensors("")
    path.write_bytes(b"nothing")
    with pytest.raises(PudNetError, match="can be read"):
        pretrained_tensors(str(path))


def test_unknown_starts_and_too_few_episodes():
    with pytest.raises(PudNetError, match="Did you mean 'predicted'"):
        fine_tuning.Config(starts=("predictd",))
    with pytest.raises(PudNetError, match="at least 2"):
        fine_tuning.Config(episodes=1)


def test_rates_are_chosen_on_validation_episodes_and_a_run_uses_them(monkeypatch):
    monkeypatch.setattr(fine_tuning, "RATE_FACTORS", (1.0, 3.0))
    smoke = replace(fine_tuning.PROFILES["smoke"], start=StartConfig(sources=("glyphs",)))
    config = replace(smoke, trainables=("full",), starts=("predicted", "random"), epochs=1, rate_episodes=1)
    chosen = fine_tuning.choose_rates(config)
    own = [3e-3 * factor for factor in fine_tuning.RATE_FACTORS]
    assert set(chosen) == {("predicted", "Adam", "full"), ("random", "Adam", "full")}
    assert all(any(rate == pytest.approx(o) for o in own) for rate in chosen.values())
    table = fine_tuning.run(config)
    assert set(table[table["start"] == "near swap"]["rate"]) == {chosen["predicted", "Adam", "full"]}
    assert load_predictor("pudnet")[1] in set(table["meta_training_seconds"])
    assert table["value"].between(0, 100).all()
