"""Guides: what is believed after training, as families of distributions over all weights, with one best value for every scale.

Each is a Pyro guide, and gives `fit` the pieces of its objective without Pyro's machinery.
"""

from math import log, pi

import pyro
import torch
from pyro.distributions import Delta, Normal
from torch import Tensor, nn

from bayestt.bayes.model import Model
from bayestt.bayes.prior import ladder

ROUNDS = 100
"""Steps towards the best products of scales for the first weights."""


def point(model: Model) -> "Point":
    """One best value for every weight (MAP), at first the net's own."""
    theta = model.layout.pack(dict(model.net.named_parameters()))
    return Point(theta, _first_scales(model, theta.square()))


def mean_field(model: Model, std: float = 0.01) -> "MeanField":
    """An independent Gaussian for every weight (stochastic variational inference), at first around the net's own with this deviation."""
    if not std > 0:
        raise ValueError(f"std is {std}, expected a positive standard deviation: give one, or use bayestt.bayes.guide.point")
    theta = model.layout.pack(dict(model.net.named_parameters()))
    return MeanField(theta, torch.full_like(theta, log(std)), _first_scales(model, theta.square() + std**2))


class Point(nn.Module):
    """theta and lam at one value each; lam is kept as its logarithm."""

    def __init__(self, theta: Tensor, lam: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)
        self.log_lam = nn.Parameter(lam.log())

    def forward(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Sample both sites, in Pyro's way."""
        pyro.module("guide", self)
        _sample_scales(self.log_lam)
        pyro.sample("theta", Delta(self.theta, event_dim=1))

    def draw(self) -> Tensor:
        """A sample of theta through which gradients flow."""
        return self.theta

    def square(self) -> Tensor:
        """The expected square of theta."""
        return self.theta.square()

    def entropy(self) -> Tensor:
        """Of theta, in nats; for a point, as in Pyro, none."""
        return self.theta.new_zeros(())

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of theta."""
        return self.theta.detach(), torch.zeros_like(self.theta)

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` samples of theta (count, size) without gradients; for a point, all alike."""
        return self.theta.detach().repeat(count, 1)


class MeanField(nn.Module):
    """theta independently Gaussian, lam at one value; deviations and lam are kept as their logarithms."""

    def __init__(self, mean: Tensor, log_std: Tensor, lam: Tensor) -> None:
        super().__init__()
        self.mean = nn.Parameter(mean)
        self.log_std = nn.Parameter(log_std)
        self.log_lam = nn.Parameter(lam.log())

    def forward(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Sample both sites, in Pyro's way."""
        pyro.module("guide", self)
        _sample_scales(self.log_lam)
        pyro.sample("theta", Normal(self.mean, self.log_std.exp()).to_event(1))

    def draw(self) -> Tensor:
        """A sample of theta through which gradients flow (reparameterised)."""
        return torch.addcmul(self.mean, self.log_std.exp(), torch.randn_like(self.mean))

    def square(self) -> Tensor:
        """The expected square of theta."""
        return self.mean.square() + (2 * self.log_std).exp()

    def entropy(self) -> Tensor:
        """Of theta, in nats."""
        return self.log_std.sum() + self.log_std.numel() * (1 + log(2 * pi)) / 2

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of theta."""
        return self.mean.detach(), self.log_std.detach().exp()

    @torch.no_grad()
    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` samples of theta (count, size) without gradients, from noise of a generator on the CPU: the same on every device."""
        noise = torch.randn(count, len(self.mean), generator=generator).to(self.mean)
        return torch.addcmul(self.mean, self.log_std.exp(), noise)


def _first_scales(model: Model, square: Tensor) -> Tensor:
    """The ladder, or else the best scales for these squares of weights."""
    if not model.layout.ranks:
        return square.new_empty(0)
    if model.prior.ladder:
        return torch.cat([ladder(ranks) for ranks in model.layout.ranks.values()]).to(square)
    lam = torch.ones(len(model.layout.count)).to(square)
    for _ in range(ROUNDS if model.prior.product else 1):
        lam = model.best_scales(square, lam)
    return lam


def _sample_scales(log_lam: Tensor) -> None:
    if len(log_lam):
        pyro.sample("lam", Delta(log_lam.exp(), event_dim=1))
