"""Diagnostics: spreads and ranks by hand, a network that ignores the sketch shows nothing, the matrix's diagonal."""

import numpy as np
import pandas as pd
import pytest
import torch

from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.evaluate import Swapper, evaluate_episodes
from pudnet_lib.figures import diagnostics_figures as figures
from pudnet_lib.studies import diagnostics

SMALL = EpisodeConfig(2, 3, 3, 3)


@pytest.fixture
def sources(images):
    return [images(classes=5, per_class=12, size=16, seed=s, name=name) for s, name in enumerate(("one", "two"))]


def test_spread_by_hand():
    weights = torch.tensor([[1.0, 0], [3, 0], [0, 2], [0, 4]])
    found = diagnostics.spread(weights, ["a", "a", "b", "b"])
    length = np.sqrt((1 + 9 + 4 + 16) / 4)
    assert found["within"] == pytest.approx(100 * 1 / length)  # each is 1 away from (2, 0) or (0, 3)
    assert found["between"] == pytest.approx(100 * np.sqrt(1 + 1.5**2) / length)  # both from (1, 1.5)


@pytest.mark.parametrize(
    ("weights", "rank"),
    [
        ([[1.0, 1], [1, 1], [1, 1]], 0),
        ([[0.0, 0], [1, 1], [2, 2]], 1),
        ([[1.0, 0], [-1, 0], [0, 1], [0, -1]], 2),
    ],
)
def test_effective_rank_by_hand(weights, rank):
    assert diagnostics.effective_rank(torch.tensor(weights)) == pytest.approx(rank, abs=1e-6)


def test_a_network_that_ignores_the_sketch_shows_nothing(sources):
    model = SharedNetwork(SharedConfig(TargetConfig(width=4)))
    table = diagnostics.diagnose({"shared": [model]}, EpisodeSampler(sources, SMALL), Swapper(sources, 3), 2, (0, 1))
    unmoved = table[table["metric"].isin(["sensitivity", "effective rank", "spread between", "spread within"])]
    assert unmoved["value"].abs().max() < 1e-3
    accuracy = table[table["metric"] == "accuracy"].pivot_table(
        index="predicted_for", columns=["dataset", "episode"], values="value"
    )
    assert (accuracy.loc["one"] == accuracy.loc["two"]).all()


def test_a_hypernetwork_reacts_and_the_diagonal_is_its_own_prediction(sources, pudnet):
    sampler, model = EpisodeSampler(sources, SMALL), pudnet()
    table = diagnostics.diagnose({"PudNet": [model]}, sampler, Swapper(sources, 3), 2, (0, 1))
    reactions = table[table["metric"] == "sensitivity"]
    assert set(reactions["change"]) == set(diagnostics.CHANGES)
    assert (reactions["value"] > 0).all()
    assert len(reactions) == 2 * 2 * 3 * 3  # sources, episodes, changes, layers
    own = evaluate_episodes(model, sampler, 2)
    diagonal = table[(table["metric"] == "accuracy") & (table["predicted_for"] == table["dataset"])]
    assert diagonal["value"].tolist() == own["value"].tolist()


def test_one_source_has_no_other_source(sources, pudnet):
    sampler = EpisodeSampler(sources[:1], SMALL)
    episode = sampler.episode(0)
    names = [sources[0].class_names[int(c)] for c in episode.classes]
    found = diagnostics.sensitivity(pudnet(), episode, names, 0, Swapper(sources[:1], 3))
    assert set(found["change"]) == set(diagnostics.CHANGES[:2])


def test_intervals_and_figures():
    rows = [
        {"metric": "accuracy", "predicted_for": a, "dataset": b, "episode": g, "seed": s, "value": v + g + s}
        for (a, b), v in {("x", "x"): 80.0, ("x", "y"): 50.0, ("y", "x"): 60.0, ("y", "y"): 90.0}.items()
        for g in range(3)
        for s in range(2)
    ]
    rows += [
        {
            "metric": "sensitivity",
            "layer": layer,
            "change": c,
            "dataset": "x",
            "episode": g,
            "seed": s,
            "value": g + 1.0,
        }
        for layer in ("first", "second")
        for c in diagnostics.CHANGES
        for g in range(3)
        for s in range(2)
    ]
    rows += [
        {"metric": m, "layer": "all layers", "seed": s, "value": s + 1.0}
        for m in ("spread within", "spread between", "effective rank")
        for s in range(2)
    ]
    summary = diagnostics.summarise_diagnostics(pd.DataFrame(rows).assign(method="PudNet"))
    assert figures.matrix(summary, "PudNet").loc["y", "x"] == pytest.approx(61.5)
    rank = summary[summary["metric"] == "effective rank"].iloc[0]
    assert (rank["mean"], rank["n"], rank["seeds"]) == (1.5, 2, 2)
    texts = {t.get_text().split("\n")[0] for t in figures.figure_matrix(summary).axes[0].texts}
    assert texts == {"81.5", "51.5", "61.5", "91.5"}
    assert figures.figure_sensitivity(summary).axes[0].get_title() == "PudNet"
    assert figures.table_of_layers(summary).iloc[0].tolist() == [1.5, 1.5, 1.5]


def test_a_property_of_one_seed_has_no_interval():
    table = pd.DataFrame([{"method": "PudNet", "metric": "effective rank", "layer": "all", "seed": 0, "value": 2.0}])
    table = table.reindex(columns=[*table.columns, "change", "predicted_for", "dataset", "episode"])
    row = diagnostics.summarise_diagnostics(table).iloc[0]
    assert row["mean"] == 2
    assert np.isnan(row["low"])


def test_rows_for_a_result_file_say_what_they_measure():
    rows = [
        {"metric": "accuracy", "predicted_for": "x", "dataset": "y"},
        {"metric": "sensitivity", "layer": "first", "change": "other classes"},
        {"metric": "effective rank", "layer": "all layers"},
    ]
    found = diagnostics.to_publish(pd.DataFrame(rows).assign(method="PudNet", mean=1.0))
    assert found["metric"].tolist() == [
        "accuracy, parameters of x",
        "sensitivity, first, other classes",
        "effective rank, all layers",
    ]
    assert found["dataset"].tolist()[0] == "y"
