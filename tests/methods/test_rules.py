"""Rules and stages of single rivals, by hand."""

import pytest
import torch

from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import predict
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.methods import method
from pudnet_lib.methods.deepbdc import DeepBDC, DistanceCovariancePooling, distance_covariance
from pudnet_lib.methods.meta_baseline import MetaBaseline
from pudnet_lib.methods.metric import fit
from pudnet_lib.methods.musml import MUSML, MusmlConfig
from pudnet_lib.supervised import ScratchConfig, train_from_scratch

TARGET = TargetConfig(width=4)


def test_distance_covariance_equals_a_plain_loop():
    maps = torch.randn(2, 3, 2, 2)
    found = distance_covariance(maps)
    for n in range(2):
        x = maps[n].reshape(3, 4)
        roots = torch.tensor(
            [[float((((x[i] - x[j]) ** 2).sum() / 8 + 1e-5) ** 0.5) for j in range(3)] for i in range(3)]
        )
        centred = roots - roots.mean(0)[None] - roots.mean(1)[:, None] + roots.mean()
        expected = [float(centred[i, j]) for i in range(3) for j in range(i, 3)]
        assert found[n].tolist() == pytest.approx(expected, abs=1e-5)


def test_deepbdc_takes_the_nearest_mean_matrix():
    rival = DeepBDC(SharedConfig(TARGET))
    with torch.no_grad():
        rival.scale.fill_(0.5)
        support = torch.tensor([[0.0, 0], [2, 0], [0, 4]])
        logits = rival.class_logits(support, torch.tensor([0, 0, 1]), torch.tensor([[1.0, 3]]), 2)
    assert logits[0].tolist() == pytest.approx([-0.5 * 9, -0.5 * 2])  # means (1, 0) and (0, 4)


def test_deepbdc_reduces_many_channels():
    pooling = DistanceCovariancePooling(build_target(TargetConfig("resnet18", 16)))
    assert pooling(torch.randn(2, 3, 32, 32)).shape == (2, 64 * 65 // 2)
    assert pooling.feature_dim == 64 * 65 // 2


def test_meta_baseline_by_hand_and_with_gradients_on_both_sides():
    rival = MetaBaseline(SharedConfig(TARGET))
    support = torch.tensor([[3.0, 4], [0, 2]], requires_grad=True)
    logits = rival.class_logits(support, torch.tensor([0, 1]), torch.tensor([[1.0, 0]]), 2)
    assert logits[0].tolist() == pytest.approx([10 * 0.6, 0])
    logits.sum().backward()
    assert support.grad is not None
    assert float(support.grad.abs().sum()) > 0


def test_musml_keeps_the_subspace_of_the_smaller_loss(images):
    sketch, labels = images(classes=2, per_class=4, size=16).sketch_with_labels(4)
    rival = MUSML(MusmlConfig(TARGET, subspaces=3, dim=2, steps=1)).eval()
    adapted = [rival.adapt(k, sketch, labels) for k in range(3)]
    best = min(range(3), key=lambda k: adapted[k][1])
    found = rival(sketch, labels)
    expected = rival.compose(best, rival.starts[best] + adapted[best][0])
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_musml_steps_lower_the_sketchs_loss(images):
    sketch, labels = images(classes=3, per_class=4, size=16).sketch_with_labels(4)
    still = MUSML(MusmlConfig(TARGET, steps=0)).eval().adapt(0, sketch, labels)
    moved = MUSML(MusmlConfig(TARGET, steps=3, rate=0.01)).eval().adapt(0, sketch, labels)
    assert float(still[0].abs().sum()) == 0
    assert moved[1] < still[1]


def test_musml_trains_the_chosen_subspace_alone(images):
    sketch, labels = images(classes=2, per_class=4, size=16).sketch_with_labels(4)
    rival = MUSML(MusmlConfig(TARGET, subspaces=2, dim=2, steps=1)).train()
    before = torch.random.get_rng_state()
    rival.features(rival(sketch, labels), sketch).sum().backward()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert int(rival.draws) == 1
    assert sorted(bool(g.abs().sum() > 0) for g in rival.starts.grad) == [False, True]


def test_musml_needs_labels(images):
    with pytest.raises(PudNetError, match="labels"):
        MUSML(MusmlConfig(TARGET))(images().images)
    with pytest.raises(PudNetError, match="temperature"):
        MusmlConfig(temperature=0)


def test_metric_fit_of_a_shared_network_is_its_prediction(images):
    data = images(classes=3, per_class=6, size=16)
    model = SharedNetwork(SharedConfig(TARGET))
    with torch.no_grad():
        assert torch.allclose(fit(data, model)(data.images), predict(model, data)(data.images), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "optimiser", "gc"), [("GC", "sgd", True), ("SGD", "sgd", False), ("Adam", "adam", False)]
)
def test_from_scratch_is_what_its_name_says(name, optimiser, gc, images):
    data = images(classes=2, per_class=4, size=16)
    found = method("scratch").fit(data, target=TARGET, optimiser=name, epochs=1)
    config = ScratchConfig(
        TARGET, optimiser, gc, epochs=1, batch_size=32, evaluations=1, accelerator="cpu"
    )  # fmt: skip
    expected = train_from_scratch(data, None, config).network
    with torch.no_grad():
        assert torch.equal(found(data.images), expected(data.images))
