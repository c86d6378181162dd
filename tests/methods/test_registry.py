"""Recipes and the registry: names are checked, numbers are shown as they are used, a run is found again."""

import pytest
import torch

from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.heads import LossWeights
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.pool import PoolConfig
from pudnet_lib.methods import PAPER_LOSSES, Recipe, method, recipe_table, register
from pudnet_lib.methods.training import _stages, build_model, meta_train, plan

TARGET, SMALL, POOL = TargetConfig(width=4), EpisodeConfig(2, 2, 2, 2), PoolConfig(("fashion",))


def test_unknown_names_have_the_nearest_one():
    with pytest.raises(PudNetError, match="Did you mean 'protonet'"):
        Recipe("protnet")
    with pytest.raises(PudNetError, match="Did you mean 'alpha'"):
        Recipe("pudnet", alfa=0.2)
    with pytest.raises(PudNetError, match="Did you mean 'shared network'"):
        plan({"shared network": Recipe("shared"), "mine": Recipe("fine-tuned", start="shared networ")}, POOL, 2)
    with pytest.raises(PudNetError, match="base_lr"):
        Recipe("pudnet", base=0.5, residual=True)


def test_the_table_says_every_number_as_it_is_used():
    text = recipe_table({
        "kit": Recipe("pudnet", lr=1e-3, target_lr=2e-3, base=0.5, base_lr=0.02, residual=True),
        "rival": Recipe("meta-baseline", lr=3e-3),
        "GC": Recipe("scratch", lr=0.1, epochs=30),
        "floor": Recipe("1-NN"),
    })  # fmt: skip
    rows = [line.split() for line in text.splitlines()]
    assert rows[1][:5] == ["kit", "pudnet", "0.001", "0.002", "1/0/0"]
    assert "base 0.5 of the steps at 0.02, residual=True" in text
    assert rows[2][2:] == ["0.003", "0.003", "0/1/0", "then", "1/0/0"]
    assert rows[3][2:] == ["0.1", "-", "-", "epochs=30"]
    assert rows[4][2:] == ["-", "-", "-"]


def test_but_changes_what_it_names_alone():
    recipe = Recipe("pudnet", lr=1e-3, losses=PAPER_LOSSES, alpha=0.2)
    changed = recipe.but(lr=2e-3, alpha=0.5)
    assert (changed.lr, changed.options["alpha"], changed.losses) == (2e-3, 0.5, PAPER_LOSSES)
    assert recipe.options["alpha"] == 0.2


def test_nothing_is_multiplied_between_recipe_and_trainer():
    recipe = Recipe("pudnet", lr=1e-3, target_lr=2e-3, base=5 / 6, base_lr=2e-2, residual=True)
    config = plan({"mine": recipe}, POOL, 60, target=TARGET)[0].training
    assert (config.meta.learning_rate, config.meta.direct_learning_rate) == (1e-3, 2e-3)
    base, own = _stages(config, build_model(config))
    assert (base[2].steps, base[2].learning_rate, base[2].direct_learning_rate) == (50, 2e-2, 0.0)
    assert (own[2].steps, own[2].learning_rate) == (10, 1e-3)
    assert own[3] != base[3], "the hypernetwork sees other episodes than its base"


@pytest.mark.parametrize("name", ["protonet", "matchingnet", "meta-baseline", "meta-deepbdc", "musml"])
def test_stages_share_the_steps(name):
    config = plan({"mine": Recipe(name)}, POOL, 7, target=TARGET)[0].training
    found = [meta for _, _, meta, _ in _stages(config, build_model(config))]
    assert sum(meta.steps for meta in found) == 7
    assert found[-1].weights == LossWeights(1, 0, 0)
    two = name in ("meta-baseline", "meta-deepbdc")
    assert [meta.weights for meta in found[:-1]] == ([LossWeights(0, 1, 0)] if two else [])


def test_a_run_is_trained_once_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    methods = {"ProtoNet": Recipe("protonet"), "1-NN": Recipe("1-NN")}
    first, again = (meta_train(methods, POOL, 2, (0, 1), TARGET, SMALL, progress=False) for _ in range(2))
    assert [(run.name, run.seed) for run in first] == [("ProtoNet", 0), ("ProtoNet", 1), ("1-NN", 0)]
    states = [runs["ProtoNet", 0].outcome().model.state_dict() for runs in (first, again)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert again["ProtoNet", 0].outcome().seconds == first["ProtoNet", 0].outcome().seconds
    assert len(first.log().query("method == 'ProtoNet'")) == 4
    assert first["1-NN", 0].outcome() is None


def test_a_method_of_ones_own(images):
    data = images(classes=3, per_class=4, size=16)

    def fit(dataset, model=None, **_):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(dataset.num_classes))

    register("mine", fit)
    assert method("mine").fit(data)(data.images.float()).shape == (12, 3)
    assert recipe_table({"my method": Recipe("mine")}).splitlines()[1].startswith("my method  mine")
