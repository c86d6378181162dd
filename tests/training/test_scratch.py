from __future__ import annotations

import copy
import itertools
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pudnet_lib import supervised as scratch
from pudnet_lib.core.dataset import ImageDataset, normalise
from pudnet_lib.core.predict import PredictedNetwork
from pudnet_lib.core.targets import ConvNet3, TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.supervised import (
    CosineHead,
    ImageClassifier,
    ScratchConfig,
    accuracy,
    augment,
    batches,
    centralise_gradients,
    finetune,
    train_from_scratch,
    train_network,
)

QUICK = ScratchConfig(
    TargetConfig(width=4), epochs=2, batch_size=8, crop=0, evaluations=2, accelerator="cpu", learning_rate=0.01
)


def changed(**values: object) -> ScratchConfig:
    return ScratchConfig(**(vars(QUICK) | values))  # type: ignore[arg-type]


def states(*modules: nn.Module) -> list[torch.Tensor]:
    return [t.clone() for m in modules for t in m.state_dict().values()]


def test_gradient_centralization_by_hand():
    weight, bias = nn.Parameter(torch.zeros(2, 1, 1, 3)), nn.Parameter(torch.zeros(2))
    linear, frozen = nn.Parameter(torch.zeros(1, 2)), nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]).view(2, 1, 1, 3)
    bias.grad, linear.grad = torch.tensor([1.0, 2.0]), torch.tensor([[4.0, 8.0]])
    centralise_gradients([weight, bias, linear, frozen])
    assert weight.grad.view(2, 3).tolist() == [[-2.0, -1.0, 3.0], [-1.0, -1.0, 2.0]]
    assert bias.grad.tolist() == [1.0, 2.0]  # vectors have no other dimension
    assert linear.grad.tolist() == [[-2.0, 2.0]]
    assert frozen.grad is None


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("centralised", [False, True])
def test_a_step_equals_plain_pytorch(images, optimiser: str, centralised: bool):
    data = images(classes=2, per_class=4)
    config = changed(
        epochs=1, optimiser=optimiser, gradient_centralization=centralised, schedule="constant", weight_decay=0.0
    )
    network = ImageClassifier(ConvNet3(4), nn.Linear(4, 2))
    reference = copy.deepcopy(network).train()
    train_network(network, data, None, config)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    nn.functional.cross_entropy(reference(data.images[order]), data.labels[order]).backward()
    for parameter in reference.parameters():
        if centralised and parameter.ndim > 1:
            parameter.grad -= parameter.grad.flatten(1).mean(1).view(-1, *[1] * (parameter.ndim - 1))
    plain = {"sgd": torch.optim.SGD, "adam": torch.optim.AdamW}[optimiser]
    extra = {"momentum": 0.9, "nesterov": True} if optimiser == "sgd" else {}
    plain(reference.parameters(), lr=0.01, weight_decay=0.0, **extra).step()
    for one, other in zip(states(network), states(reference), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    if centralised and optimiser == "sgd":  # SGD then never moves a filter's mean
        fresh = ImageClassifier(ConvNet3(4), nn.Linear(4, 2))
        before = fresh.backbone.blocks[0][0].weight.mean((1, 2, 3)).clone()
        train_network(fresh, data, None, changed(optimiser="sgd", weight_decay=0.0))
        torch.testing.assert_close(fresh.backbone.blocks[0][0].weight.mean((1, 2, 3)), before, atol=1e-6, rtol=0)


def test_rates_by_hand():
    share = scratch._share
    assert [share("constant", x) for x in (0, 0.5, 1)] == [1, 1, 1]
    assert share("cosine", 0.0) == pytest.approx(0.01)
    assert share("cosine", 0.5) == pytest.approx(0.5)
    assert share("cosine", 0.75) == pytest.approx((1 - 0.5**0.5) / 2)
    assert share("cosine", 1.0) == pytest.approx(0.0)
    assert share("cosine", 1.5) == pytest.approx(0.0)  # the clock may run over


@given(images=st.integers(1, 40), size=st.integers(1, 12), epochs=st.integers(1, 3), seed=st.integers(0, 99))
def test_every_epoch_takes_each_image_once(images: int, size: int, epochs: int, seed: int):
    per_epoch, found = batches(images, size, epochs, torch.Generator().manual_seed(seed))
    parts = list(found)
    assert len(parts) == epochs * per_epoch
    left_out = images % size == 1 and 1 < size < images
    for e in range(epochs):
        seen = torch.cat(parts[e * per_epoch : (e + 1) * per_epoch]).tolist()
        assert len(set(seen)) == len(seen) == images - left_out
    again = batches(images, size, epochs, torch.Generator().manual_seed(seed))[1]
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


def shifted(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Plain loop over pixels: output (r, c) reads input (r + down, c + right), held inside the picture."""
    out = torch.empty_like(image)
    _, height, width = image.shape
    for r, c in itertools.product(range(height), range(width)):
        out[:, r, c] = image[:, min(max(r + down, 0), height - 1), min(max(c + right, 0), width - 1)]
    return out


@pytest.mark.parametrize(("flip", "crop"), [(False, 1), (True, 0), (True, 1)])
def test_augmented_images_are_shifts_and_flips_of_their_own_image(flip: bool, crop: int):
    images = torch.randint(0, 256, (40, 3, 4, 5), dtype=torch.uint8)
    state = torch.get_rng_state()
    made = augment(images, flip, crop, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)
    assert made.shape == images.shape
    assert made.dtype == torch.uint8
    kinds = set()
    moves = list(itertools.product(range(-crop, crop + 1), range(-crop, crop + 1), {False, flip}))
    for image, result in zip(images, made, strict=True):
        versions = {(d, r, f): shifted(image.flip(2) if f else image, d, -r if f else r) for d, r, f in moves}
        fits = [move for move, version in versions.items() if version.equal(result)]
        assert fits
        kinds.update(fits)
    assert len(kinds) > len(moves) / 2  # most of the possible moves occur
    assert augment(images, False, 0, torch.Generator()) is images


def test_accuracy_by_hand(images):
    data = images(classes=2, per_class=3)

    class Guess(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0]]).expand(len(batch), 2)  # always class 0

    assert accuracy(Guess(), data) == 50.0
    assert accuracy(Guess(), data, batch_size=4) == 50.0


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_learns_toy_images_with_its_default_rates(images, optimiser: str):
    data, test = images(per_class=16), images(per_class=20)  # the same patterns, other noise
    config = changed(epochs=20, optimiser=optimiser, learning_rate=0.0)
    result = train_from_scratch(data, test, config)
    assert result.curve[-1]["value"] == 100.0
    assert result.curve[-1]["loss"] < 0.5 * result.curve[0]["loss"]
    assert not result.network.training
    assert accuracy(result.network, test) == 100.0


def test_the_curve(images):
    data = images(classes=3, per_class=8)  # 24 images, 3 steps an epoch
    result = train_from_scratch(data, data, changed(epochs=4, evaluations=3, evaluate_start=True))
    assert [row["step"] for row in result.curve] == [0, 1, 4, 8, 12]
    assert [row["epoch"] for row in result.curve] == pytest.approx([0, 1 / 3, 4 / 3, 8 / 3, 4])
    assert "loss" not in result.curve[0]
    assert result.curve[0]["seconds"] == 0
    seconds = [row["seconds"] for row in result.curve]
    assert seconds == sorted(seconds)
    assert result.seconds >= seconds[-1]
    nothing = train_from_scratch(data, None, changed(epochs=1))
    assert nothing.curve == []
    assert nothing.seconds > 0


def test_the_clock_holds_still_while_accuracy_is_measured(images, monkeypatch):
    def slow(*_: object) -> float:
        time.sleep(0.3)
        return 0.0

    monkeypatch.setattr(scratch, "accuracy", slow)
    began = time.perf_counter()
    result = train_from_scratch(images(), images(), changed(epochs=1, evaluations=3))
    wall = time.perf_counter() - began
    assert len(result.curve) == 3
    assert result.seconds < wall - 0.85


def test_time_limit(images):
    result = train_from_scratch(images(), images(), changed(epochs=100_000, max_seconds=0.3, evaluations=3))
    assert 0.3 <= result.seconds < 3
    assert 2 <= len(result.curve) <= 5
    assert result.curve[-1]["step"] < 300_000


def test_the_same_seed_gives_the_same_network_and_touches_no_global_generator(images):
    data = images()
    config = changed(crop=1, flip=True)
    state, np_state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002 (the global one)
    first = train_from_scratch(data, None, config).network
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == np_state  # noqa: NPY002
    torch.rand(5)
    assert all(map(torch.equal, states(first), states(train_from_scratch(data, None, config).network)))
    other = train_from_scratch(data, None, changed(crop=1, flip=True, seed=1)).network
    assert not torch.equal(first.head.weight, other.head.weight)


def test_starting_from_given_parameters(images):
    backbone = build_target(QUICK.target)
    given_state = {n: t.clone() for n, t in backbone.state_dict().items()}
    result = train_from_scratch(images(), None, changed(trainable="probe", epochs=1), initial=backbone.state_dict())
    for name, tensor in result.network.backbone.state_dict().items():
        assert tensor.equal(given_state[name])  # a probe moves neither weights nor batch norm's statistics
        assert backbone.state_dict()[name].equal(given_state[name])
    with pytest.raises(PudNetError, match=r"Unknown tensor of convnet3.*Did you mean 'blocks\.0\.0\.weight'"):
        train_from_scratch(images(), None, QUICK, initial={"blocks.0.0.wieght": torch.zeros(1)})
    with pytest.raises(PudNetError, match=r"has shape \(1,\); expected \(4, 3, 3, 3\)"):
        train_from_scratch(images(), None, QUICK, initial={"blocks.0.0.weight": torch.zeros(1)})


def predicted(data: ImageDataset) -> PredictedNetwork:
    backbone = ConvNet3(4).eval()
    means = torch.stack([backbone(normalise(data.images[data.labels == c])).mean(0) for c in range(data.num_classes)])
    return PredictedNetwork(backbone, means, 10.0, data.class_names, data.size, data.channels)


def test_fine_tuning_starts_at_the_prediction_and_leaves_it_alone(images):
    data, test = images(), images(per_class=5)
    network = predicted(data)
    before = states(network)
    result = finetune(network, data, test, changed(evaluate_start=True))
    assert all(map(torch.equal, before, states(network)))
    assert result.curve[0]["value"] == accuracy(network, test)
    head = CosineHead(network.means, 10.0)
    features = network.backbone(normalise(test.images))
    torch.testing.assert_close(head(features), network(test.images), atol=1e-5, rtol=1e-5)
    assert not torch.equal(result.network.backbone.blocks[0][0].weight, network.backbone.blocks[0][0].weight)
    assert all(p.requires_grad for p in result.network.parameters())


def test_a_probe_trains_the_head_alone(images):
    data = images()
    network = predicted(data)
    result = finetune(network, data, None, changed(trainable="probe"))
    assert all(map(torch.equal, states(network.backbone), states(result.network.backbone)))
    assert not torch.equal(result.network.head.vectors, CosineHead(network.means, 10.0).vectors)


def test_noise_moves_every_filter_a_little_and_reproducibly(images):
    network = predicted(images())
    nearly_still = changed(trainable="probe", epochs=1)
    made = [finetune(network, images(), None, nearly_still, noise=0.1).network.backbone for _ in range(2)]
    assert all(map(torch.equal, states(made[0]), states(made[1])))
    for block, original in zip(made[0].blocks, network.backbone.blocks, strict=True):
        moved = (block[0].weight - original[0].weight).std() / original[0].weight.std()
        assert 0.05 < moved < 0.2


def test_from_scratch_is_fine_tuning_from_random_parameters(images):
    data = images()
    scratch_network = train_from_scratch(data, None, changed(seed=7)).network
    with scratch.seeded(7):
        backbone, head = ConvNet3(4), nn.Linear(4, data.num_classes)
    again = train_network(ImageClassifier(backbone, head), data, None, changed(seed=7)).network
    assert all(map(torch.equal, states(scratch_network), states(again)))


BAD = [
    ({"optimiser": "adamw"}, r"Unknown ScratchConfig\.optimiser 'adamw'\. Did you mean 'adam'"),
    ({"schedule": "linear"}, "schedule"),
    ({"trainable": "head"}, "trainable"),
    ({"epochs": 0}, "at least 1"),
    ({"crop": -1}, "at least 0"),
    ({"max_seconds": float("nan")}, "at least 0"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_bad_configs_are_named(values: dict[str, object], message: str):
    with pytest.raises(PudNetError, match=message):
        ScratchConfig(**values)  # type: ignore[arg-type]


def test_bad_data_and_nan_are_named(images):
    with pytest.raises(PudNetError, match="toy has one class only"):
        train_from_scratch(images(classes=1), None, QUICK)
    with pytest.raises(PudNetError, match="loss became nan by step 1"):
        train_from_scratch(images(), None, QUICK, initial={"blocks.0.1.weight": torch.full((4,), float("nan"))})
    with pytest.raises(PudNetError, match="tells 3 classes apart and toy has 2"):
        finetune(predicted(images()), images(classes=2), None, QUICK)
    assert finetune(predicted(images()), images(classes=2), None, QUICK, head="random").network.head.out_features == 2
    with pytest.raises(PudNetError, match="Unknown head"):
        finetune(predicted(images()), images(), None, QUICK, head="linear")  # type: ignore[arg-type]
