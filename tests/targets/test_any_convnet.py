"""Hypernetworks for torchvision's networks and for a user's own: predicted, meta-trained, saved, recalibrated."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from pudnet_lib.core import PudNet, PudNetConfig
from pudnet_lib.core.episodes import EpisodeConfig, EpisodeSampler
from pudnet_lib.core.layout import ParameterLayout
from pudnet_lib.core.meta import MetaConfig, meta_train
from pudnet_lib.core.predict import PredictConfig, predict
from pudnet_lib.core.targets import TargetConfig, build_target
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.models import load_model, load_network, save

NAMES = ("resnet18", "resnet34", "resnet50", "vgg11_bn", "mobilenet_v3_small")
THEIRS = {
    "resnet34": (models.resnet34, "fc."),
    "resnet50": (models.resnet50, "fc."),
    "vgg11_bn": (models.vgg11_bn, "classifier."),
    "mobilenet_v3_small": (models.mobilenet_v3_small, "classifier."),
}


def small(name: str, **switches: object) -> PudNet:
    target = TargetConfig(name, width=4)  # type: ignore[arg-type]
    return PudNet(PudNetConfig(**({"target": target, "dim": 8, "generator_width": 4} | switches)))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", THEIRS)
def test_width_64_is_torchvisions_network_without_its_head(name):
    theirs, head = THEIRS[name]
    with torch.device("meta"):
        usual = {n: tuple(p.shape) for n, p in theirs().named_parameters() if not n.startswith(head)}
        ours = build_target(TargetConfig(name, 64, stem="imagenet"))
    assert {n: tuple(p.shape) for n, p in ours.named_parameters()} == usual


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_features_have_the_stated_length(name, channels):
    target = build_target(TargetConfig(name, 4, channels))
    assert target(torch.rand(2, channels, 32, 32)).shape == (2, target.feature_dim)


def test_mobilenet_has_depthwise_and_pointwise_layers_with_their_fan_in():
    layout = ParameterLayout.of(build_target(TargetConfig("mobilenet_v3_small", 64)))
    depthwise = [t for t in layout.predicted if t.shape[1] == 1]
    assert len(depthwise) == 11  # one a block
    assert all(t.fan_in == t.shape[2] * t.shape[3] for t in depthwise)
    assert sum(t.shape[2:] == (1, 1) for t in layout.predicted) == 40  # of 52 convolutions


@pytest.mark.parametrize("name", NAMES)
def test_all_parameters_are_predicted_and_a_few_steps_lower_the_loss(name, images):
    model, data = small(name, filter_norm="standardise"), images(4, 12, 32)
    network = predict(model, data, PredictConfig(sketch_per_class=3))
    shapes = {n: p.shape for n, p in build_target(model.config.target).named_parameters()}
    assert {n: p.shape for n, p in network.backbone.named_parameters()} == shapes
    assert torch.isfinite(network(data.images)).all()
    sampler = EpisodeSampler([data], EpisodeConfig(3, 3, 4, 4))
    sampler.episode = lambda index, source=None: EpisodeSampler.episode(sampler, 0)  # type: ignore[method-assign]
    with torch.random.fork_rng():
        history = meta_train(model, sampler, MetaConfig(steps=14, validate_every=0, accelerator="cpu"), progress=False)
    losses = [row["loss"] for row in history.history]
    assert sum(losses[-4:]) < sum(losses[:4])


@pytest.mark.parametrize("name", ["vgg11_bn", "mobilenet_v3_small"])
def test_saved_and_reloaded_networks_give_the_same_logits(name, images, tmp_path):
    model, data = small(name), images(3, 6, 32)
    network = predict(model, data)
    save(network, tmp_path / "network.safetensors")
    save(model, tmp_path / "model.safetensors")
    assert torch.equal(load_network(tmp_path / "network.safetensors")(data.images), network(data.images))
    again = predict(load_model(tmp_path / "model.safetensors")[0], data)
    assert torch.equal(again(data.images), network(data.images))


class OwnNetwork(nn.Module):
    """A user's own: unusual batch norm, episode norm, a linear layer, grouped and transposed convolutions, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8, eps=1e-3, momentum=0.37)
        self.grouped = nn.Conv2d(8, 8, 3, groups=4, padding=1, bias=False)
        self.group_norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.out = nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5))
        self.register_buffer("shift", torch.tensor(0.25))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.norm(self.first(images)).relu()
        maps = self.up(self.group_norm(self.grouped(maps)).relu())
        features: Tensor = self.out(maps.mean((2, 3))) + self.shift
        return features


def test_own_network_is_refused_by_name_or_kept_with_its_settings(images):
    target, data = OwnNetwork(), images(3, 6, 16)
    with pytest.raises(PudNetError, match=r"group_norm\.weight: it belongs to a GroupNorm.*out\.0\.weight"):
        PudNet(PudNetConfig(dim=8), target=target)
    before = copy.deepcopy(target.state_dict())
    model = PudNet(PudNetConfig(dim=8, filter_norm="standardise"), target=target, unsupported="keep")
    assert [t.name for t in model.layout.predicted] == ["first.weight", "grouped.weight", "up.weight"]
    assert sorted(model.layout.kept) == sorted(
        f"{layer}.{kind}" for layer in ("group_norm", "out.0", "out.1") for kind in ("weight", "bias")
    )
    network = predict(model, data)
    norm = network.backbone.norm
    assert (norm.eps, norm.momentum) == (1e-3, 0.37)
    assert not torch.equal(norm.running_mean, torch.zeros(8))  # recalibrated on the dataset
    assert network.backbone.shift == 0.25
    for name in model.layout.kept:
        assert torch.equal(network.backbone.get_parameter(name), before[name])
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    config = MetaConfig(steps=12, validate_every=0, accelerator="cpu")
    rows = meta_train(model, EpisodeSampler([data], EpisodeConfig(3, 2, 2, 2)), config, progress=False).history
    assert sum(r["loss"] for r in rows[-4:]) < sum(r["loss"] for r in rows[:4])


def test_attention_is_named():
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.attention = nn.Conv2d(3, 8, 3), nn.MultiheadAttention(8, 2)

    with pytest.raises(PudNetError, match=r"attention\.in_proj_weight: it belongs to a MultiheadAttention"):
        ParameterLayout.of(Attentive())


@pytest.mark.parametrize("residual", [False, True])
def test_shared_generators_take_less_memory_and_still_tell_layers_apart(residual, images, tmp_path):
    own, shared = (small("resnet34", share_generators=s, residual=residual) for s in (False, True))
    count = [sum(p.numel() for p in model.generators.parameters()) for model in (own, shared)]
    shapes = {t.shape for t in own.layout.predicted}
    bases = [g.base for g in shared.generators if g.base is not None]
    # One generator a shape; of a residual design, still one base a layer.
    assert len({id(g.basis) for g in shared.generators}) == len(shapes) < len(own.layout.predicted)
    assert len({id(b) for b in bases}) == (len(own.layout.predicted) if residual else 0)
    assert count[1] < 0.75 * count[0]
    if residual:
        assert {id(b) for b in bases} <= {id(p) for p in shared.direct_parameters()}
    with torch.no_grad():
        for generator in shared.generators:
            generator.basis.normal_()  # a residual starts at zero
    data = images(3, 4, 32)
    weights = shared(data.sketch(2))
    same = [t.name for t in shared.layout.predicted if t.shape == shared.layout.predicted[1].shape]
    assert len(same) == 6
    assert len({round(float(weights[name].detach().abs().sum()), 6) for name in same}) == 6
    save(shared, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")[0]
    assert isinstance(loaded, PudNet)
    assert len({id(g.basis) for g in loaded.generators}) == len(shapes)
    for name, weight in loaded(data.sketch(2)).items():
        torch.testing.assert_close(weight, weights[name])


def test_shared_generators_change_nothing_where_all_shapes_differ():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plain, shared = (PudNet(PudNetConfig(dim=8, share_generators=s), target=module) for s in (False, True))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, shared.state_dict()[name])
