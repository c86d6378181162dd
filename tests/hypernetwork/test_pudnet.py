from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from pudnet_lib.core import ParameterModel, PudNet, PudNetConfig
from pudnet_lib.core.dataset import normalise
from pudnet_lib.core.model import SharedConfig, SharedNetwork
from pudnet_lib.core.refine import LastBlock
from pudnet_lib.core.targets import ConvNet3, TargetConfig
from pudnet_lib.errors import PudNetError
from pudnet_lib.export.models import save

SKETCH = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
LABELS = torch.tensor([0, 0, 0, 1, 1, 1])
VARIANTS: list[dict[str, object]] = [
    {},
    {"recurrence": "gru"},
    {"recurrence": "none"},
    {"alpha": 0.0},
    {"pooling": "mean_std"},
    {"pooling": "class", "filter_norm": "standardise"},
    {"refine": LastBlock(2)},
]


class Odd(nn.Module):
    """A target of the user's own: depthwise, 1×1 and transposed convolutions, a bias, a buffer, a linear layer."""

    feature_dim = 3

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(),
            nn.ConvTranspose2d(4, 5, 2, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
        )  # fmt: skip
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.factor * self.body(images)
        return out


@pytest.mark.parametrize("switches", VARIANTS, ids=str)
def test_predicts_every_parameter_of_the_target(pudnet, switches: dict[str, object]):
    parameters = pudnet(**switches)(SKETCH, LABELS)
    expected = {n: p.shape for n, p in ConvNet3(width=4).named_parameters()}
    assert {n: p.shape for n, p in parameters.items()} == expected


def test_features_equal_a_module_call(pudnet):
    model = pudnet()
    parameters = model(SKETCH)
    network = ConvNet3(width=4).train()
    network.load_state_dict(parameters, strict=False)
    torch.testing.assert_close(model.features(parameters, SKETCH), network(normalise(SKETCH)), atol=1e-6, rtol=1e-5)


def test_many_datasets_at_once_equal_one_at_a_time(pudnet):
    model = pudnet()
    embeddings = torch.stack([model.embed(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)) for _ in range(3)])
    together = model.generate(embeddings)
    for b in range(3):
        alone = model.generate(embeddings[b : b + 1])
        for name, weight in together.items():
            torch.testing.assert_close(weight[b], alone[name][0], atol=1e-6, rtol=1e-5)


@given(order=st.permutations(range(6)), pooling=st.sampled_from(["mean", "mean_std", "class"]))
def test_the_order_of_the_sketch_does_not_matter(pudnet, order: list[int], pooling: str):
    model = pudnet(pooling=pooling).eval()
    with torch.no_grad():
        straight, shuffled = model(SKETCH, LABELS), model(SKETCH[order], LABELS[order])
    for name, weight in straight.items():
        torch.testing.assert_close(shuffled[name], weight, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_two_datasets_get_different_parameters_in_both_modes(pudnet, training: bool):
    """Fault 1 of the released code."""
    model = pudnet().train(training)
    dark, bright = model(SKETCH // 8), model(255 - SKETCH // 8)
    for tensor in model.layout.predicted:
        assert (dark[tensor.name] - bright[tensor.name]).norm() > 0.01 * dark[tensor.name].norm()


def test_saved_loaded_in_a_new_process_and_predicts_the_same_bits(pudnet, tmp_path: Path):
    """Fault 2 of the released code: a_0 was not saved."""
    model = pudnet(seed=11)
    save(model, tmp_path / "model.safetensors")
    torch.save({n: p.detach() for n, p in model(SKETCH).items()}, tmp_path / "here.pt")
    torch.save(SKETCH, tmp_path / "sketch.pt")
    script = (
        "import sys, torch; torch.set_num_threads(1); folder = sys.argv[1]\n"
        "from pudnet_lib.export.models import load_model\n"
        "model, _ = load_model(folder + '/model.safetensors')\n"
        "there = model(torch.load(folder + '/sketch.pt'))\n"
        "here = torch.load(folder + '/here.pt')\n"
        "assert there.keys() == here.keys()\n"
        "sys.exit(0 if all(torch.equal(there[n], here[n]) for n in here) else 3)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=120, check=False).returncode == 0


def build_all() -> list[ParameterModel]:
    tiny = TargetConfig(width=4)
    return [
        PudNet(PudNetConfig(tiny, dim=8)),
        PudNet(PudNetConfig(tiny, dim=8, pooling="class", refine=LastBlock(1))),
        PudNet(PudNetConfig(dim=8), target=Odd(), unsupported="keep"),
        SharedNetwork(SharedConfig(tiny)),
    ]


def global_state() -> tuple[list[int], list[int]]:
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002 (the global one)


def test_building_leaves_the_global_generators_alone():
    odd, before = Odd(), global_state()
    PudNet(PudNetConfig(TargetConfig(width=4), dim=8))
    PudNet(PudNetConfig(dim=8), target=odd, unsupported="keep")
    SharedNetwork(SharedConfig(TargetConfig(width=4)))
    assert global_state() == before


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("training", [True, False])
def test_forward_and_features_have_no_side_effect(which: int, training: bool):
    model = build_all()[which].train(training)
    template = model._template[0]
    kept = copy.deepcopy(model.state_dict())
    sketch, before = SKETCH.clone(), global_state()
    with torch.no_grad():
        parameters = model(sketch, LABELS)
        given = {n: p.clone() for n, p in parameters.items()}
        first = model.features(parameters, sketch)
        second = model.features(parameters, sketch)
        network = model.materialise(parameters)
    assert torch.equal(first, second)
    assert global_state() == before
    assert sketch.equal(SKETCH)
    assert all(torch.equal(given[n], p) for n, p in parameters.items())
    assert model.training is training
    assert model._template[0] is template
    assert template.training
    assert all(p.is_meta for p in template.parameters())
    assert all(torch.equal(kept[n], t) for n, t in model.state_dict().items())
    assert all(m.running_mean is None for m in template.modules() if isinstance(m, nn.BatchNorm2d))
    assert not network.training


def test_same_seed_same_model_whatever_was_drawn_before(pudnet):
    first = pudnet(seed=3).state_dict()
    torch.rand(7)
    second, other = pudnet(seed=3).state_dict(), pudnet(seed=4).state_dict()
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not torch.equal(first["ahru.start"], other["ahru.start"])


def test_the_users_own_module_is_copied_and_its_values_kept():
    target = Odd()
    before = copy.deepcopy(target.state_dict())
    model = PudNet(PudNetConfig(dim=8), target=target, unsupported="keep")
    parameters = model(SKETCH)
    assert parameters["body.7.weight"].equal(before["body.7.weight"])
    assert [t.name for t in model.layout.predicted] == ["body.0.weight", "body.2.weight", "body.4.weight"]
    expected = functional_call(copy.deepcopy(target).train(), parameters, (normalise(SKETCH),))
    torch.testing.assert_close(model.features(parameters, SKETCH), expected, atol=1e-6, rtol=1e-5)
    made = model.materialise({n: p.clone() for n, p in parameters.items()})
    assert made.factor.item() == 2.0
    torch.testing.assert_close(made.train()(normalise(SKETCH)), expected, atol=1e-6, rtol=1e-5)
    assert all(torch.equal(before[n], t) for n, t in target.state_dict().items())
    with pytest.raises(PudNetError, match="Linear"):
        PudNet(PudNetConfig(dim=8), target=target)


def test_a_residual_network_starts_the_same_for_every_dataset(pudnet):
    model = pudnet(residual=True)
    dark, bright = model(SKETCH // 8), model(255 - SKETCH // 8)
    for tensor, generator in zip(model.layout.predicted, model.generators, strict=True):
        assert dark[tensor.name].equal(generator.base)
        assert bright[tensor.name].equal(generator.base)


def test_a_constant_embedding_and_a_shared_network_see_no_data(pudnet):
    for model in (pudnet(embedding="constant"), SharedNetwork(SharedConfig(TargetConfig(width=4)))):
        one, other = model(SKETCH), model(255 - SKETCH)
        assert all(torch.equal(one[n], other[n]) for n in one)


BAD = [
    (lambda m: m(SKETCH[:, :1]), r"expected \(S, 3, H, W\)"),
    (lambda m: m(SKETCH[0]), r"expected \(S, 3, H, W\)"),
    (lambda m: m(torch.full((2, 3, 8, 8), float("nan"))), "NaN or infinite"),
    (lambda m: PudNetConfig(recurrence="lstm"), "Unknown recurrence"),
    (lambda m: PudNetConfig(filter_norm="standardize"), "Did you mean 'standardise'"),
    (lambda m: PudNetConfig(alpha=1.5), "between 0 and 1"),
    (lambda m: PudNetConfig(dim=0), "at least 1"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input_is_named(pudnet, call, message: str):
    with pytest.raises(PudNetError, match=message):
        call(pudnet())


def test_refinement_needs_labels(pudnet):
    with pytest.raises(PudNetError, match="sketch's labels"):
        pudnet(refine=LastBlock(1)).eval()(SKETCH)
