"""What ships with the kit loads offline, is small, has its card, and predicts a working network."""

from importlib.resources import files

import pytest
import torch

from pudnet_lib.core import PudNet
from pudnet_lib.core.model import SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.errors import PudNetError
from pudnet_lib.export import save
from pudnet_lib.images import load_images
from pudnet_lib.images.pool import default_class_split
from pudnet_lib.shipped import load_pudnet, load_shipped, shipped_models
from pudnet_lib.supervised import accuracy

FOLDER = files("pudnet_lib.shipped")


def test_everything_shipped_is_small_and_has_a_card():
    sizes = {name: len((FOLDER / f"{name}.safetensors").read_bytes()) for name in shipped_models()}
    assert {"pudnet", "shared"} <= set(sizes)
    assert sizes["pudnet"] <= 8e6
    assert sum(sizes.values()) <= 16e6
    for name in sizes:
        card = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
        assert "seconds" in card or " s on " in card


def test_pudnet_and_its_control_predict_the_same_architecture_from_the_same_classes():
    pudnet, shared = load_pudnet(), load_shipped("shared")
    assert isinstance(pudnet, PudNet)
    assert isinstance(shared, SharedNetwork)
    assert pudnet.layout == shared.layout
    assert not pudnet.training
    ours, theirs = load_shipped("pudnet").notes, load_shipped("shared").notes
    assert ours["train"]["pool"] == theirs["train"]["pool"]
    assert ours["steps"] == theirs["steps"]  # the same number of episodes


def test_shipped_predictor_is_far_above_chance_on_classes_it_never_saw():
    train, test = load_images("fashion"), load_images("fashion", split="test")
    unseen = default_class_split("fashion", 10).unseen
    train, test = train.select_classes(unseen).at_most(30), test.select_classes(unseen)
    before = torch.get_rng_state()
    network = predict(load_pudnet(), train)
    assert torch.equal(before, torch.get_rng_state())
    assert accuracy(network, test) > 60  # chance is 25


def test_unknown_models_and_controls_are_refused():
    with pytest.raises(PudNetError, match="Did you mean 'pudnet'"):
        load_pudnet("pudnett")
    with pytest.raises(PudNetError, match="no checkpoint"):
        load_pudnet("missing.safetensors")


def test_load_pudnet_loads_what_pudnet_train_wrote(pudnet, tmp_path):
    model = pudnet()
    model.notes = dict(steps=3)
    save(model, tmp_path / "run" / "model.safetensors")
    for name in (tmp_path / "run", str(tmp_path / "run" / "model.safetensors")):
        model = load_pudnet(name)
        assert model.config == pudnet().config
        assert model.notes == {"steps": 3}
