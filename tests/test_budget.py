"""A budget while learning: what is set to zero is what pruning would cut, and it stays zero."""

import numpy as np
import pytest
import torch

from bayestt.algebra.formats import FORMATS, Form
from bayestt.bayes.budget import Budget, silence
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.prior import NARROWEST, WIDEST, gamma_product, half_cauchy, inverse_gamma, log_uniform
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


@pytest.mark.parametrize("parameters", [-5, 0, 2.5, float("nan")])
def test_a_budget_is_a_whole_number(parameters: float) -> None:
    with pytest.raises(ValueError, match=f"a budget of {parameters} parameters: give a whole number of at least 1"):
        Budget(parameters, 1, 3)


def test_a_budget_that_cannot_be_met_is_refused() -> None:
    believes = believed("tt_matrix")
    Budget(400, 1, 4).check(believes.net, point(believes), 4)
    for budget, guide, message in (
        (Budget(400, 1, 50), point, "a budget that ends in epoch 50 of 4: give an earlier end, or more epochs"),
        (Budget(9, 1, 4), point, "9 parameters: this network takes"),
        (Budget(400, 1, 4), mean_field, "a budget while learning needs a point guide, not MeanField: meet it first"),
    ):
        with pytest.raises(ValueError, match=message):
            budget.check(believes.net, guide(believes), 4)


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


GRADIENT = [
    log_uniform(closed_form=False),
    half_cauchy(0.1, product=True, closed_form=False),
    inverse_gamma(1.0, 1e-6, closed_form=False),
    gamma_product(),
]


@pytest.mark.parametrize("prior", GRADIENT, ids=lambda prior: prior.name)
def test_scales_that_follow_their_gradient_outlive_silent_indices(prior) -> None:
    believes = believed("tt_matrix", prior)
    guide = point(believes)
    optimizer = adam(believes, guide, lr=0.05)
    x, labels = torch.randn(16, 64), torch.randint(4, (16,))
    step(believes, guide, optimizer, x, labels, 0.01, 1.0)
    silence(believes.net, believes.layout, guide.theta, optimizer, smallest(believes.net) + 30)
    dead = guide.theta == 0
    for _ in range(500):
        step(believes, guide, optimizer, x, labels, 0.01, 1.0)
    scales = guide.log_lam.detach().exp()
    assert dead.any() and not guide.theta[dead].any()
    assert scales.min() >= NARROWEST * 0.9999 and scales.max() <= WIDEST * 1.0001


def test_the_budget_takes_only_what_it_must() -> None:
    believes = believed("tt_matrix")
    guide = point(believes)
    optimizer = adam(believes, guide, lr=0.1)
    step(believes, guide, optimizer, torch.randn(8, 64), torch.randint(4, (8,)), 0.0, 1.0)
    before = guide.theta.detach().clone()
    silence(believes.net, believes.layout, guide.theta, optimizer, sum(weight.numel() for weight in believes.net.parameters()))
    np.testing.assert_array_equal(before, guide.theta.detach())
