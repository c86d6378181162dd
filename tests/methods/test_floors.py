"""Floors and pretrained features: what a user would pick instead, right on images that anybody can tell apart."""

import pytest
import torch
import torch.nn.functional as F

from pudnet_lib.core.dataset import ImageDataset
from pudnet_lib.errors import PudNetError
from pudnet_lib.methods import method, pretrained_features


@pytest.fixture
def stripes() -> ImageDataset:
    labels = torch.arange(24) % 2
    images = torch.zeros(24, 3, 16, 16, dtype=torch.uint8)
    images[labels == 0, :, ::4], images[labels == 1, :, :, ::4] = 255, 255  # horizontal, vertical
    noise = torch.randint(0, 40, images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageDataset((images // 2 + noise).contiguous(), labels, ("across", "down"))


@pytest.mark.parametrize("name", ["1-NN", "logistic regression"])
@pytest.mark.parametrize("features", ["pixels", "HOG"])
def test_floors_tell_stripes_apart(name, features, stripes):
    network = method(name).fit(stripes, features=features)
    assert network(stripes.images).argmax(1).tolist() == stripes.labels.tolist()
    with pytest.raises(PudNetError, match="Did you mean 'pixels'"):
        method(name).fit(stripes, features="pixel")


def test_a_class_without_images_is_never_guessed(stripes):
    three = ImageDataset(stripes.images, stripes.labels, (*stripes.class_names, "neither"))
    assert torch.isinf(method("1-NN").fit(three)(three.images)[:, 2]).all()


def test_lda_is_the_rule_of_its_shrunken_covariance():
    generator = torch.Generator().manual_seed(1)
    found, labels = torch.randn(12, 5, generator=generator, dtype=torch.float64), torch.arange(12) % 3
    found = found + labels[:, None]
    weight, bias = pretrained_features.lda(found, labels, 3, shrink=0.3)
    means = torch.stack([found[labels == k].mean(0) for k in range(3)])
    centred = found - means[labels]
    covariance = centred.T @ centred / 12
    covariance = 0.7 * covariance + 0.3 * torch.eye(5) * covariance.diagonal().mean()
    expected = torch.linalg.solve(covariance, means.T).T
    assert torch.allclose(weight.double(), expected, rtol=1e-4)
    assert torch.allclose(bias.double(), -0.5 * (expected * means).sum(1) + torch.log(torch.tensor(1 / 3)), rtol=1e-4)


def test_lda_finds_a_shrinkage_between_0_and_1():
    found, labels = (
        F.normalize(torch.randn(40, 1280, generator=torch.Generator().manual_seed(2)), dim=1),
        torch.arange(40) % 4,
    )
    weight, _ = pretrained_features.lda(found, labels, 4)
    assert torch.isfinite(weight).all()


@pytest.mark.skipif(not pretrained_features.available(), reason="the extra 'pretrained' is not installed")
@pytest.mark.parametrize("head", pretrained_features.HEADS)
def test_pretrained_features_tell_stripes_apart(head, stripes):
    network = method("ImageNet-pretrained features").fit(stripes, head=head)
    assert network(stripes.images).argmax(1).tolist() == stripes.labels.tolist()


def test_without_the_extra_one_line_says_how_to_get_it(monkeypatch, stripes):
    monkeypatch.setattr(pretrained_features, "find_spec", lambda name: None)
    pretrained_features.backbone.cache_clear()
    with pytest.raises(PudNetError, match=r"pudnet-kit\[pretrained\]"):
        method("ImageNet-pretrained features").fit(stripes)
