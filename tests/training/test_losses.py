from __future__ import annotations

import math

import pytest
import torch

from pudnet_lib.core.heads import LossWeights, class_means, cosine_logits, leave_one_out_loss, losses_of_logits

AXES = torch.eye(2)


def test_class_means_by_hand():
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]])
    means = class_means(features, torch.tensor([1, 1, 0]), 3)
    assert means.tolist() == [[5.0, 0.0], [2.0, 3.0], [0.0, 0.0]]  # no image of class 2: zeros


def test_cosine_logits_by_hand():
    # (3, 4) has length 5: cosines 3/5 and 4/5 to the axes, whatever their length
    logits = cosine_logits(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 9.0]]), 10.0)
    assert logits[0].tolist() == pytest.approx([6.0, 8.0])


def losses(weights: LossWeights, auxiliary: torch.Tensor | None, query: torch.Tensor | None = None):
    # Class means are the two axes; one query image on the first axis, of class 0. τ = 2.
    logits = cosine_logits(AXES[:1] if query is None else query, class_means(AXES, torch.tensor([0, 1]), 2), 2.0)
    return losses_of_logits(logits, torch.tensor([0]), auxiliary, torch.tensor([3, 1]), weights)


def test_the_three_losses_by_hand():
    # Five training classes; the episode's class 0 is number 3, its class 1 is number 1.
    auxiliary = torch.tensor([[0.0, math.log(3), 0.0, math.log(5), 0.0]])
    found = losses(LossWeights(1, 0.5, 0.25), auxiliary)
    # logits (2, 0): p0 = e² / (e² + 1)
    p0 = math.exp(2) / (math.exp(2) + 1)
    assert found.cosine.item() == pytest.approx(-math.log(p0), rel=1e-5)
    assert found.auxiliary.item() == pytest.approx(-math.log(5 / (1 + 3 + 1 + 5 + 1)), rel=1e-5)
    # KL(auxiliary ‖ cosine), the auxiliary prediction within the episode is (5, 3) / 8
    kl = 5 / 8 * math.log(5 / 8 / p0) + 3 / 8 * math.log(3 / 8 / (1 - p0))
    assert found.consistency.item() == pytest.approx(kl, rel=1e-5)
    total = found.cosine + 0.5 * found.auxiliary + 0.25 * found.consistency
    assert found.total.item() == pytest.approx(total.item())
    assert found.accuracy.item() == 1.0


def test_equal_predictions_are_consistent():
    found = losses(LossWeights(), torch.tensor([[0.0, 0.0, 0.0, 2.0, 0.0]]))  # the episode's logits are (2, 0) as well
    assert found.consistency.item() == pytest.approx(0.0, abs=1e-6)


def test_weight_0_switches_a_loss_off():
    auxiliary = torch.randn(1, 5)
    only = losses(LossWeights(1, 0, 0), None)
    assert only.total.item() == only.cosine.item()
    found = losses(LossWeights(1, 0, 1), auxiliary)
    assert found.auxiliary.item() == 0.0
    assert found.consistency.item() > 0
    found = losses(LossWeights(1, 1, 0), auxiliary)
    assert found.consistency.item() == 0.0
    assert found.auxiliary.item() > 0


def test_support_is_detached_and_query_is_not(pudnet):
    support, query = AXES.clone().requires_grad_(), torch.tensor([[1.0, 1.0]], requires_grad=True)
    model = pudnet()
    model.scale.data.fill_(2.0)
    logits = model.class_logits(support, torch.tensor([0, 1]), query, 2)
    losses_of_logits(logits, torch.tensor([0]), None, torch.tensor([0, 1]), LossWeights(1, 0, 0)).total.backward()
    assert support.grad is None
    # At q = (1, 1): p = (1/2, 1/2), so dL/dq̂ = 2 · (-1/2, 1/2), at a right angle to q; dq̂/dq divides by |q| = √2.
    torch.testing.assert_close(query.grad, torch.tensor([[-1.0, 1.0]]) / 2**0.5)


def test_leave_one_out_equals_a_plain_loop():
    features, labels, tau = torch.randn(7, 4), torch.tensor([0, 0, 0, 1, 1, 2, 2]), torch.tensor(3.0)
    total = torch.zeros(())
    for i in range(7):
        rest = torch.arange(7) != i
        means = class_means(features[rest], labels[rest], 3)
        total += torch.nn.functional.cross_entropy(cosine_logits(features[i : i + 1], means, tau), labels[i : i + 1])
    torch.testing.assert_close(leave_one_out_loss(features, labels, tau), total / 7, atol=1e-5, rtol=1e-5)
