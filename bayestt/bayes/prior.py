"""Priors over the scales of ranks: they shrink whole slices of cores, so that ranks which the data do not need die out."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from math import log

import torch
from pyro.distributions import Distribution, Gamma, HalfCauchy, TransformedDistribution, Uniform
from torch import Tensor
from torch.distributions.transforms import ExpTransform

from bayestt.algebra.einsum import Axes
from bayestt.algebra.factorization import Factorization

NARROWEST, WIDEST = 1e-6, 1e6
"""The interval to which a scale's log-uniform prior, improper by itself, is truncated; and the bounds of every closed-form update."""


@dataclass(frozen=True)
class Prior:
    """One positive scale for every index of every rank axis; entries of the cores are Gaussian, their deviations made of those scales.

    A core that carries modes of the weight takes the scale of the rank it names last, its right index (`product` False: Hawkins, Liu &
    Zhang 2022), or the product of its first and its last rank's, which for a core with one rank is that scale squared (`product` True:
    Hawkins & Zhang 2021). So a chain's last core takes its left rank, factors of CP all share one, factors of Tucker have their own.
    Everything else, as Tucker's core, dense weights and biases, is Gaussian with the standard deviation `wide`.

    `scale` makes the distribution of that many scales. `update`, where the best scales have a closed form, takes for every scale the sum
    of squares of the entries it scales and their number, and gives its square; else scales follow their gradient. `start` gives the first
    scales of an axis of that many ranks; without it they are fitted to the first weights.
    """

    name: str
    scale: Callable[[int], Distribution]
    product: bool = False
    update: Callable[[Tensor, Tensor], Tensor] | None = None
    start: Callable[[int], Tensor] | None = None
    wide: float = 10.0

    def __post_init__(self) -> None:
        if self.product and self.update:
            raise ValueError(f"prior {self.name}: a product of scales has no closed-form update, expected none: leave it out")
        if (self.start is None) == (self.update is None):
            raise ValueError(f"prior {self.name}: scales start from their closed form or from `start`: give exactly one of them")

    def scales(self, form: Factorization) -> tuple[Axes, ...]:
        """For every core the rank axes whose scales multiply to its entries' standard deviation; none: it is `wide`."""
        chosen = []
        for core in form.cores:
            ranks = [axis for axis in core if axis in form.ranks]
            ends = (ranks[0], ranks[-1]) if self.product and ranks else tuple(ranks[-1:])
            chosen.append(ends if len(ranks) < len(core) else ())
        return tuple(chosen)


def log_uniform() -> Prior:
    """p(s) ~ 1/s for s from NARROWEST to WIDEST, which makes it proper (Hawkins, Liu & Zhang 2022, ARD-LU).

    The best scale maximises -count * log s - squares / (2 s^2) - log s, so s^2 = squares / (count + 1).
    """

    def scale(ranks: int) -> Distribution:
        return TransformedDistribution(Uniform(torch.full((ranks,), log(NARROWEST)), torch.full((ranks,), log(WIDEST))), [ExpTransform()])

    return Prior("log_uniform", scale, update=lambda squares, count: _within(squares / (count + 1)))


def half_cauchy(eta: float) -> Prior:
    """s ~ C+(0, eta), so p(s) ~ 1 / (1 + s^2 / eta^2) (Hawkins, Liu & Zhang 2022, ARD-HC).

    With v = s^2, the best one is the positive root of (count + 2) v^2 + (count eta^2 - squares) v - squares eta^2 = 0.
    """
    _check_positive("half_cauchy", eta=eta)

    def update(squares: Tensor, count: Tensor) -> Tensor:
        linear = count * eta**2 - squares
        root = torch.sqrt(linear**2 + 4 * (count + 2) * eta**2 * squares)
        # Of the two forms of the same root, the one that subtracts no like numbers.
        positive = torch.where(linear > 0, 2 * squares * eta**2 / (linear + root), (root - linear) / (2 * (count + 2)))
        return _within(positive)

    return Prior(f"half_cauchy(eta={eta})", lambda ranks: HalfCauchy(torch.full((ranks,), float(eta))), update=update)


def gamma_product(a: float = 1.0, b: float = 5.0) -> Prior:
    """s ~ Gamma(shape a, rate b), deviations the products of two scales (Hawkins & Zhang 2021, as in the authors' code).

    Scales follow their gradient as log s. They start as a ladder, log s = ((R + 1) - 2 k) / 2 for k = 0 to R - 1, which orders the ranks
    and breaks their symmetry; it is cut at e^-15 and e^15, since squares of products must stay within float32.
    """
    _check_positive("gamma_product", a=a, b=b)
    return Prior(
        f"gamma_product(a={a}, b={b})",
        lambda ranks: Gamma(torch.full((ranks,), float(a)), torch.full((ranks,), float(b))),
        product=True,
        start=lambda ranks: ((ranks + 1 - 2 * torch.arange(ranks)) / 2).clamp(-15, 15).exp(),
        wide=100.0,
    )


PRIORS: dict[str, Callable[..., Prior]] = {prior.__name__: prior for prior in (log_uniform, half_cauchy, gamma_product)}


def named(name: str, **settings: float) -> Prior:
    """The prior of that name: `named("half_cauchy", eta=0.1)`; an unknown one is refused with the nearest names."""
    if name not in PRIORS:
        near = get_close_matches(name, PRIORS, n=2, cutoff=0)
        raise ValueError(f"unknown prior {name!r}: did you mean {' or '.join(near)}?")
    return PRIORS[name](**settings)


def _within(square: Tensor) -> Tensor:
    return square.clamp(NARROWEST**2, WIDEST**2)


def _check_positive(prior: str, **settings: float) -> None:
    if bad := {name: value for name, value in settings.items() if not value > 0}:
        raise ValueError(f"prior {prior}: {bad} must be positive: give a number above 0")
