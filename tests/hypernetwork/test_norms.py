"""Batch statistics are right to 1e-6 where PyTorch's one-pass sums are off by 1e-3; gradients, too."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pudnet_lib.core.norms import BatchNorm, precise_statistics


def reference(x: torch.Tensor, layer: nn.BatchNorm2d) -> torch.Tensor:
    """Batch norm in 64 bits, written out."""
    x = x.double()
    var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    scale, shift = (t.detach().double().view(1, -1, 1, 1) for t in (layer.weight, layer.bias))
    return (x - mean) / (var + layer.eps).sqrt() * scale + shift


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_output_statistics_and_gradients_equal_64_bits(layout: torch.memory_format):
    x = (torch.randn(100, 4, 32, 32) + 3.0).contiguous(memory_format=layout)  # far from zero: where sums go wrong
    layer = BatchNorm(4)
    nn.init.uniform_(layer.weight, 0.5, 2.0)
    one, other = x.clone().requires_grad_(), x.double().clone().requires_grad_()
    weights = torch.randn(100, 4, 32, 32)
    found, wanted = layer(one), reference(other, layer)
    (found * weights).sum().backward()
    (wanted * weights.double()).sum().backward()
    torch.testing.assert_close(found.double(), wanted, atol=5e-6, rtol=0)
    torch.testing.assert_close(one.grad.double(), other.grad, atol=5e-6, rtol=1e-5)
    assert (layer.running_mean.double() / 0.1 - x.double().mean((0, 2, 3))).abs().max() < 1e-6 * 3
    spread = x.double().var((0, 2, 3))
    torch.testing.assert_close((layer.running_var.double() - 0.9) / 0.1, spread, atol=1e-5, rtol=1e-5)


def test_a_network_is_as_it_was_after_the_block():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with precise_statistics(network):
        assert type(network[1]) is BatchNorm
        network(torch.randn(2, 3, 8, 8))
    assert type(network[1]) is nn.BatchNorm2d
    assert int(network[1].num_batches_tracked) == 1
