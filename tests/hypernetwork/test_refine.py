"""The refinement: what it moves, by how much, when it takes no step; one pass through the trunk is enough."""

import sys

import pytest
import torch
import torch.nn.functional as F

from pudnet_lib.core import PudNet, SharedNetwork
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.heads import leave_one_out_loss
from pudnet_lib.core.predict import predict
from pudnet_lib.core.refine import LastBlock, refine
from pudnet_lib.core.targets import ConvNet3, TargetConfig, build_target
from pudnet_lib.errors import PudNetError

LABELS = torch.tensor([0, 0, 0, 1, 1])
LAST = "blocks.2.0.weight"


@pytest.fixture
def sketch() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def refined(**config: object) -> SharedNetwork:
    return SharedNetwork(ConvNet3(3), refine=LastBlock(**config)).eval()  # type: ignore[arg-type]


def test_loss_equals_a_plain_loop():
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    losses = []
    for i in range(5):
        logits = []
        for k in range(2):
            others = [features[j] for j in range(5) if LABELS[j] == k and j != i]
            logits.append(F.cosine_similarity(features[i], torch.stack(others).mean(0), dim=0))
        losses.append(F.cross_entropy(7 * torch.stack(logits)[None], LABELS[i : i + 1]))
    assert leave_one_out_loss(features, LABELS, torch.tensor(7.0)).item() == pytest.approx(
        torch.stack(losses).mean().item(), rel=1e-5
    )


def test_only_the_last_block_moves_and_by_the_lengths_asked_for(sketch):
    model = refined(steps=1, rate=0.2)
    before, after = model.initial(sketch), model(sketch, LABELS)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [LAST]
    torch.testing.assert_close((after[LAST] - before[LAST]).norm(), 0.2 * before[LAST].norm(), rtol=1e-4, atol=0)
    losses = [leave_one_out_loss(model.features(p, sketch), LABELS, model.scale) for p in (before, after)]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("target", [TargetConfig("convnet3", 3), TargetConfig("resnet10", 2)], ids=str)
def test_the_trunk_run_once_gives_the_steps_of_the_whole_network(sketch, target: TargetConfig):
    fast = SharedNetwork(target=build_target(target), refine=LastBlock(3, choose_steps=False)).eval()
    slow = SharedNetwork(target=build_target(target), refine=LastBlock(3, choose_steps=False)).eval()
    slow.load_state_dict(fast.state_dict())
    names = [f"{slow.template.last_convolution}.weight"]
    weights = {n: t.detach() for n, t in slow.initial(sketch).items()}
    for step in range(3):
        leaves = {n: weights[n].clone().requires_grad_() for n in names}
        loss = leave_one_out_loss(slow.features(weights | leaves, sketch), LABELS, slow.scale.detach())
        for (n, leaf), g in zip(leaves.items(), torch.autograd.grad(loss, list(leaves.values())), strict=True):
            weights[n] = (leaf - 0.2 * 0.7**step * leaf.norm() / g.norm() * g).detach()
    for name, weight in fast(sketch, LABELS).items():
        torch.testing.assert_close(weight, weights[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("target", [TargetConfig("convnet3", 3), TargetConfig("resnet10", 4)], ids=str)
def test_images_computed_once_give_the_network_of_separate_passes(images, target: TargetConfig, monkeypatch):
    data = images(3, 8, size=32)
    model = SharedNetwork(target=build_target(target), refine=LastBlock(3, choose_steps=False))
    passes = predict(model, data, sketch=data.sketch_with_labels(20))
    monkeypatch.setattr(sys.modules[predict.__module__], "recalibrate", None)
    monkeypatch.setattr(sys.modules[predict.__module__], "extract_features", None)
    for sketch in (None, (data.images, data.labels)):
        once = predict(model, data, sketch=sketch)
        for (name, tensor), other in zip(once.state_dict().items(), passes.state_dict().values(), strict=True):
            # Class means are of features under the batch's own variance; in the running one N - 1 of N values count.
            near = 0.01 if name == "means" else 1e-5
            assert (tensor - other).float().norm() <= near * other.float().norm(), name


def test_all_layers_are_refined_on_request_and_another_network_has_its_last_convolution_refined(sketch):
    every = refined(steps=1, layers="all")
    moved = every(sketch, LABELS)
    assert all(not torch.equal(moved[t.name], every.initial(sketch)[t.name]) for t in every.layout.predicted)
    own = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    )  # fmt: skip
    model = PudNet(own, dim=8, refine=LastBlock(1)).eval()
    before, after = model.initial(sketch), model(sketch, LABELS)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["3.weight"]


def test_classes_with_one_image_mean_no_step(sketch):
    labels = torch.tensor([0, 0, 0, 0, 1])
    model = refined()
    parameters, steps, _ = refine(model, model.initial(sketch), sketch, labels, LastBlock())
    assert steps == 0
    assert torch.equal(parameters[LAST], model.initial(sketch)[LAST])
    chosen = refine(model, model.initial(sketch), sketch, LABELS, LastBlock(choose_steps=True))
    assert chosen[1] == 0  # two images: none is left to compare with where one is held out


def test_the_number_of_steps_is_chosen_by_held_out_images(images):
    data = images(3, 8, size=16)
    model = refined(choose_steps=True)
    _, steps, _ = refine(model, model.initial(data.images), data.images, data.labels, LastBlock(4, choose_steps=True))
    assert 0 <= steps <= 4
    noise = torch.randint(0, 256, (40, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    huge = LastBlock(8, rate=3.0, decay=1.0, choose_steps=True)  # steps that can only hurt
    assert refine(model, model.initial(noise), noise, torch.arange(40) % 4, huge)[1] < 8


def test_other_labels_give_other_parameters(sketch):
    model = refined()
    assert not torch.allclose(model(sketch, LABELS)[LAST], model(sketch, torch.tensor([0, 1, 0, 1, 0]))[LAST])


def test_it_needs_the_sketchs_labels_and_takes_no_part_in_training(sketch):
    with pytest.raises(PudNetError, match="labels"):
        refined()(sketch)
    model = refined().train()
    assert torch.equal(model(sketch)[LAST], model.initial(sketch)[LAST])
    with pytest.raises(PudNetError, match="decay"):
        LastBlock(decay=0)


def test_it_can_be_put_on_a_model_and_is_then_part_of_its_config(sketch):
    model = SharedNetwork(ConvNet3(3)).eval()
    assert not model.sees_support
    model.refine = LastBlock(2)
    assert model.config.refine == LastBlock(2)
    assert model.sees_support
    assert not torch.equal(model(sketch, LABELS)[LAST], model.initial(sketch)[LAST])


def test_a_predicted_network_owns_its_parameters_and_says_how_many_steps(sketch):
    model = refined(steps=2)
    own = {parameter.data_ptr() for parameter in model.parameters()}
    network = predict(model, ImageDataset(sketch, LABELS, ("a", "b"), "toy"))
    assert network.origin["refinement_steps"] == 2
    assert "refine" in network.seconds
    assert not own & {parameter.data_ptr() for parameter in network.backbone.parameters()}
