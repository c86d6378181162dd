"""The rivals: each rule by hand on toy features, one contract for all, a run found again in the cache."""

import pytest
import torch

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.episodes import EpisodeConfig
from pudnet_lib.core.meta import MetaConfig
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.supervised import ScratchConfig, accuracy
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.images.pool import PoolConfig
from pudnet_lib.methods.metric import MetricFit
from pudnet_lib.methods.pretrained import PretrainedFit
from pudnet_lib.methods.protonet import ProtoNet
from pudnet_lib.methods.rivals import RIVALS, RivalConfig, build_rival, trained_rival

TARGET = TargetConfig(width=4)


@pytest.mark.parametrize("method", RIVALS)
def test_every_rule_tells_two_clear_classes_apart(method):
    rival = build_rival(RivalConfig(method, TARGET)).eval()
    support = torch.tensor([[5.0, 0, 0.1, 0], [5, 0.2, 0, 0], [0, 5, 0, 0.1], [0.1, 5, 0.2, 0]])
    query = torch.tensor([[4.0, 0.1, 0, 0], [0.1, 4, 0, 0], [4.5, 0, 0.1, 0.1]])
    with torch.no_grad():
        logits = rival.class_logits(support, torch.tensor([0, 0, 1, 1]), query, 2)
    assert logits.shape == (3, 2)
    assert logits.argmax(1).tolist() == [0, 1, 0]


def test_protonet_by_hand():
    rival = ProtoNet(SharedConfig(TARGET)).eval()
    with torch.no_grad():
        rival.scale.fill_(2.0)
        support = torch.tensor([[0.0, 0], [2, 0], [0, 4]])
        logits = rival.class_logits(support, torch.tensor([0, 0, 1]), torch.tensor([[1.0, 3.0]]), 2)
    assert logits[0].tolist() == pytest.approx([-2 * 3.0, -2 * 2**0.5])  # means (1, 0) and (0, 4)


@pytest.mark.parametrize("method", RIVALS)
def test_one_contract_and_the_images_order_does_not_matter(method, images):
    data = images(classes=3, per_class=4, size=16)
    network = MetricFit(build_rival(RivalConfig(method, TARGET)))(data)
    with torch.no_grad():
        logits = network(data.images)
        assert logits.shape == (12, 3)
        assert torch.isfinite(logits).all()
        shuffled = torch.randperm(12)
        assert torch.allclose(network(data.images[shuffled]), logits[shuffled], atol=1e-4)


def test_pretrained_trains_a_new_head_on_a_fixed_backbone():
    labels = torch.arange(16) % 2
    bright = (40 + 170 * labels)[:, None, None, None].expand(-1, 3, 16, 16).to(torch.uint8)
    data = ImageDataset(bright.contiguous(), labels, ("dark", "bright"))
    shared = SharedNetwork(SharedConfig(TARGET))
    fit = PretrainedFit(shared, ScratchConfig(TARGET, trainable="probe", learning_rate=0.05, epochs=20, crop=0))
    network = fit(data)
    assert accuracy(network, data) > 80
    weight = "blocks.0.0.weight"
    assert torch.equal(network.backbone.get_parameter(weight), shared.weights[weight.replace(".", "/")])


def test_runs_are_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PUDNET_CACHE", str(tmp_path))
    small = EpisodeConfig(2, 2, 2, 2)
    config = RivalConfig("ProtoNet", TARGET, 0, PoolConfig(("fashion",)), small, MetaConfig(steps=2, accelerator="cpu"))
    first, again = trained_rival(config), trained_rival(config)
    states = first.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert again.seconds == pytest.approx(first.seconds, abs=0.01)


def test_unknown_rival():
    with pytest.raises(PudNetError, match="Did you mean 'ProtoNet'"):
        RivalConfig("ProtNet")
