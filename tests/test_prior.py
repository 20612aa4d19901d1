"""Priors: each format's cores take the right scales, and closed forms are the best of their objectives."""

from functools import partial
from itertools import product as combinations

import numpy as np
import pytest
import torch

from bayestt.algebra.formats import cp, tensor_train, tt_matrix, tucker
from bayestt.bayes.prior import NARROWEST, WIDEST, Prior, gamma, gamma_product, half_cauchy, inverse_gamma, ladder, log_uniform

LAWS = [
    log_uniform,
    partial(half_cauchy, 0.1),
    partial(half_cauchy, 3.0),
    partial(inverse_gamma, 1.0, 1e-3),
    gamma,
    partial(gamma, 0.5, 0.1),
]
EACH_LAW = pytest.mark.parametrize("prior", [law() for law in LAWS], ids=lambda prior: prior.name)


@pytest.mark.parametrize(
    ("form", "right", "product"),
    [
        (tt_matrix((2,) * 4, (3,) * 4, 2), [("r1",), ("r2",), ("r3",), ("r3",)], [("r1", "r1"), ("r1", "r2"), ("r2", "r3"), ("r3", "r3")]),
        (tensor_train((4, 3), (5,), (4, 3)), [("r1",), ("r2",), ("r2",)], [("r1", "r1"), ("r1", "r2"), ("r2", "r2")]),
        (tensor_train((4,), (5,), 2), [("r1",)] * 2, [("r1", "r1")] * 2),
        (cp((4, 3), (5,), 2), [("r1",)] * 3, [("r1", "r1")] * 3),
        (tucker((4,), (5,), 2), [(), ("r1",), ("r2",)], [(), ("r1", "r1"), ("r2", "r2")]),
        (tt_matrix((4,), (5,), ()), [()], [()]),
        (
            tensor_train((4, 3), (5,), (4, 4, 3), (3, 3)),
            [("r1",), ("r2",), ("r3",), ("r3",)],
            [("r1", "r1"), ("r1", "r2"), ("r2", "r3"), ("r3", "r3")],
        ),
        (tt_matrix((4,), (5,), 2, (3, 3)), [("r1",)] * 2, [("r1", "r1")] * 2),
        (cp((4,), (5,), 2, (3, 3)), [("r1",)] * 4, [("r1", "r1")] * 4),
        (tucker((4,), (5,), 2, (3, 3)), [("r1",), (), ("r2",)], [("r1", "r1"), (), ("r2", "r2")]),
    ],
    ids=[
        *("tt_matrix", "tensor_train", "two cores", "cp", "tucker", "no ranks"),
        *("train of a kernel", "tt_matrix of a kernel", "cp of a kernel", "tucker of a kernel"),
    ],
)
def test_which_ranks_scale_which_core(form, right: list, product: list) -> None:
    for law in LAWS:
        assert law().scales(form) == tuple(right)
        assert law(product=True).scales(form) == tuple(product)


@EACH_LAW
@pytest.mark.parametrize("count", [1, 12, 4000])
@pytest.mark.parametrize("rms", [1e-4, 0.01, 0.3, 20.0])
def test_a_closed_form_is_the_best_of_its_objective(prior: Prior, count: int, rms: float) -> None:
    squares = count * rms**2
    found = prior.best(torch.tensor([squares], dtype=torch.float64), torch.tensor([count])).sqrt().item()

    def objective(scale: torch.Tensor) -> torch.Tensor:
        return -count * scale.log() - squares / (2 * scale**2) + prior.scale(1).expand([len(scale)]).log_prob(scale)

    scales = torch.logspace(-5.5, 5.5, 220_001, dtype=torch.float64)
    assert found == pytest.approx(scales[objective(scales).argmax()].item(), rel=3e-4)


@EACH_LAW
def test_a_closed_form_is_finite_in_float32_at_the_ends(prior: Prior) -> None:
    best = prior.best(torch.tensor([0.0, 1e-30, 1e20]), torch.tensor([9, 9, 9]))
    assert best.isfinite().all() and (best >= NARROWEST**2 * 0.99).all() and (best <= WIDEST**2 * 1.01).all()


def test_the_half_cauchy_update_is_the_authors() -> None:
    squares, count, eta = 3.7, 40, 0.2
    authors = (squares - eta**2 * count + np.sqrt(squares**2 + (2 * count + 8) * eta**2 * squares + eta**4 * count**2)) / (2 * count + 4)
    assert half_cauchy(eta).best(torch.tensor(squares), torch.tensor(count)).item() == pytest.approx(authors, rel=1e-5)


def test_the_inverse_gamma_update_is_the_authors_of_a_shape_less_one_half() -> None:
    squares, count, a, b = 3.7, 40, 1.5, 0.2
    found = inverse_gamma(a, b).best(torch.tensor(squares), torch.tensor(count)).item()
    assert found == pytest.approx((2 * b + squares) / (count + 2 + 2 * (a - 0.5)))


@EACH_LAW
def test_scales_are_independent_positive_and_proper(prior: Prior) -> None:
    torch.manual_seed(0)
    drawn = prior.scale(5).sample((1000,))
    assert drawn.shape == (1000, 5) and (drawn > 0).all()
    log_scale = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    inside = log_scale[(log_scale > np.log(NARROWEST)) & (log_scale < np.log(WIDEST))]
    density = prior.scale(1).expand([len(inside)]).log_prob(inside.exp()).double() + inside
    assert density.exp().sum() * (log_scale[1] - log_scale[0]) == pytest.approx(1, rel=1e-3)


def test_the_ladder_falls_by_one_in_the_logarithm() -> None:
    np.testing.assert_allclose(ladder(4).log(), [2.5, 1.5, 0.5, -0.5], rtol=1e-5)
    assert ladder(20)[0].log().item() == pytest.approx(10.5) and ladder(20)[-1].log().item() == pytest.approx(-8.5)
    assert (ladder(200) ** -4).isfinite().all() and (ladder(200) ** 4).isfinite().all()


@EACH_LAW
def test_scales_at_the_bounds_have_a_density(prior: Prior) -> None:
    for bounds in (torch.tensor([NARROWEST**2, WIDEST**2]).sqrt(), torch.tensor([NARROWEST, WIDEST]).log().exp()):
        for scales in (bounds, bounds.nextafter(torch.tensor([0.0, torch.inf]))):
            assert prior.scale(2).log_prob(scales).isfinite().all()


def test_a_name_says_the_law_and_what_was_chosen() -> None:
    assert half_cauchy(0.5, product=True).name == "half_cauchy(eta=0.5), product"
    assert gamma_product(b=2.0).name == "gamma(a=1.0, b=2.0), product, gradient, ladder"


def test_every_choice_is_in_the_name() -> None:
    choices = [dict(zip(("product", "closed_form", "ladder"), bits, strict=True)) for bits in combinations((False, True), repeat=3)]
    names = {law(**choice).name for law in LAWS for choice in choices if not (choice["closed_form"] and choice["ladder"])}
    assert len(names) == 6 * len(LAWS)


@pytest.mark.parametrize("make", [lambda: half_cauchy(0), lambda: gamma(a=-1), lambda: gamma(b=float("nan")), lambda: inverse_gamma(0, 1)])
def test_settings_must_be_positive(make) -> None:
    with pytest.raises(ValueError, match="must be positive: give a number above 0"):
        make()


def test_settings_that_contradict_are_refused() -> None:
    with pytest.raises(ValueError, match="prior gamma: a is 2, expected less than 2"):
        gamma(a=2)
    with pytest.raises(ValueError, match="prior log_uniform, ladder: .* give closed_form or ladder, not both"):
        log_uniform(ladder=True)
