"""Hypernetworks for any ConvNet: a few steps on a tiny pool lower the loss; what is kept is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.errors import PudNetError

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from train_any_convnet import NETWORKS, OWN, Config, OwnNetwork, build, markdown, run


def test_every_network_has_a_hypernetwork_that_predicts_all_of_its_convolutions():
    config = Config(width=4)
    for name in (*NETWORKS, OWN):
        model = build(config, name)
        parameters = model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
        assert {t.name for t in model.layout.predicted} <= set(parameters)
        assert len({id(g.basis) for g in model.generators}) == len({t.shape for t in model.layout.predicted})


def test_a_short_run_lowers_the_loss_and_names_what_is_kept():
    config = Config(networks=("VGG-11-BN", OWN), width=4, steps=40, episodes=EpisodeConfig(3, 2, 2, 3), unseen=2)
    table = run(config).set_index("network")
    assert (table["loss_after"] < table["loss_before"]).all()
    assert table["fall"].to_list() == pytest.approx((table["loss_before"] - table["loss_after"]).to_list())
    assert table.loc["VGG-11-BN", "kept"] == "none"
    assert table.loc[OWN, "kept"] == "norm.weight, norm.bias, out.weight, out.bias"
    text = markdown(table.reset_index(), config)
    assert "| VGG-11-BN | 8 (" in text
    assert "40 steps, width 4" in text


def test_own_network_has_depthwise_and_pointwise_layers():
    network = OwnNetwork(6)
    assert network(torch.rand(2, 3, 16, 16)).shape == (2, 24)
    assert network.depthwise.groups == 6


def test_unknown_networks_and_too_few_steps():
    with pytest.raises(PudNetError, match="Did you mean 'ResNet-18'"):
        Config(networks=("ResNet18",))
    with pytest.raises(PudNetError, match="at least 20"):
        Config(steps=5)
