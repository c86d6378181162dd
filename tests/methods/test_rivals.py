"""The rivals: each rule by hand on toy features, one contract for all."""

import pytest
import torch

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.methods import Recipe, method
from pudnet_lib.methods.protonet import ProtoNet
from pudnet_lib.supervised import accuracy

TARGET = TargetConfig(width=4)
RIVALS = ("protonet", "matchingnet", "meta-baseline", "meta-deepbdc", "musml")


def build(name):
    kind = method(name)
    return kind.model(Recipe(name).config(TARGET, 0))


@pytest.mark.parametrize("name", RIVALS)
def test_every_rule_tells_two_clear_classes_apart(name):
    rival = build(name).eval()
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


@pytest.mark.parametrize("name", RIVALS)
def test_one_contract_and_the_images_order_does_not_matter(name, images):
    data = images(classes=3, per_class=4, size=16)
    network = method(name).fit(data, model=build(name))
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
    network = method("linear head").fit(data, model=shared, target=TARGET, lr=0.05, epochs=20, crop=0)
    assert accuracy(network, data) > 80
    weight = "blocks.0.0.weight"
    assert torch.equal(network.backbone.get_parameter(weight), shared.weights[weight.replace(".", "/")])
