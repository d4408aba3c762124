"""The optimisers of training: who updates what, and Muon's step."""

import pytest
import torch
from torch import nn

from autoprivacy.training.optimizers import Muon, Optimizers


def network():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 16, 1, bias=False),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    return model.to(memory_format=torch.channels_last)


def optimizers(model, muon, steps=10):
    return Optimizers(model, 0.1, 0.9, 5e-4, muon, 0.25, steps)


def test_muon_takes_convolutions_but_the_first_and_depthwise_ones():
    model = network()
    both = optimizers(model, Muon())
    assert [weight is model[i].weight for weight, i in zip(both.weights, (2, 4), strict=True)] == [True, True]
    others = [p for group in both.optimizers[0].param_groups for p in group["params"]]
    assert {id(p) for p in others} == {id(p) for p in model.parameters()} - {id(w) for w in both.weights}
    assert len(optimizers(model, None).optimizers) == 1


def test_muon_moves_a_convolution_by_an_orthogonal_matrix():
    model = network()
    both = optimizers(model, Muon(learning_rate=0.25, momentum=0.0, weight_decay=0.0))
    before = model[2].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradient = model[2].weight.grad.clone()
    both.step()
    assert model[2].weight.grad is None
    moved = (before - model[2].weight.detach()).flatten(1)
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    # Newton and Schulz's five steps leave singular values between about 0.7 and 1.2 of the same
    assert float((moved * (u @ v)).sum() / moved.norm() / (u @ v).norm()) > 0.95


@pytest.mark.parametrize("muon", [None, Muon()], ids=["sgd", "muon"])
def test_the_schedules_rise_and_fall_in_all_steps(muon):
    model = network()
    both = optimizers(model, muon, steps=8)
    rates, momenta = [], []
    for _ in range(8):
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in both.optimizers])
        momenta.append(both.optimizers[0].param_groups[0]["momentum"])
        model(torch.randn(2, 3, 7, 7)).sum().backward()
        both.step()
    for column, peak in zip(zip(*rates, strict=True), (0.1, 0.02), strict=False):
        assert max(column) == pytest.approx(peak) and column[0] < peak / 10 and column[-1] < peak / 100
    assert (min(momenta), max(momenta)) == pytest.approx((0.85, 0.95))
