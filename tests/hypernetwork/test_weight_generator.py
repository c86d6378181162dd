from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pudnet_lib import speed
from pudnet_lib.core.generator import WeightGenerator, hidden_of_layers
from pudnet_lib.core.layout import PredictedTensor
from pudnet_lib.speed import narrow_product

SHAPES = [(6, 4, 3, 3), (5, 3, 1, 1), (8, 1, 5, 5), (4, 2, 3, 1)]


def reference(generator: WeightGenerator, code: torch.Tensor) -> torch.Tensor:
    """The generator as the paper's code has it: linear, reshape, two 1×1 convolutions over the k·k positions."""
    out, inner, height, width = generator.tensor.shape
    hidden = F.gelu(F.linear(code, generator.code.weight, generator.code.bias))
    maps = hidden.view(1, -1, height, width)
    mixed = F.gelu(F.conv2d(maps, generator.mix.weight[:, :, None, None], generator.mix.bias))
    return F.conv2d(mixed, generator.basis[:, :, None, None]).view(out, inner, height, width)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [1, 4, 16])
def test_equals_the_plain_convolutions(shape: tuple[int, int, int, int], width: int):
    generator = WeightGenerator(PredictedTensor("w", shape), dim=8, width=width)
    codes = torch.randn(3, 8)
    weights = generator(codes)
    assert weights.shape == (3, *shape)
    for code, weight in zip(codes, weights, strict=True):
        torch.testing.assert_close(weight, reference(generator, code), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(generator(code[None])[0], weight, atol=1e-6, rtol=1e-5)


def test_size_is_about_that_of_the_authors_code():
    # 8·9·(D + 1) + 16·9 + 16·out·in scalars
    generator = WeightGenerator(PredictedTensor("w", (64, 64, 3, 3)), dim=128)
    assert sum(p.numel() for p in generator.parameters()) == 8 * 9 * 129 + 16 * 9 + 16 * 64 * 64


@pytest.mark.parametrize("transposed", [False, True])
def test_initial_spread_is_that_of_he(transposed: bool):
    tensor = PredictedTensor("w", (64, 48, 3, 3), transposed)
    weights = WeightGenerator(tensor, dim=32)(torch.randn(64, 32)).detach()
    assert float(weights.pow(2).mean()) == pytest.approx(2 / tensor.fan_in, rel=0.25)


@pytest.mark.parametrize(("transposed", "dims"), [(False, (1, 2, 3)), (True, (0, 2, 3))])
def test_standardised_filters_have_mean_0_and_the_spread_of_he(transposed: bool, dims: tuple[int, ...]):
    tensor = PredictedTensor("w", (6, 5, 3, 3), transposed)
    weight = WeightGenerator(tensor, dim=8, filter_norm="standardise")(torch.randn(1, 8))[0]
    assert weight.mean(dims).abs().max() < 1e-6
    torch.testing.assert_close(
        weight.pow(2).mean(dims), torch.full_like(weight.mean(dims), 2 / tensor.fan_in), rtol=1e-3, atol=0
    )


@pytest.mark.parametrize("transposed", [False, True])
def test_filters_of_one_scalar_survive_standardising(transposed: bool):
    tensor = PredictedTensor("w", (1, 7, 1, 1) if transposed else (7, 1, 1, 1), transposed)
    plain, standardised = (WeightGenerator(tensor, dim=8, filter_norm=norm) for norm in ("none", "standardise"))
    standardised.load_state_dict(plain.state_dict())
    code = torch.randn(1, 8)
    assert standardised(code).equal(plain(code))  # it has no mean or spread of its own


def test_a_residual_starts_as_its_base():
    generator = WeightGenerator(PredictedTensor("w", (6, 4, 3, 3)), dim=8, residual=True)
    weights = generator(torch.randn(5, 8))
    assert generator.base is not None
    for weight in weights:
        assert weight.equal(generator.base)
    assert float(generator.base.detach().std()) == pytest.approx((2 / 36) ** 0.5, rel=0.2)


@pytest.mark.parametrize("onednn", [True, False])
def test_the_narrow_product_is_the_plain_product(onednn: bool, monkeypatch: pytest.MonkeyPatch):
    if not onednn:
        monkeypatch.setattr(speed, "_ONEDNN", None)
    for rows, columns in ((6, 9), (7, 9), (6, 1), (4, 25)):
        basis, hidden = torch.randn(rows, 3), torch.randn(columns, 3)
        plain = torch.stack([(row * hidden).sum(1) for row in basis])
        with torch.no_grad():
            torch.testing.assert_close(narrow_product(basis, hidden), plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("switches", [{}, {"filter_norm": "standardise"}, {"residual": True}], ids=str)
def test_the_same_weights_with_and_without_gradients(switches: dict[str, object]):
    generator = WeightGenerator(PredictedTensor("w", (6, 4, 3, 3)), dim=8, **switches)  # type: ignore[arg-type]
    torch.nn.init.normal_(generator.basis)
    for codes in (torch.randn(1, 8), torch.randn(3, 8)):
        with torch.no_grad():
            fast = generator(codes)
        torch.testing.assert_close(fast, generator(codes).detach(), atol=1e-5, rtol=1e-5)


def test_the_hidden_of_all_layers_equals_one_layer_at_a_time():
    shapes = [(6, 4, 3, 3), (5, 3, 1, 1), (8, 6, 3, 3), (4, 2, 1, 1)]
    generators = [WeightGenerator(PredictedTensor("w", shape), dim=8) for shape in shapes]
    codes = torch.randn(3, 4, 8)
    together = hidden_of_layers(generators, codes)
    for generator, own, hidden in zip(generators, codes.unbind(1), together, strict=True):
        torch.testing.assert_close(hidden, hidden_of_layers([generator], own[:, None])[0], atol=1e-6, rtol=1e-5)
