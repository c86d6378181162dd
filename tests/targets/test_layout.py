from __future__ import annotations

import pytest
import torch
from torch import nn

from pudnet_lib.core.layout import ParameterLayout
from pudnet_lib.core.targets import ConvNet3, TargetConfig, build_target
from pudnet_lib.errors import PudNetError


def test_convnet3_layout():
    layout = ParameterLayout.of(ConvNet3(width=5, channels=3))
    assert [(t.name, t.shape, t.fan_in) for t in layout.predicted] == [
        ("blocks.0.0.weight", (5, 3, 3, 3), 27),
        ("blocks.1.0.weight", (5, 5, 3, 3), 45),
        ("blocks.2.0.weight", (5, 5, 3, 3), 45),
    ]
    assert layout.shared == tuple(f"blocks.{i}.1.{kind}" for i in range(3) for kind in ("weight", "bias"))
    assert layout.kept == {}
    assert layout.num_predicted == 5 * 3 * 9 + 2 * 5 * 5 * 9


@pytest.mark.parametrize(("stem", "kernel"), [("cifar", 3), ("imagenet", 7)])
def test_resnet18_layout(stem: str, kernel: int):
    network = build_target(TargetConfig("resnet18", 4, 1, stem))  # type: ignore[arg-type]
    layout = ParameterLayout.of(network)
    # 1 stem + 8 blocks of 2 + 3 downsampling 1×1 convolutions
    assert len(layout.predicted) == 20
    assert layout.predicted[0].shape == (4, 1, kernel, kernel)
    assert sum(t.shape[2:] == (1, 1) for t in layout.predicted) == 3
    assert len(layout.shared) == 40  # scale and shift of 20 batch norms
    names = {n for n, _ in network.named_parameters()}
    assert {t.name for t in layout.predicted} | set(layout.shared) == names
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 32)
    assert network.feature_dim == 32


def test_resnet18_of_width_64_is_the_usual_network_without_its_head():
    from torchvision.models import resnet18 as usual

    ours = {n: tuple(p.shape) for n, p in build_target(TargetConfig("resnet18", stem="imagenet")).named_parameters()}
    theirs = {n: tuple(p.shape) for n, p in usual().named_parameters() if not n.startswith("fc.")}
    assert ours == theirs


def test_depthwise_pointwise_and_transposed():
    module = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4, bias=False),
        nn.Conv2d(4, 6, 1),
        nn.ConvTranspose2d(6, 2, 2, stride=2, bias=False),
    )
    layout = ParameterLayout.of(module)
    assert [(t.shape, t.fan_in, t.transposed) for t in layout.predicted] == [
        ((4, 1, 3, 3), 9, False),
        ((6, 4, 1, 1), 4, False),
        ((6, 2, 2, 2), 24, True),
    ]
    assert layout.shared == ("1.bias",)


def test_unsupported_tensors_are_refused_by_name_or_kept():
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2, 5), nn.LayerNorm(5))
    with pytest.raises(PudNetError, match=r"4 tensors can't be predicted \(2\.weight: it belongs to a Linear"):
        ParameterLayout.of(module)
    layout = ParameterLayout.of(module, unsupported="keep")
    assert list(layout.kept) == ["2.weight", "2.bias", "3.weight", "3.bias"]
    assert "LayerNorm" in layout.kept["3.bias"]
    with pytest.raises(PudNetError, match="nothing to predict"):
        ParameterLayout.of(nn.Sequential(nn.BatchNorm2d(3)))


def test_convnet3_features_by_hand():
    # All filters copy their input channel 0 at the centre; batch norm in evaluation mode divides by sqrt(1 + 1e-5).
    network = ConvNet3(width=1, channels=1).eval()
    for block in network.blocks:
        nn.init.zeros_(block[0].weight)
        block[0].weight.data[0, 0, 1, 1] = 1.0
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 5] = 7.0
    assert network(image).item() == pytest.approx(7 * (1 + 1e-5) ** -1.5, rel=1e-6)
    assert network(-image).item() == 0.0  # ReLU


def test_target_config():
    assert build_target(TargetConfig("convnet3", 7, 1)).feature_dim == 7
    assert build_target(TargetConfig("resnet18", 2)).feature_dim == 16
    with pytest.raises(PudNetError, match="Did you mean 'resnet18'"):
        TargetConfig("resnet-18")  # type: ignore[arg-type]
    with pytest.raises(PudNetError, match="Unknown stem"):
        TargetConfig(stem="cifar10")  # type: ignore[arg-type]
    with pytest.raises(PudNetError, match="channels 1 or 3"):
        TargetConfig(channels=2)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_depth_is_the_number_of_blocks(depth: int):
    network = build_target(TargetConfig(width=4, depth=depth))
    assert len(ParameterLayout.of(network).predicted) == depth
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(("stem", "most"), [("cifar", 4), ("imagenet", 16)])
def test_images_that_a_resnet_shrinks_to_nothing_are_refused(stem: str, most: int):
    network = build_target(TargetConfig("resnet10", 4, stem=stem)).eval()
    with pytest.raises(PudNetError, match=f"have {most}×{most} pixels; expected over {most}"):
        network(torch.zeros(1, 3, most, most))
    assert network(torch.zeros(1, 3, most + 1, most + 1)).shape == (1, 32)
