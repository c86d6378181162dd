"""Training many networks side by side is training each alone; divergence and cancelling are seen."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.model import seeded
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.studies.zoo import (
    TrainingCancelledError,
    ZooTraining,
    accuracies,
    grouped_logits,
    image_orders,
    initial_parameters,
    train_networks,
)

SMALL = ZooTraining(width=3, epochs=2, batch_size=5)


def train_one(
    images: torch.Tensor, labels: torch.Tensor, config: ZooTraining, seed: int, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    """Train one network the plain way."""
    with seeded(seed):
        backbone = build_target(TargetConfig("convnet3", config.width, images.shape[1]))
        head = nn.Linear(config.width, int(labels.max()) + 1)
    network = nn.Sequential(backbone, head).to(dtype).train()
    optimiser = torch.optim.Adam(network.parameters(), config.learning_rate)
    schedule = CosineAnnealingLR(optimiser, config.epochs * -(-len(images) // config.batch_size))
    pixels = normalise(images).to(dtype)
    for order in image_orders(config, len(images), [seed])[0]:
        for part in order.split(config.batch_size):
            loss = F.cross_entropy(network(pixels[part]), labels[part])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    modules = {"": backbone, "head.": head}
    return {p + n: t.detach() for p, m in modules.items() for n, t in m.named_parameters()}


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Three episodes of 12 images, 3 classes; the last batch of an epoch is smaller."""
    images = torch.randint(0, 256, (3, 12, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return images, torch.arange(3).repeat_interleave(4)


@pytest.mark.parametrize("at_once", [None, 2, 1], ids=["all", "two", "one"])
@pytest.mark.parametrize("seeds", [[4, 4, 4], [0, 1, 2]], ids=["same", "different"])
def test_grouped_training_equals_the_plain_loop(data, seeds, at_once):
    images, labels = data
    together = train_networks(images, labels, SMALL, seeds, torch.float64, at_once=at_once)
    assert together.finite.all()
    for episode, seed in enumerate(seeds):
        alone = train_one(images[episode], labels, SMALL, seed, torch.float64)
        assert set(alone) == set(together.parameters)
        for name, tensor in alone.items():
            torch.testing.assert_close(together.parameters[name][episode], tensor, rtol=1e-7, atol=1e-9)


def test_a_seed_fixes_initial_weights_and_order(data):
    drawn = initial_parameters(SMALL, 3, 3, [5, 5, 6])
    first = drawn["blocks.0.0.weight"]
    assert first.shape == (3, 3, 3, 3, 3)
    assert drawn["head.weight"].shape == (3, 3, 3)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    orders = image_orders(SMALL, 12, [5, 5, 6])
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert torch.equal(orders.sort(2).values, torch.arange(12).expand(3, 2, 12))


def test_training_goes_on_from_given_parameters(data):
    images, labels = data
    start = {name: t[0] for name, t in initial_parameters(SMALL, 3, 3, [9]).items() if name.startswith("blocks")}
    still = ZooTraining(width=3, epochs=1, batch_size=12, learning_rate=1e-30)
    trained = train_networks(images, labels, still, [0, 1, 2], start=start)
    for episode in range(3):
        torch.testing.assert_close(trained.parameters["blocks.1.0.weight"][episode], start["blocks.1.0.weight"])
    assert not torch.equal(trained.parameters["head.weight"][0], trained.parameters["head.weight"][1])


def test_a_diverged_network_is_marked_and_harms_no_other(data):
    images, labels = data
    seeds = [0, 1, 2]
    plain = train_networks(images, labels, SMALL, seeds)
    start = initial_parameters(SMALL, 3, 3, seeds)
    start["blocks.0.0.weight"][1] = torch.nan
    logits = grouped_logits(start, images.float())
    assert logits.isnan().flatten(1).any(1).tolist() == [False, True, False]
    broken = {"blocks.0.0.weight": start["blocks.0.0.weight"][1]}
    everywhere = train_networks(images, labels, SMALL, seeds, start=broken)
    assert plain.finite.tolist() == [True] * 3
    assert everywhere.finite.tolist() == [False] * 3


def test_cancelling_stops_before_the_next_epoch(data):
    asked = []
    with pytest.raises(TrainingCancelledError, match="cancelled"):
        train_networks(*data, SMALL, [0, 0, 0], keep_going=lambda: asked.append(1) or len(asked) < 2)
    assert len(asked) == 2


def test_accuracies_by_hand():
    """A head that ignores the features and always says class 1 is right on every third image."""
    parameters = initial_parameters(SMALL, 3, 3, [0, 0])
    parameters["head.weight"].zero_()
    parameters["head.bias"].copy_(torch.tensor([0.0, 1.0, 0.0]))
    images = torch.randint(0, 256, (2, 6, 3, 8, 8), dtype=torch.uint8)
    assert accuracies(parameters, images, torch.tensor([0, 1, 2, 0, 1, 2])).tolist() == pytest.approx([100 / 3] * 2)
    assert accuracies(parameters, images, torch.tensor([1, 1, 1, 1, 1, 0])).tolist() == pytest.approx([500 / 6] * 2)


def test_impossible_trainings_are_refused():
    with pytest.raises(PudNetError, match="at least 1"):
        ZooTraining(epochs=0)
    with pytest.raises(PudNetError, match="above 0"):
        ZooTraining(learning_rate=0)
