"""Priors over the scales of ranks: they shrink whole slices of cores, so that ranks which the data do not need die out."""

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import torch
from pyro.distributions import Distribution, Gamma, HalfCauchy, InverseGamma, TransformedDistribution, Uniform
from torch import Tensor
from torch.distributions.transforms import ExpTransform, PowerTransform

from bayestt.algebra.einsum import Axes
from bayestt.algebra.factorization import Factorization

NARROWEST, WIDEST = 1e-6, 1e6
"""The interval in which all scales stay, by closed form or by gradient; to it the log-uniform prior, improper by itself, is truncated."""


@dataclass(frozen=True)
class Prior:
    """One positive scale for every index of every rank axis; entries of the cores are Gaussian, their deviations made of those scales.

    A core that carries modes of the weight takes the scale of the rank it names last, its right index (`product` False: Hawkins, Liu &
    Zhang 2022), or the product of its first and its last rank's, which for a core with one rank is that scale squared (`product` True:
    Hawkins & Zhang 2021). So a chain's last core takes its left rank, factors of CP all share one, factors of Tucker have their own.
    Everything else, as Tucker's core, of a kernel with its taps, dense weights and biases, is Gaussian with the standard deviation `wide`.

    `scale` makes the distribution of that many scales, which checks no value, as a GPU would have to wait for it. `best` takes for every
    scale the sum of squares of the entries it scales, each over the square of its other scale if it has one, and their number; it gives the
    square of the scale at which prior and entries together are densest. Training moves scales there (`closed_form` True) or lets them
    follow their gradient. They start there, or from a `ladder`.
    """

    law: str
    scale: Callable[[int], Distribution]
    best: Callable[[Tensor, Tensor], Tensor]
    product: bool = False
    closed_form: bool = True
    ladder: bool = False
    wide: float = 10.0

    def __post_init__(self) -> None:
        if self.closed_form and self.ladder:
            raise ValueError(f"prior {self.name}: a closed form forgets the ladder it starts from: give closed_form or ladder, not both")

    @property
    def name(self) -> str:
        """The law and what was chosen with it: `log_uniform`, `gamma(a=1.0, b=5.0), product, gradient, ladder`."""
        choices = {"product": self.product, "gradient": not self.closed_form, "ladder": self.ladder}
        return ", ".join([self.law, *(choice for choice, made in choices.items() if made)])

    def scales(self, form: Factorization) -> tuple[Axes, ...]:
        """For every core the rank axes whose scales multiply to its entries' standard deviation; none: it is `wide`."""
        chosen = []
        for core in form.cores:
            ranks = [axis for axis in core if axis in form.ranks]
            ends = (ranks[0], ranks[-1]) if self.product and ranks else tuple(ranks[-1:])
            modes = {*core} - {*ranks}
            tuckers = not modes or len(ranks) > 1 and modes <= {"kh", "kw"}
            chosen.append(() if tuckers else ends)
        return tuple(chosen)


def log_uniform(product: bool = False, closed_form: bool = True, ladder: bool = False) -> Prior:
    """p(s) ~ 1/s for s from NARROWEST to WIDEST, which makes it proper (Hawkins, Liu & Zhang 2022, ARD-LU).

    The best scale maximises -count * log s - squares / (2 s^2) - log s, so s^2 = squares / (count + 1).
    """

    def scale(ranks: int) -> Distribution:
        # A thousandth beyond both ends: a scale at one of them, rounded, must not fall outside.
        low, high = torch.full((ranks,), log(NARROWEST / 1.001)), torch.full((ranks,), log(WIDEST * 1.001))
        return TransformedDistribution(Uniform(low, high, validate_args=False), [ExpTransform()], validate_args=False)

    def best(squares: Tensor, count: Tensor) -> Tensor:
        return _within(squares / (count + 1))

    return Prior("log_uniform", scale, best, product, closed_form, ladder)


def half_cauchy(eta: float, product: bool = False, closed_form: bool = True, ladder: bool = False) -> Prior:
    """s ~ C+(0, eta), so p(s) ~ 1 / (1 + s^2 / eta^2) (Hawkins, Liu & Zhang 2022, ARD-HC).

    With v = s^2, the best one is the positive root of (count + 2) v^2 + (count eta^2 - squares) v - squares eta^2 = 0.
    """
    _check_positive("half_cauchy", eta=eta)

    def scale(ranks: int) -> Distribution:
        return HalfCauchy(torch.full((ranks,), float(eta)), validate_args=False)

    def best(squares: Tensor, count: Tensor) -> Tensor:
        linear = count * eta**2 - squares
        root = torch.sqrt(linear**2 + 4 * (count + 2) * eta**2 * squares)
        # Of the two forms of the same root, the one that subtracts no like numbers.
        positive = torch.where(linear > 0, 2 * squares * eta**2 / (linear + root), (root - linear) / (2 * (count + 2)))
        return _within(positive)

    return Prior(f"half_cauchy(eta={eta})", scale, best, product, closed_form, ladder)


def inverse_gamma(a: float, b: float, product: bool = False, closed_form: bool = True, ladder: bool = False) -> Prior:
    """s^2 ~ InverseGamma(shape a, scale b), so p(s) ~ s^(-2a - 1) exp(-b / s^2) (Hawkins, Liu & Zhang's code, there `gamma`).

    The best s^2 is (squares + 2b) / (count + 2a + 1). The authors divide by count + 2a + 2: they maximise the density of s^2, and this one,
    like every other prior here, that of s. So no scale is below sqrt(2b / (count + 2a + 1)).
    """
    _check_positive("inverse_gamma", a=a, b=b)

    def scale(ranks: int) -> Distribution:
        square = InverseGamma(torch.full((ranks,), float(a)), torch.full((ranks,), float(b)), validate_args=False)
        return TransformedDistribution(square, [PowerTransform(0.5)], validate_args=False)

    def best(squares: Tensor, count: Tensor) -> Tensor:
        return _within((squares + 2 * b) / (count + 2 * a + 1))

    return Prior(f"inverse_gamma(a={a}, b={b})", scale, best, product, closed_form, ladder)


def gamma(a: float = 1.0, b: float = 5.0, product: bool = False, closed_form: bool = True, ladder: bool = False) -> Prior:
    """s ~ Gamma(shape a, rate b), so p(s) ~ s^(a - 1) exp(-b s); a below 2, so that every scale has one best value.

    It is the positive root of b s^3 + (count + 1 - a) s^2 = squares, a cubic in 1/s without a square, which Viète's formula solves.
    """
    _check_positive("gamma", a=a, b=b)
    if a >= 2:
        raise ValueError(f"prior gamma: a is {a}, expected less than 2: give a smaller one")

    def scale(ranks: int) -> Distribution:
        return Gamma(torch.full((ranks,), float(a)), torch.full((ranks,), float(b)), validate_args=False)

    def best(squares: Tensor, count: Tensor) -> Tensor:
        flat = squares / (count + 1 - a)
        turn = 1.5 * b * torch.sqrt(3 * flat) / (count + 1 - a)
        third = torch.where(turn < 1, torch.cos(turn.clamp(max=1).acos() / 3), torch.cosh(turn.clamp(min=1).acosh() / 3))
        return _within(0.75 * flat / third**2)

    return Prior(f"gamma(a={a}, b={b})", scale, best, product, closed_form, ladder, wide=100.0)


def gamma_product(a: float = 1.0, b: float = 5.0) -> Prior:
    """Hawkins & Zhang 2021, as in the authors' code: `gamma` on products of scales, which follow their gradient down from a ladder."""
    return gamma(a, b, product=True, closed_form=False, ladder=True)


def ladder(ranks: int) -> Tensor:
    """First scales (ranks,) that order the ranks and break their symmetry: log s = ((R + 1) - 2 k) / 2 for k = 0 to R - 1.

    Hawkins & Zhang 2021; cut at NARROWEST and WIDEST, as all scales.
    """
    return ((ranks + 1 - 2 * torch.arange(ranks)) / 2).exp().clamp(NARROWEST, WIDEST)


def _within(square: Tensor) -> Tensor:
    return square.clamp(NARROWEST**2, WIDEST**2)


def _check_positive(prior: str, **settings: float) -> None:
    if bad := {name: value for name, value in settings.items() if not value > 0}:
        raise ValueError(f"prior {prior}: {bad} must be positive: give a number above 0")
