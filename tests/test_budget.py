"""A budget while learning: what is set to zero is what pruning would cut, and it stays zero."""

import numpy as np
import pytest
import torch

from bayestt.algebra.formats import FORMATS, Form
from bayestt.bayes.budget import Budget, silence
from bayestt.bayes.guide import point
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.prior import gamma_product, log_uniform
from bayestt.bayes.prune import prune, ranks, smallest
from bayestt.bayes.step import adam, step
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize


def believed(format: str, prior=None) -> Model:
    torch.manual_seed(1)
    net = tensorize(fc([64, 36, 4]), {"fc1": Form(format, 4, (6, 6), (8, 8))})
    return model(net, prior or log_uniform(), categorical, 100)


def test_what_is_allowed_falls_geometrically_from_all_to_the_budget() -> None:
    budget = Budget(100, start=2, end=6)
    assert [budget.after(epoch, 10_000) for epoch in range(8)] == [10_000, 10_000, 10_000, 3162, 1000, 316, 100, 100]
    assert budget.after(0, 50) == 100


@pytest.mark.parametrize(("start", "end"), [(3, 3), (4, 2), (-1, 2)])
def test_a_budget_that_ends_before_it_starts_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match=f"a budget from epoch {start} to {end}: give a start of 0 or later, and a later end"):
        Budget(9, start, end)


@pytest.mark.parametrize("prior", [log_uniform(), gamma_product()], ids=lambda prior: prior.name)
@pytest.mark.parametrize("format", FORMATS)
def test_silent_indices_are_those_that_pruning_cuts_and_they_stay_silent(format: str, prior) -> None:
    believes = believed(format, prior)
    net, guide = believes.net, point(believes)
    optimizer = adam(believes, guide, lr=0.1)
    x, labels = torch.randn(32, 64), torch.randint(4, (32,))
    for _ in range(3):
        step(believes, guide, optimizer, x, labels, 0.01, 1.0)

    def current() -> torch.nn.Module:
        net.load_state_dict(believes.layout.unpack(guide.theta.detach()))
        return net

    whole = sum(weight.numel() for weight in net.parameters())
    parameters = (smallest(net) + whole) // 2
    small = prune(current(), parameters=parameters)
    silence(current(), believes.layout, guide.theta, optimizer, parameters)
    images = torch.randn(5, 64)
    torch.testing.assert_close(current()(images), small(images))
    dead = (guide.theta == 0).nonzero()
    assert len(dead) == whole - sum(weight.numel() for weight in small.parameters()) > 0
    before = guide.theta.detach().clone()
    for _ in range(5):
        step(believes, guide, optimizer, x, labels, 0.01, 1.0)
    assert not guide.theta[dead].any() and not torch.equal(before, guide.theta)
    assert ranks(prune(current(), 1e-9)) == ranks(small)


def test_the_budget_takes_only_what_it_must() -> None:
    believes = believed("tt_matrix")
    guide = point(believes)
    optimizer = adam(believes, guide, lr=0.1)
    step(believes, guide, optimizer, torch.randn(8, 64), torch.randint(4, (8,)), 0.0, 1.0)
    before = guide.theta.detach().clone()
    silence(believes.net, believes.layout, guide.theta, optimizer, sum(weight.numel() for weight in believes.net.parameters()))
    np.testing.assert_array_equal(before, guide.theta.detach())
