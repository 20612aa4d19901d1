"""Guides: Pyro takes them, and the pieces they give the fast path are those of the evidence lower bound."""

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from test_model import LABELS, PRIORS, X, believed, params  # noqa: F401
from torch.distributions import Normal, kl_divergence

from bayestt.algebra.formats import FORMATS
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import log_joint, log_likelihood, log_prior
from bayestt.bayes.prior import Prior, gamma_product, half_cauchy, log_uniform
from bayestt.bayes.step import adam, step


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
@pytest.mark.parametrize("make", [point, mean_field])
def test_a_guide_starts_at_the_net(make, prior: Prior) -> None:
    believes = believed(prior)
    guide = make(believes)
    mean, std = guide.moments()
    for name, weight in believes.layout.unpack(mean).items():
        assert torch.equal(weight, believes.net.get_parameter(name))
    assert mean.data_ptr() not in {weight.data_ptr() for weight in believes.net.parameters()}
    torch.testing.assert_close(std, torch.full_like(mean, 0.01 if make is mean_field else 0.0))
    torch.testing.assert_close(guide.square(), mean.square() + std.square())


@pytest.mark.parametrize("closed_form", [True, False])
def test_scales_start_from_their_closed_form_or_the_ladder(closed_form: bool) -> None:
    believes = believed(log_uniform(closed_form=closed_form))
    squares = believes.squares(point(believes).square()).detach()
    torch.testing.assert_close(point(believes).log_lam.exp(), (squares / 21).sqrt())
    torch.testing.assert_close(point(believed(gamma_product())).log_lam.detach(), torch.tensor([2.0, 1.0, 0.0]))


@pytest.mark.parametrize("format", FORMATS)
def test_products_of_scales_start_where_the_density_is_flat(format: str) -> None:
    believes = believed(half_cauchy(0.3, product=True, closed_form=False), format, (2, 2, 2), (3, 2, 2))
    guide = point(believes)
    log_prior(believes, guide.square().detach(), guide.log_lam.exp()).backward()
    torch.testing.assert_close(guide.log_lam.grad, torch.zeros_like(guide.log_lam), atol=0.02, rtol=0)


def test_draws_after_training_are_the_generators_and_carry_no_gradients() -> None:
    believes = believed(log_uniform())
    guide = mean_field(believes, std=0.5)
    first, again, other = (guide.draws(4000, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and not first.requires_grad
    torch.testing.assert_close(first.mean(0), guide.mean.detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(first.std(0), torch.full_like(guide.mean, 0.5), atol=0.03, rtol=0)
    alike = point(believes).draws(3, torch.Generator())
    assert torch.equal(alike, point(believes).theta.detach().expand(3, -1)) and not alike.requires_grad


def test_a_points_loss_in_pyro_is_the_fast_paths() -> None:
    believes = believed(PRIORS[1])
    guide = point(believes)
    fast = log_joint(believes, guide.draw(), guide.log_lam.exp(), X, LABELS)
    assert Trace_ELBO().loss(believes, guide, X, LABELS) == pytest.approx(-fast.item(), rel=1e-5)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
def test_expected_log_prior_and_entropy_are_the_divergence(prior: Prior) -> None:
    believes = believed(prior)
    guide = mean_field(believes, std=0.3)
    lam = guide.log_lam.exp()
    mean, std = guide.moments()
    divergence = kl_divergence(Normal(mean, std), Normal(0, believes.deviations(lam))).sum()
    expected = believes.scale.log_prob(lam).sum() - divergence
    torch.testing.assert_close(log_prior(believes, guide.square(), lam) + guide.entropy(), expected, rtol=1e-4, atol=1e-2)


def test_draws_have_the_mean_and_the_deviation_and_carry_gradients() -> None:
    guide = mean_field(believed(log_uniform()), std=0.5)
    drawn = torch.stack([guide.draw() for _ in range(4000)])
    torch.testing.assert_close(drawn.mean(0), guide.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.full_like(guide.mean, 0.5), atol=0.03, rtol=0)
    drawn.square().sum().backward()
    assert guide.mean.grad.any() and guide.log_std.grad.any()


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
@pytest.mark.parametrize("make", [point, mean_field])
def test_pyro_trains_with_a_guide_and_predicts_from_it(make, prior: Prior) -> None:
    believes = believed(prior)
    guide = make(believes)
    svi = SVI(believes, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(X, LABELS) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    assert Predictive(believes, guide=guide, num_samples=5)(X)["labels"].shape == (5, 6)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_deviation_is_positive(std: float) -> None:
    with pytest.raises(ValueError, match="expected a positive standard deviation"):
        mean_field(believed(log_uniform()), std=std)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_a_step_starts_from_pyros_loss_at_the_same_noise(prior: Prior, weight: float) -> None:
    believes = believed(prior)
    guide = mean_field(believes, std=0.3)
    torch.manual_seed(7)
    slow = TraceMeanField_ELBO().loss(believes, guide, X, LABELS)
    torch.manual_seed(7)
    misfit = -log_likelihood(believes, guide.draw(), X, LABELS).item()
    torch.manual_seed(7)
    fast = step(believes, guide, adam(believes, guide, 1e-3), X, LABELS, weight / believes.num_data, 0.0)
    assert fast == pytest.approx(misfit + weight * (slow / believes.num_data - misfit), rel=1e-4)
