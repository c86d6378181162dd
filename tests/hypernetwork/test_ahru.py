from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pudnet_lib.core.ahru import AHRU


def gru(cell: nn.GRUCell, x: Tensor, h: Tensor) -> Tensor:
    """The GRU's equations (Cho et al. 2014, in PyTorch's form)."""
    xr, xz, xn = (cell.weight_ih @ x + cell.bias_ih).chunk(3)
    hr, hz, hn = (cell.weight_hh @ h + cell.bias_hh).chunk(3)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    n = torch.tanh(xn + r * hn)
    return (1 - z) * n + z * h


def standardised(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()


def reference(ahru: AHRU, embedding: Tensor) -> Tensor:
    """One dataset, (G, D) embedding, layer by layer: L codes (L, D)."""
    hidden, mean, a, codes = list(embedding), embedding.mean(0), ahru.start, []
    adaptive = ahru.recurrence == "ahru"
    for t in range(ahru.layers):
        x = a
        for g, cell in enumerate(ahru.cells):
            hidden[g] = gru(cell, x, hidden[g])
            if adaptive:
                hidden[g] = standardised(hidden[g]) * ahru.hidden_norm.weight + ahru.hidden_norm.bias
            x = hidden[g]
        a = (ahru.out.weight @ x + ahru.out.bias).clamp_min(0)
        mixed = (1 - ahru.alpha) * a + ahru.alpha * mean
        codes.append(standardised(mixed) * ahru.norm_scale[t] + ahru.norm_shift[t])
    return torch.stack(codes)


def shake(module: nn.Module) -> None:
    """Move every parameter off its initial value, so that no scale of 1 or shift of 0 hides a fault."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


@pytest.mark.parametrize("recurrence", ["ahru", "gru"])
@pytest.mark.parametrize("states", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.0])
def test_equals_the_plain_loop(recurrence: str, states: int, alpha: float):
    ahru = AHRU(layers=4, dim=6, states=states, alpha=alpha, recurrence=recurrence)  # type: ignore[arg-type]
    shake(ahru)
    embeddings = torch.randn(3, states, 6)
    codes = ahru(embeddings)
    assert codes.shape == (3, 4, 6)
    for embedding, code in zip(embeddings, codes, strict=True):
        torch.testing.assert_close(code, reference(ahru, embedding), atol=1e-5, rtol=1e-4)


def test_without_recurrence_a_code_is_a_perceptron_of_its_own():
    ahru = AHRU(layers=3, dim=6, recurrence="none")
    shake(ahru)
    embeddings = torch.randn(2, 2, 6)
    codes = ahru(embeddings)
    for b in range(2):
        for t in range(3):
            hidden = (embeddings[b].mean(0) @ ahru.first[t]).clamp_min(0) @ ahru.second[t]
            expected = standardised(hidden) * ahru.norm_scale[t] + ahru.norm_shift[t]
            torch.testing.assert_close(codes[b, t], expected, atol=1e-5, rtol=1e-4)


def test_alpha_1_gives_every_layer_the_embedding_alone():
    ahru = AHRU(layers=3, dim=6, alpha=1.0)
    embedding = torch.randn(1, 2, 6)
    expected = standardised(embedding[0].mean(0))
    for code in ahru(embedding)[0]:
        torch.testing.assert_close(code, expected, atol=1e-6, rtol=1e-5)


def test_the_start_is_saved():
    assert "start" in AHRU(layers=2, dim=4).state_dict()
