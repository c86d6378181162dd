"""The refinement: its loss equals a plain loop, factors of zero change nothing, it needs labels."""

import pytest
import torch
import torch.nn.functional as F

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.core.heads import leave_one_out_loss
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError

LABELS = torch.tensor([0, 0, 0, 1, 1])


@pytest.fixture
def sketch() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def refined() -> PudNet:
    return PudNet(PudNetConfig(TargetConfig(width=3), refine=1)).eval()


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


def test_a_step_lowers_the_sketchs_loss_and_zero_factors_change_nothing(sketch):
    model = refined()
    with torch.no_grad():
        after = model(sketch, LABELS)
        for factor in model.refiner.factors:
            factor.zero_()
        before = model(sketch, LABELS)
        plain = model.generate(model.embed(sketch)[None])
        losses = [leave_one_out_loss(model.features(p, sketch), LABELS, model.scale) for p in (before, after)]
    assert all(torch.equal(before[name], weight[0]) for name, weight in plain.items())
    assert losses[1] < losses[0]
    assert not any(t.requires_grad for name, t in after.items() if name in plain)


def test_other_labels_give_other_parameters(sketch):
    model = refined()
    with torch.no_grad():
        one, other = model(sketch, LABELS), model(sketch, torch.tensor([0, 1, 0, 1, 0]))
    assert not torch.allclose(one["blocks.0.0.weight"], other["blocks.0.0.weight"])


def test_gradients_reach_factors_and_generators(sketch):
    model = refined().train()
    sum(t.pow(2).sum() for t in model(sketch, LABELS).values()).backward()
    assert all(f.grad is not None and f.grad.abs().sum() > 0 for f in model.refiner.factors)
    assert model.generators[0].basis.grad.abs().sum() > 0


def test_it_needs_the_sketchs_labels(sketch):
    with pytest.raises(PudNetError, match="labels"):
        refined()(sketch)


def test_fixed_steps_get_shorter_and_stay_out_of_training(sketch):
    lengths = {"refine": 3, "refine_rate": 0.2, "refine_decay": 0.5, "refine_learned": False}
    model = PudNet(PudNetConfig(TargetConfig(width=3), **lengths)).eval()
    assert torch.equal(model.refiner.factors[0], torch.tensor([0.2, 0.1, 0.05])[:, None].expand(3, 3))
    assert not any(factor.requires_grad for factor in model.refiner.factors)
    with torch.no_grad():
        corrected = model(sketch, LABELS)
        plain = model.train()(sketch, LABELS)
        generated = model.generate(model.embed(sketch)[None])
    for name, weight in generated.items():
        assert torch.equal(plain[name], weight[0])
        moved = ((corrected[name] - weight[0]).norm() / weight[0].norm()).item()
        assert 0 < moved <= 1.2 * 1.1 * 1.05 - 1 + 1e-5


def test_a_predicted_network_owns_its_parameters(sketch):
    model = refined()
    with torch.no_grad():
        predicted = model(sketch, LABELS)
    own = {parameter.data_ptr() for parameter in model.parameters()}
    network = predict(model, ImageDataset(sketch, LABELS, ("a", "b"), "toy"))
    assert not own & {parameter.data_ptr() for parameter in network.backbone.parameters()}
    assert all(isinstance(predicted[name], torch.nn.Parameter) for name in model.shared_parameters())
