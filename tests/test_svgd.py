"""Particles: Stein's direction is its definition, one particle is MAP, many find a known posterior, and all resume to the same bytes."""

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import grad

from bayestt.algebra.formats import Form
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import point
from bayestt.bayes.model import Model, categorical, log_prior, model
from bayestt.bayes.predict import predict
from bayestt.bayes.prior import gamma_product, half_cauchy, log_uniform
from bayestt.bayes.step import adam, step
from bayestt.bayes.svgd import Particles, direction, particles
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize

PRIORS = [log_uniform(), half_cauchy(0.1), gamma_product()]


def believed(prior=None) -> Model:
    torch.manual_seed(1)
    net = tensorize(fc([24, 12, 4]), {"fc1": Form("tt_matrix", 3, (4, 3), (6, 4))})
    return model(net, prior or log_uniform(), categorical, 50)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 24, generator=generator), torch.randint(4, (16,), generator=generator)


@pytest.mark.parametrize(("count", "size"), [(2, 1), (5, 3), (20, 40)])
def test_the_direction_is_steins(count: int, size: int) -> None:
    torch.manual_seed(count)
    z, slopes = torch.randn(count, size, dtype=torch.float64), torch.randn(count, size, dtype=torch.float64)
    pairs = torch.tensor([(z[i] - z[j]).square().sum() for i in range(count) for j in range(count) if i != j], dtype=torch.float64)
    width = pairs.median() / (2 * log(count + 1))

    def kernel(other: Tensor, one: Tensor) -> Tensor:
        return (-(other - one).square().sum() / (2 * width)).exp()

    for i in range(count):
        expected = sum(kernel(z[j], z[i]) * slopes[j] + 0.7 * grad(kernel)(z[j], z[i]) for j in range(count)) / count
        torch.testing.assert_close(direction(z, slopes, 0.7)[i], expected)


def test_no_particle_is_more_than_another() -> None:
    torch.manual_seed(0)
    z, slopes, order = torch.randn(6, 5), torch.randn(6, 5), torch.randperm(6)
    torch.testing.assert_close(direction(z, slopes, 1.0)[order], direction(z[order], slopes[order], 1.0))


def test_particles_in_one_place_go_the_same_way() -> None:
    slopes = torch.randn(3, 4)
    torch.testing.assert_close(direction(torch.ones(3, 4), slopes, 1.0), slopes.mean(0).expand(3, 4))


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
@pytest.mark.parametrize("weight", [0.0, 0.02])
def test_one_particle_is_map(prior, weight: float) -> None:
    believes = believed(prior)
    alone, best = particles(believes, 1), point(believes)
    with torch.no_grad():
        best.theta.copy_(alone.theta[0])
        best.log_lam.copy_(alone.log_lam[0])
    both = [(guide, adam(believes, guide, 0.01)) for guide in (alone, best)]
    for number in range(3):
        losses = [step(believes, guide, optimizer, *batch(number), weight, 0.5) for guide, optimizer in both]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(alone.theta[0], best.theta, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.log_lam[0], best.log_lam, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
def test_all_gradients_at_once_are_each_ones_own(prior) -> None:
    believes, (x, labels), weight = believed(prior), batch(), 0.02
    guide = particles(believes, 4, std=0.1)
    before = guide.theta.detach().clone()
    step(believes, guide, adam(believes, guide, 1e-9), x, labels, weight, 0.0)
    parts = [before] if prior.closed_form else [before, guide.log_lam.detach()]

    def objective(theta: Tensor, log_lam: Tensor) -> Tensor:
        misfit = -categorical(believes.scores(theta, x)).log_prob(labels).mean()
        return misfit - weight * log_prior(believes, theta.square(), log_lam.exp())

    slopes = [grad(objective, argnums=tuple(range(len(parts))))(*pair) for pair in zip(before, guide.log_lam.detach(), strict=True)]
    expected = direction(torch.cat(parts, 1), -torch.stack([torch.cat(slope) for slope in slopes]), weight)
    found = torch.cat([guide.theta.grad] if prior.closed_form else [guide.theta.grad, guide.log_lam.grad], 1)
    torch.testing.assert_close(-found, expected, rtol=1e-3, atol=1e-5)


def test_particles_find_a_known_posterior() -> None:
    """Of the mean of a Gaussian: its prior is N(0, 10^2), seen are 40 values of deviation 1 around 2."""
    generator = torch.Generator().manual_seed(0)
    seen = 2 + torch.randn(40, 1, generator=generator)
    net = nn.Sequential(nn.Linear(1, 1))
    believes = model(net, log_uniform(), lambda scores: torch.distributions.Normal(scores[:, 0], 1.0, validate_args=False), 40)
    guide = Particles(torch.randn(30, 2, generator=generator), torch.empty(30, 0))
    optimizer = adam(believes, guide, 0.02)
    for _ in range(1500):
        step(believes, guide, optimizer, torch.zeros(40, 1), seen[:, 0], 1 / 40, 1.0)
    bias = guide.draws(30, generator)[:, 1]
    precision = 40 + 1 / 100
    assert bias.mean() == pytest.approx(seen.sum().item() / precision, abs=0.03)
    assert bias.std() == pytest.approx(precision**-0.5, rel=0.25)


def trained(tmp_path=None, watch=None, prior=None) -> tuple:
    believes = believed(prior)
    x, labels = (part.numpy() for part in batch(5))
    batches = Batches(x, labels, size=4, seed=2)
    guide = particles(believes, 5, std=0.1)
    return fit(believes, guide, batches, (x, labels), lr=0.01, epochs=4, ramp=2, checkpoint=tmp_path, watch=watch), x


def test_particles_predict_by_all_of_them() -> None:
    learned, x = trained()
    every = learned.draws(5, 0)
    assert len({weights["fc1.core0"].sum().item() for weights in every}) == 5
    mean = np.mean([predict_with(learned.net, weights, x) for weights in every], axis=0)
    np.testing.assert_allclose(predict(learned, x, samples=5), mean, rtol=1e-5)
    for name, weight in learned.mean.items():
        torch.testing.assert_close(weight, torch.stack([weights[name] for weights in every]).mean(0))
    assert [len(learned.draws(count, 1)) for count in (1, 5, 12)] == [1, 5, 12]


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
def test_interrupted_particles_end_with_the_same_bytes(prior, tmp_path) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(number: int, *_) -> None:
        if number == 2:
            raise Interrupt

    trained(tmp_path / "whole", prior=prior)
    with pytest.raises(Interrupt):
        trained(tmp_path / "twice", interrupt, prior)
    assert (tmp_path / "twice").read_bytes() != (tmp_path / "whole").read_bytes()
    trained(tmp_path / "twice", prior=prior)
    assert (tmp_path / "twice").read_bytes() == (tmp_path / "whole").read_bytes()


def predict_with(net: nn.Module, weights: dict[str, Tensor], x: np.ndarray) -> np.ndarray:
    return torch.func.functional_call(net, weights, (torch.from_numpy(x),)).softmax(1).detach().numpy()


def test_numbers_that_are_none_end_training_with_the_layer() -> None:
    believes = believed()
    guide = particles(believes, 3)
    with torch.no_grad():
        guide.theta[1] = 1e30
    with pytest.raises(FloatingPointError, match="layer fc[12] is the first whose output is not finite"):
        step(believes, guide, adam(believes, guide, 0.1), *batch(), 0.01, 1.0)


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
def test_particles_start_around_the_net_at_its_best_scales(prior) -> None:
    believes = believed(prior)
    guide, weights = particles(believes, 400, std=0.1), believes.layout.pack(dict(believes.net.named_parameters()))
    sizes = torch.cat([weight.square().mean().sqrt().expand(weight.numel()) for weight in believes.layout.unpack(weights).values()])
    torch.testing.assert_close((guide.theta.mean(0) - weights) / sizes, torch.zeros_like(weights), atol=0.03, rtol=0)
    torch.testing.assert_close(guide.theta.std(0) / sizes, torch.full_like(weights, 0.1), atol=0.02, rtol=0)
    log_lam = guide.log_lam[-1].detach().requires_grad_()
    log_prior(believes, weights.square(), log_lam.exp()).backward()
    torch.testing.assert_close(log_lam.grad, torch.zeros_like(log_lam), atol=0.02, rtol=0)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"std": 0.0}])
def test_what_makes_no_particles_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="give at least one particle, and a positive deviation"):
        particles(believed(), **{"count": 2, **wrong})


def test_particles_have_statistics_of_their_own() -> None:
    """Nets with batch-norm learn together, and each predicts with what it sees itself."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(24, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))
    believes, (x, labels) = model(net, log_uniform(), categorical, 16), batch()
    batches = Batches(x.numpy(), labels.numpy(), size=8)
    learned = fit(believes, particles(believes, 3, std=0.5), batches, (x.numpy(), labels.numpy()), lr=0.01, epochs=2)
    means = [learned.statistics(weights)["1.running_mean"] for weights in learned.draws(3, seed=0)]
    expected = [x @ weights["0.weight"].T + weights["0.bias"] for weights in learned.draws(3, seed=0)]
    torch.testing.assert_close(torch.stack(means), torch.stack(expected).mean(1))
    assert not torch.equal(means[0], means[1])
    with pytest.raises(ValueError, match="particles learn in fp32 only"):
        fit(believes, particles(believes, 3), batches, (x.numpy(), labels.numpy()), lr=0.01, epochs=1, precision="bf16")
