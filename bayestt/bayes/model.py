"""What is believed before training, as a Pyro model of a network, and its log-density without Pyro's machinery."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import log, pi

import pyro
import torch
from pyro.distributions import Categorical, Distribution, Normal
from torch import Tensor, nn
from torch.func import functional_call

from bayestt.bayes.layout import Layout, layout
from bayestt.bayes.prior import Prior

Likelihood = Callable[[Tensor], Distribution]
"""From scores (n, classes) to the distribution of n labels."""


@dataclass(frozen=True, eq=False)
class Model:
    """A Pyro model: calling it samples `lam` (the scales of all ranks), `theta` (all weights of the net) and `labels` (n,) of images x.

    With labels given they are observed; a batch counts for `num_data` images. Pyro's SVI, autoguides and Predictive take it as it is.
    """

    net: nn.Module
    prior: Prior
    likelihood: Likelihood
    num_data: int
    layout: Layout
    scale: Distribution | None

    def __call__(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        lam = pyro.sample("lam", self.scale.to_event(1)) if self.scale else self.layout.count.to(x)
        theta = pyro.sample("theta", Normal(torch.zeros(self.layout.size).to(x), self.deviations(lam)).to_event(1))
        with pyro.plate("images", max(self.num_data, len(x)), subsample=torch.arange(len(x), device=x.device)):
            return pyro.sample("labels", self.likelihood(self.scores(theta, x)), obs=labels)

    def scores(self, theta: Tensor, x: Tensor) -> Tensor:
        """The net's scores (n, classes) for images, with weights theta."""
        return functional_call(self.net, self.layout.unpack(theta), (x,))

    def deviations(self, lam: Tensor) -> Tensor:
        """The prior standard deviation of every entry of theta."""
        scaled = reduce(torch.mul, lam[self.layout.scales])
        return torch.cat([scaled, scaled.new_full((self.layout.size - self.layout.scaled,), self.prior.wide)])

    def squares(self, square: Tensor) -> Tensor:
        """For every scale the sum, over the entries that it scales, of their squares; an entry that it scales twice counts twice."""
        sums = square.new_zeros(len(self.layout.count))
        for places in self.layout.scales:
            sums.index_add_(0, places, square[: self.layout.scaled])
        return sums

    def best_scales(self, square: Tensor, lam: Tensor) -> Tensor:
        """The scales at which the prior's density of them and of weights with these squares is highest; of products, a step towards them.

        Under products every scale would go to its best while all others stay; all go half that way in their logarithms, which never lowers
        the density: its logarithm f(u, w), u and w the logarithms of first and second factors, is concave and symmetric, so
        f((u + w) / 2, (u + w) / 2) >= f(u, w), and f(u, w) >= f(w, w) where u is best for w.
        """
        if not self.prior.product:
            return self.prior.best(self.squares(square), self.layout.count).sqrt()
        standard = self.squares(square / self.deviations(lam).square())
        best = self.prior.best(lam.square() * standard, self.layout.count).sqrt()
        return (lam * best).sqrt()


def model(net: nn.Module, prior: Prior, likelihood: Likelihood, num_data: int) -> Model:
    """The Bayesian model of a net that is trained on `num_data` images; plain and tensorized layers may be mixed."""
    if num_data < 1:
        raise ValueError(f"num_data is {num_data}, expected at least 1: give the number of training images")
    laid = layout(net, prior)
    with laid.count.device:
        scale = prior.scale(len(laid.count)) if laid.ranks else None
    return Model(net, prior, likelihood, num_data, laid, scale)


def categorical(scores: Tensor) -> Distribution:
    """The likelihood of classes: probabilities are the softmax of scores."""
    return Categorical(logits=scores, validate_args=False)


def log_joint(model: Model, theta: Tensor, lam: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    """The log-density that the Pyro model gives these values, a batch counting for `num_data` images; without effect handlers."""
    return model.num_data * log_likelihood(model, theta, x, labels) + log_prior(model, theta.square(), lam)


def log_likelihood(model: Model, theta: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    """Mean log-probability of the labels of a batch."""
    return model.likelihood(model.scores(theta, x)).log_prob(labels).mean()


def log_prior(model: Model, square: Tensor, lam: Tensor) -> Tensor:
    """Log-density of weights and scales from the weights' squares; with expected squares, the expected log-density."""
    laid = model.layout
    free = laid.size - laid.scaled
    precision = reduce(torch.mul, lam.pow(-2)[laid.scales])
    quadratic = precision @ square[: laid.scaled] + square[laid.scaled :].sum() / model.prior.wide**2
    normaliser = laid.count.to(lam) @ lam.log() + free * log(model.prior.wide) + laid.size * log(2 * pi) / 2
    weights = -quadratic / 2 - normaliser
    return weights + model.scale.log_prob(lam).sum() if model.scale else weights
