"""Prediction touches nothing but what it makes, recalibrates on the dataset's own images, and refuses bad input."""

import copy
import math

import pytest
import torch
from torch import nn

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.dataset import ImageDataset, normalise
from pudnet_lib.core.heads import class_means
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.predict import PredictConfig, extract_features, predict, recalibrate
from pudnet_lib.core.targets import TargetConfig
from pudnet_lib.errors import PudNetError

TARGET = TargetConfig(width=4)


@pytest.fixture
def dataset() -> ImageDataset:
    images = torch.randint(0, 256, (24, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return ImageDataset(images, torch.arange(24) % 3, ("ant", "bee", "cat"), "toy")


@pytest.fixture
def pudnet() -> PudNet:
    return PudNet(PudNetConfig(TARGET)).train()


def test_neither_model_nor_generator_nor_dataset_change(pudnet, dataset):
    state, rng, images = copy.deepcopy(pudnet.state_dict()), torch.get_rng_state(), dataset.images.clone()
    network = predict(pudnet, dataset)
    assert all(torch.equal(state[n], t) for n, t in pudnet.state_dict().items())
    assert pudnet.training
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(images, dataset.images)
    assert not network.training
    assert set(network.seconds) == {"sketch", "generate", "assemble", "recalibrate", "class_means"}


def test_a_shared_network_is_copied_not_lent(dataset):
    shared = SharedNetwork(SharedConfig(TARGET))
    network = predict(shared, dataset)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    again = predict(shared, dataset)
    weight = "blocks.0.0.weight"
    assert torch.equal(again.backbone.get_parameter(weight), shared.weights[weight.replace(".", "/")])


def test_recalibration_by_hand():
    backbone = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
    images = torch.tensor([0.0, 0.25, 0.5, 0.75]).view(4, 1, 1, 1)
    recalibrate(backbone, images)
    values = normalise(images).flatten()
    assert backbone[0].running_mean.item() == pytest.approx(values.mean().item(), abs=1e-6)
    assert backbone[0].running_var.item() == pytest.approx(values.var(unbiased=True).item(), abs=1e-5)
    assert not backbone.training
    assert backbone[0].momentum == pytest.approx(0.1)


def test_statistics_are_the_datasets_own_and_the_query_batch_does_not_matter(pudnet, dataset):
    dark = ImageDataset(dataset.images // 8, dataset.labels, dataset.class_names)
    means = [predict(pudnet, d).backbone.get_buffer("blocks.0.1.running_mean") for d in (dataset, dark)]
    assert not torch.allclose(*means)
    network = predict(pudnet, dataset)
    with torch.no_grad():
        whole = network(dataset.images)
        alone = torch.cat([network(image[None]) for image in dataset.images])
    assert torch.allclose(whole, alone, atol=1e-4)


def test_class_means_are_those_of_the_datasets_features(pudnet, dataset):
    network = predict(pudnet, dataset)
    features = extract_features(network.backbone, dataset.images, batch_size=5)
    for k in range(3):
        assert torch.allclose(network.means[k], features[dataset.labels == k].mean(0), atol=1e-5)
    assert torch.allclose(class_means(features, dataset.labels, 3), network.means, atol=1e-5)


def test_without_recalibration_batch_norm_keeps_a_new_layers_statistics(pudnet, dataset):
    network = predict(pudnet, dataset, PredictConfig(recalibrate=False))
    assert network.backbone.get_buffer("blocks.0.1.running_mean").abs().max() == 0
    assert network.seconds["recalibrate"] < 0.01


def test_a_network_of_ones_own_keeps_its_buffers(dataset):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)
            self.norm = nn.BatchNorm2d(5)
            self.register_buffer("gain", torch.tensor(3.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gain * self.norm(self.conv(x)).mean((2, 3))

    own = Own()
    before = copy.deepcopy(own.state_dict())
    model = PudNet(PudNetConfig(), target=own)
    network = predict(model, dataset)
    assert network.backbone.gain == 3
    assert model.feature_dim == 5
    assert own.training
    assert all(torch.equal(before[n], t) for n, t in own.state_dict().items())
    assert math.isfinite(float(network(dataset.images).detach().sum()))


def test_bad_datasets_are_named(pudnet, dataset):
    with pytest.raises(PudNetError, match="1 class; a classifier needs at least two"):
        predict(pudnet, dataset.select_classes([0]))
    gap = ImageDataset(dataset.images, dataset.labels, ("ant", "bee", "cat", "dog"))
    with pytest.raises(PudNetError, match="'dog' has no image"):
        predict(pudnet, gap)
    gray = ImageDataset(dataset.images[:, :1].contiguous(), dataset.labels, dataset.class_names)
    with pytest.raises(PudNetError, match=r"with_channels\(3\)"):
        predict(pudnet, gray)
    with pytest.raises(PudNetError, match="at least 1"):
        PredictConfig(batch_size=0)
