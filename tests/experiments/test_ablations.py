"""The ablations change one factor, and their effects are paired differences."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.figures.ablation_figures import figure_effects
from pudnet_lib.images.pool import Pool, PoolConfig
from pudnet_lib.studies import ablations
from pudnet_lib.studies.ablation_variants import CHEAP, FACTORS


def test_each_variant_differs_from_the_base_in_its_factor_alone():
    config = ablations.Config(steps=100)
    base = ablations.train_config(config, "PudNet", 1)
    assert base.pudnet.seed == base.episode_seed == base.meta.seed == 1
    for variant, change in ablations.VARIANTS.items():
        other = ablations.train_config(config, variant, 1)
        trained = set(change) - {"recalibrate", "sketch"}
        assert (other == base) == (not trained), variant
        assert (other.pool == base.pool) == ("pool.sources" not in change)
    assert ablations.train_config(config, "1/4 of the episodes", 0).meta.steps == 25
    assert ablations.train_config(config, "depth 4", 0).pudnet.target.depth == 4
    assert ablations.train_config(config, "batch norm in the encoder", 0).pudnet.encoder_norm == "batch"


def test_every_factor_has_a_variant_and_the_laptop_runs_known_ones():
    wanted = {"recurrence", "α", "losses", "encoder", "sketch", "episodes", "pool", "target", "generator", "batch norm"}
    assert wanted <= set(FACTORS)
    assert set(CHEAP) <= set(ablations.VARIANTS)
    assert all(set(CHEAP) & set(FACTORS[factor]) for factor in wanted)
    assert len(ablations.PROFILES["laptop"].seeds) == 3
    assert ablations.PROFILES["paper"].variants == ()


def test_unknown_variant_names_the_nearest():
    with pytest.raises(PudNetError, match="Did you mean 'no recurrence'"):
        ablations.train_config(ablations.Config(), "no recurence", 0)


def _rows(method: str, values: dict[str, list[float]], swap: str = "own") -> list[dict[str, object]]:
    return [
        {"method": method, "dataset": "toy", "episode": g, "seed": 0, "swap": swap, "classes": c, "value": v}
        for c, vs in values.items()
        for g, v in enumerate(vs)
    ]


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        _rows("PudNet", {"unseen": [60.0, 70.0], "validation": [50.0, 52.0]})
        + _rows("PudNet", {"unseen": [58.0, 66.0]}, "far")
        + _rows("PudNet", {"unseen": [60.0, 70.0]}, "near")
        + _rows("shared network, lr 1e-2", {"unseen": [61.0, 73.0], "validation": [50.0, 50.0]})
    )


def test_effects_by_hand(table):
    found = ablations.effects(table).set_index(["method", "metric"])["mean"]
    assert found["PudNet", "accuracy"] == pytest.approx(65)
    assert found["PudNet", "far gain"] == pytest.approx(3)
    assert found["PudNet", "near gain"] == pytest.approx(0)
    assert found["shared network, lr 1e-2", "effect"] == pytest.approx(2)
    assert found["shared network, lr 1e-2", "validation"] == pytest.approx(50)
    unseen_only = table[(table["method"] == "PudNet") | (table["classes"] == "unseen")]
    found = ablations.effects(unseen_only).set_index(["method", "metric"])["mean"]
    assert ("shared network, lr 1e-2", "validation") not in found.index


def test_answer_and_figure_say_it(table):
    answer = ablations.answer(table)
    assert "none differs clearly from the base" in answer  # +2 with two episodes: [-10.7, +14.7]
    assert "“PudNet”" in answer
    assert "-2.0" in answer
    labels = {t.get_text() for ax in figure_effects(ablations.effects(table)).axes for t in ax.get_yticklabels()}
    assert {"PudNet", "shared network, lr 1e-2"} <= labels
    clear = table.copy()
    clear.loc[clear["method"] != "PudNet", "value"] = [62.0, 72.0, 50.0, 50.0]
    assert "1 differs clearly from the base (shared network, lr 1e-2 +2.0 [+2.0, +2.0])" in ablations.answer(clear)


def test_a_sketch_of_its_own_size_never_holds_a_query():
    pool = Pool(PoolConfig(("glyphs",)))
    config = EpisodeConfig(3, 4, 4, 5)
    sampler = pool.unseen_episodes(config)
    episode = sampler.episode(0, 0)
    assert torch.equal(ablations.own_sketch(episode, sampler, 4, (0,))[0], episode.sketch)
    for size in (1, 30):
        images, labels = ablations.own_sketch(episode, sampler, size, (0,))
        assert torch.bincount(labels).tolist() == [size] * 3
        data = sampler.pool[0].select_classes(episode.classes.tolist())
        of_first = data.images[data.labels == 0].flatten(1)
        assert all((of_first == image.flatten()).all(1).any() for image in images[labels == 0])
    validation = pool.validation_episodes(config)
    episode = validation.episode(0, 0)
    images, labels = ablations.own_sketch(episode, validation, 30, (0,))
    assert torch.bincount(labels).tolist() == [8] * 3  # sketch and support alone: queries are of the same images
    assert not (images[:, None] == episode.query[None]).flatten(2).all(2).any()


def test_variants_that_share_a_run_are_trained_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    smoke = ablations.PROFILES["smoke"]
    variants = ("PudNet", "1 a class at prediction", "not recalibrated")
    table = ablations.run(replace(smoke, variants=variants, steps=2, seeds=(0,), episodes=2))
    assert len(list(tmp_path.rglob("model.safetensors"))) == 1
    assert set(table["method"]) == set(variants)
    assert set(table["swap"]) == {"own", "far", "near"}
    means = table[table["swap"] == "own"].groupby("method")["value"].mean()
    assert table["value"].between(0, 100).all()
    assert len(means) == 3
