"""Formats from modes and ranks: clipping, budgets, initial scale, decomposition and modes found, in every format."""

import re
import warnings
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayestt.algebra.factorization import dense
from bayestt.algebra.formats import FORMATS, Form, cp, decompose, initial, modes, tensor_train, tt_matrix, tucker

CLIPPING = {name: FORMATS[name] for name in ("tt_matrix", "tensor_train", "tucker")}
names = st.sampled_from(sorted(FORMATS))
extents = st.lists(st.integers(1, 5), min_size=2, max_size=2)


def quietly(form, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return form(*arguments)


def error(form, weight, cores):
    return np.linalg.norm(dense(form, cores) - weight) / np.linalg.norm(weight)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_the_cores_of_every_format():
    assert tt_matrix((2, 3, 4), (4, 3, 2), 2).cores == (("i1", "j1", "r1"), ("r1", "i2", "j2", "r2"), ("r2", "i3", "j3"))
    assert tensor_train((2, 3), (4,), 2).cores == (("i1", "r1"), ("r1", "i2", "r2"), ("r2", "j1"))
    assert tucker((2, 3), (4,), 2).cores == (("r1", "r2", "r3"), ("i1", "r1"), ("i2", "r2"), ("j1", "r3"))
    assert cp((2, 3), (4,), 2).cores == (("i1", "r1"), ("i2", "r1"), ("j1", "r1"))


def test_the_cores_of_every_format_of_a_kernel():
    taps = ("kh", "kw", "r1")
    assert tt_matrix((2, 3), (4, 3), 2, (3, 3)).cores == (taps, ("r1", "i1", "j1", "r2"), ("r2", "i2", "j2"))
    assert tensor_train((2, 3), (4,), 2, (3, 3)).cores == (taps, ("r1", "j1", "r2"), ("r2", "i1", "r3"), ("r3", "i2"))
    assert tucker((2, 3), (4,), 2, (3, 3)).cores == (("j1", "r1"), ("r1", "kh", "kw", "r2"), ("r2", "i1", "i2"))
    assert cp((2,), (4,), 2, (3, 3)).cores == (("kh", "r1"), ("kw", "r1"), ("i1", "r1"), ("j1", "r1"))
    for form in (tensor_train((4,), (2, 3), 2, (3, 2)), tucker(4, 6, 2, (3, 2)), cp(4, 6, 2, [3, 2]), tt_matrix(4, 6, 2, (3, 2))):
        assert form.cols in (("j1", "j2", "kh", "kw"), ("j1", "kh", "kw")) and form.shape == (4, 36)
        assert (form.size["kh"], form.size["kw"]) == (3, 2)


@pytest.mark.parametrize("taps", [(3,), (3, 0), (3, 3, 3)])
@pytest.mark.parametrize("name", FORMATS)
def test_taps_are_a_height_and_a_width(name, taps):
    with pytest.raises(ValueError, match="give the height and the width of a kernel"):
        FORMATS[name](4, 6, 2, taps)


@pytest.mark.parametrize("name", FORMATS)
def test_a_bare_size_is_split_into_modes(name):
    form = FORMATS[name](512, 784, 2)
    assert form.shape == (512, 784)
    assert len(form.rows) == len(form.cols) == 4
    assert FORMATS[name](512, (28, 28), 2).shape == (512, 784)
    assert FORMATS[name](10, 512, 2).shape == (10, 512)


def test_a_tuple_names_every_rank():
    form = tt_matrix((4, 4, 4), (4, 4, 4), (2, 5))
    assert (form.size["r1"], form.size["r2"]) == (2, 5)
    with pytest.raises(ValueError, match=r"names 3 ranks.*has 2: r1 r2"):
        tt_matrix((4, 4, 4), (4, 4, 4), (2, 5, 2))


@pytest.mark.parametrize(
    ("form", "rows", "cols", "clipped"),
    [
        (tt_matrix, (2, 2, 2), (2, 2, 2), (4, 4)),
        (tt_matrix, (2, 8, 1), (1, 2, 3), (2, 3)),
        (tensor_train, (2, 3), (3, 2), (2, 6, 2)),
        (tucker, (2, 5), (3, 2), (2, 5, 3, 2)),
        (tucker, (8,), (3,), (3, 3)),
        (cp, (2, 3), (4,), (6,)),
    ],
)
def test_ranks_are_clipped_to_what_the_modes_allow_and_the_warning_says_which(form, rows, cols, clipped):
    with pytest.warns(UserWarning, match="clipped") as caught:
        built = form(rows, cols, 99)
    assert tuple(built.size[axis] for axis in built.ranks) == clipped
    assert all(f"{axis} 99 to {extent}" in str(caught[0].message) for axis, extent in zip(built.ranks, clipped, strict=True))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert form(rows, cols, clipped) == built


@given(st.sampled_from(sorted(CLIPPING)), extents, extents, st.sampled_from([(), (1, 1), (3, 2), (2, 3)]), st.integers(0, 99))
def test_the_clipped_ranks_hold_any_weight(name, rows, cols, taps, seed):
    form = quietly(CLIPPING[name], rows, cols, 999, taps)
    weight = normal(*form.shape, seed=seed)
    assert error(form, weight, decompose(weight, form)) < 1e-6


@pytest.mark.parametrize("taps", [(), (3, 2)])
@pytest.mark.parametrize("name", CLIPPING)
def test_one_rank_less_does_not_hold_every_weight(name, taps):
    form = quietly(CLIPPING[name], (3, 2), (2, 4), 999, taps)
    weight = normal(*form.shape)
    for axis in form.ranks:
        ranks = [form.size[other] - (other == axis) for other in form.ranks]
        less = quietly(CLIPPING[name], (3, 2), (2, 4), ranks, taps)
        assert error(less, weight, decompose(weight, less)) > 1e-3


@given(names, st.floats(0.15, 1.5))
def test_a_fraction_is_a_budget_and_used_up(name, fraction):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        form = FORMATS[name]((4, 6), (5, 4), fraction)
    budget = fraction * prod(form.shape)
    assert form.parameters <= budget
    larger = quietly(FORMATS[name], (4, 6), (5, 4), max(form.size[axis] for axis in form.ranks) + 1)
    assert larger.parameters > budget or larger == form


@pytest.mark.parametrize("fraction", [0.0, -0.5, 0.0001, float("nan")])
def test_a_fraction_too_small_for_rank_one_is_refused(fraction):
    with pytest.raises(ValueError, match=rf"rank {fraction}"):
        tt_matrix((4, 6), (5, 4), fraction)


@pytest.mark.parametrize("rank", [0, -3, (2, 0), (-1, 2)])
def test_ranks_below_one_are_refused(rank):
    with pytest.raises(ValueError, match=rf"{re.escape(str(rank))}.*at least 1"):
        tt_matrix((4, 4, 4), (4, 4, 4), rank)


@pytest.mark.parametrize("name", FORMATS)
def test_modes_below_one_are_refused(name):
    with pytest.raises(ValueError, match=r"\(0, 4\).*at least 1"):
        FORMATS[name]((0, 4), (2, 2), 2)


def test_a_tt_matrix_pairs_its_modes():
    with pytest.raises(ValueError, match=r"\(4, 4\) are 2 and \(2, 2, 2\) are 3"):
        tt_matrix((4, 4), (2, 2, 2), 2)


@pytest.mark.parametrize("rank", range(1, 21))
@pytest.mark.parametrize("name", FORMATS)
def test_initial_cores_give_the_wanted_standard_deviation(name, rank):
    form = quietly(FORMATS[name], 36, 64, rank)
    for seed in range(3):
        weight = dense(form, initial(form, 0.05, seed))
        assert np.sqrt(np.mean(weight**2)) == pytest.approx(0.05, rel=0.1)
        assert abs(weight.mean()) < 0.02


def test_initial_cores_are_of_equal_scale_and_depend_on_the_seed():
    form = tt_matrix((16, 16), (16, 16), 16)
    one, other, again = initial(form, 0.05, 1), initial(form, 0.05, 2), initial(form, 0.05, np.random.default_rng(1))
    assert one[0].std() == pytest.approx(one[1].std(), rel=0.1)
    assert not np.allclose(one[0], other[0])
    for core, same in zip(one, again, strict=True):
        np.testing.assert_array_equal(core, same)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("taps", [(), (3, 2)])
@pytest.mark.parametrize("name", FORMATS)
def test_decomposition_recovers_planted_cores(name, taps, rank):
    form = FORMATS[name]((4, 3), (5, 4), rank, taps)
    weight = dense(form, [normal(*shape, seed=seed) for seed, shape in enumerate(form.shapes)])
    assert error(form, weight, decompose(weight, form)) < 1e-4
    assert tuple(core.shape for core in decompose(weight, form)) == form.shapes


@pytest.mark.parametrize("name", FORMATS)
def test_decomposition_of_a_single_pair_of_modes(name):
    form = quietly(FORMATS[name], (8,), (6,), 3)
    weight = dense(form, [normal(*shape, seed=seed) for seed, shape in enumerate(form.shapes)])
    assert error(form, weight, decompose(weight, form)) < 1e-4


def test_decomposition_approximates_better_with_more_rank():
    weight = normal(16, 16)
    errors = [error(form, weight, decompose(weight, form)) for form in (tt_matrix((4, 4), (4, 4), rank) for rank in (1, 4, 16))]
    assert errors[0] > errors[1] > 0.1 > 1e-9 > errors[2]


@pytest.mark.parametrize("name", FORMATS)
def test_a_weight_of_zeros_is_decomposed(name):
    form = FORMATS[name]((4, 3), (5, 4), 2)
    np.testing.assert_allclose(dense(form, decompose(np.zeros(form.shape), form)), 0, atol=1e-9)


def test_decomposition_refuses_another_shape():
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(12, 20\)"):
        decompose(np.ones((3, 4)), tt_matrix((4, 3), (5, 4), 2))


def splits(size, count):
    divisors = [d for d in range(2, size + 1) if size % d == 0]
    return [split for split in product(divisors, repeat=count) if prod(split) == size]


@pytest.mark.parametrize("count", [2, 3])
def test_any_size_splits_as_equally_as_can_be_or_is_refused_with_sizes_near_it_that_do(count):
    refused = 0
    for size in range(4, 601):
        possible = splits(size, count)
        if possible:
            found = modes(size, count)
            assert prod(found) == size and len(found) == count and list(found) == sorted(found, reverse=True)
            assert max(found) / min(found) == min(max(split) / min(split) for split in possible)
        else:
            refused += 1
            with pytest.raises(ValueError, match=rf"size {size} ") as message:
                modes(size, count)
            near = [int(number) for number in re.findall(r"\d+", str(message.value).split("pad the layer to")[1])]
            assert near and all(modes(number, count) for number in near)
    assert refused > 100


@pytest.mark.parametrize(("size", "count"), [(7, 4), (1, 2), (5, 3), (13, 5)])
def test_a_size_too_small_for_so_many_modes_is_told_what_to_pad_to(size, count):
    with pytest.raises(ValueError, match=rf"pad the layer to .*{2**count}"):
        modes(size, count)


def test_a_known_split():
    assert modes(784, 4) == (7, 7, 4, 4)
    assert modes(512, 4) == (8, 4, 4, 4)
    assert modes(10, 2) == (5, 2)


def test_a_form_takes_the_size_of_its_weight():
    assert Form("tt_matrix", 3).factorization(512, 784) == tt_matrix(512, 784, 3)
    assert Form("tucker", 2, rows=(4, 3), cols=(5, 2)).factorization(12, 10) == tucker((4, 3), (5, 2), 2)
    assert Form("cp", 2, rows=(4, 3)).factorization(12, 10) == cp((4, 3), 10, 2)


@pytest.mark.parametrize(("rows", "cols", "said"), [((4, 4), None, "row modes 4 * 4 = 16"), (None, (5, 3), "column modes 5 * 3 = 15")])
def test_modes_that_do_not_multiply_to_the_weight_are_refused_with_their_product(rows, cols, said):
    with pytest.raises(ValueError, match=re.escape(said)) as message:
        Form("tt_matrix", 2, rows, cols).factorization(12, 10)
    assert str(12 if rows else 10) in str(message.value)


def test_an_unknown_format_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"'tt_matirx'.*tt_matrix"):
        Form("tt_matirx", 8)
    with pytest.raises(ValueError, match=r"'TensorTrain'.*tensor_train"):
        Form("TensorTrain", 8)
