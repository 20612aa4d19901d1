"""A factorization means its dense weight; shrinking, counting and contributions agree with that meaning in every format."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayestt.algebra.factorization import Factorization, contributions, dense, shrink
from bayestt.algebra.formats import FORMATS

FORMS = {name: form((3, 4), (5, 2), 2) for name, form in FORMATS.items()}
FORMS |= {f"{name} of a kernel": form((3, 4), (5, 2), 2, (3, 2)) for name, form in FORMATS.items()}
PAIR = Factorization((("i1", "r1"), ("r1", "j1")), ("i1",), ("j1",), {"i1": 2, "r1": 3, "j1": 4})
forms = st.sampled_from(sorted(FORMS)).map(FORMS.__getitem__)
seeds = st.integers(0, 2**32 - 1)


def drawn(form, seed):
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(shape) for shape in form.shapes]


def test_dense_of_a_tt_matrix_is_the_sum_over_its_ranks():
    form = FORMS["tt_matrix"]
    a, b = drawn(form, 0)
    weight = dense(form, [a, b])
    assert weight.shape == form.shape == (12, 10)
    for i1, i2, j1, j2 in np.ndindex(3, 4, 5, 2):
        assert weight[4 * i1 + i2, 2 * j1 + j2] == pytest.approx(a[i1, j1] @ b[:, i2, j2])


def test_dense_of_a_pair_is_a_matrix_product():
    one, other = drawn(PAIR, 0)
    np.testing.assert_allclose(dense(PAIR, [one, other]), one @ other)


@given(forms, seeds, st.data())
def test_the_weight_of_shrunk_cores_is_that_of_cores_with_the_dropped_indices_zeroed(form, seed, data):
    cores = drawn(form, seed)
    axes = data.draw(st.lists(st.sampled_from(form.ranks), unique=True))
    keep = {axis: sorted(data.draw(st.sets(st.integers(0, form.size[axis] - 1), min_size=1))) for axis in axes}
    smaller, sliced = shrink(form, cores, keep)
    zeroed = [core.copy() for core in cores]
    for core, names in zip(zeroed, form.cores, strict=True):
        for axis in set(keep) & set(names):
            dropped = [index for index in range(form.size[axis]) if index not in keep[axis]]
            core[(slice(None),) * names.index(axis) + (dropped,)] = 0
    assert tuple(core.shape for core in sliced) == smaller.shapes
    assert smaller.shape == form.shape
    assert all(smaller.size[axis] == len(kept) for axis, kept in keep.items())
    np.testing.assert_allclose(dense(smaller, sliced), dense(form, zeroed), atol=1e-12)


@given(forms, seeds)
def test_shrinking_copies(form, seed):
    cores = drawn(form, seed)
    _, sliced = shrink(form, cores, {})
    for core, kept in zip(cores, sliced, strict=True):
        np.testing.assert_array_equal(core, kept)
        assert not np.shares_memory(core, kept)


@given(forms)
def test_parameters_are_the_entries_of_the_cores(form):
    assert form.parameters == sum(core.size for core in drawn(form, 0))


def test_parameters_of_a_known_tt_matrix():
    assert FORMATS["tt_matrix"]((4, 4, 4, 8), (4, 7, 7, 4), 8).parameters == 4 * 4 * 8 + 2 * 8 * 4 * 7 * 8 + 8 * 8 * 4


@given(forms, seeds, st.data())
def test_contributions_do_not_change_when_magnitude_moves_along_their_axis(form, seed, data):
    cores = drawn(form, seed)
    axis = data.draw(st.sampled_from(form.ranks))
    one, other = data.draw(st.permutations([k for k, names in enumerate(form.cores) if axis in names]))[:2]
    scale = np.random.default_rng(seed).uniform(0.01, 100, form.size[axis])
    moved = list(cores)
    for k, factor in ((one, scale), (other, 1 / scale)):
        at = form.cores[k].index(axis)
        moved[k] = cores[k] * factor.reshape([-1 if position == at else 1 for position in range(cores[k].ndim)])
    np.testing.assert_allclose(dense(form, moved), dense(form, cores), atol=1e-9)
    before, after = contributions(form, cores), contributions(form, moved)
    assert tuple(before) == tuple(after) == form.ranks
    np.testing.assert_allclose(after[axis], before[axis])


@given(forms, seeds)
def test_a_contribution_is_the_norm_of_what_an_index_adds_to_the_dense_weight(form, seed):
    cores = drawn(form, seed)
    for axis, carried in contributions(form, cores).items():
        alone = [dense(*shrink(form, cores, {axis: [index]})) for index in range(form.size[axis])]
        np.testing.assert_allclose(carried, [np.linalg.norm(part) for part in alone])
        np.testing.assert_allclose(sum(alone), dense(form, cores), atol=1e-9)


def test_contributions_of_a_pair_are_products_of_norms():
    one, other = drawn(PAIR, 3)
    expected = [np.linalg.norm(one[:, r]) * np.linalg.norm(other[r]) for r in range(3)]
    np.testing.assert_allclose(contributions(PAIR, [one, other])["r1"], expected)


@given(forms, seeds)
def test_an_index_of_zeros_carries_nothing_and_can_go(form, seed):
    cores = drawn(form, seed)
    axis = form.ranks[0]
    at = next(k for k, names in enumerate(form.cores) if axis in names)
    cores[at] = cores[at].copy()
    np.moveaxis(cores[at], form.cores[at].index(axis), 0)[1] = 0
    carried = contributions(form, cores)[axis]
    assert carried[1] == 0 < carried[0]
    np.testing.assert_allclose(dense(*shrink(form, cores, {axis: [0]})), dense(form, cores), atol=1e-12)


def test_a_factorization_is_a_value():
    again = Factorization(PAIR.cores, PAIR.rows, PAIR.cols, {"j1": 4, "r1": 3, "i1": 2})
    assert again == PAIR
    assert hash(again) == hash(PAIR)
    with pytest.raises(TypeError):
        PAIR.size["r1"] = 9
    assert copy.deepcopy(PAIR) == PAIR
    assert pickle.loads(pickle.dumps(PAIR)) == PAIR


@pytest.mark.parametrize(
    ("size", "rows", "named"),
    [
        ({"i1": 2, "j1": 4}, ("i1",), "r1"),
        ({"i1": 2, "r1": 3, "j1": 4, "r7": 5}, ("i1",), "r7"),
        ({"i1": 2, "r1": 0, "j1": 4}, ("i1",), "'r1': 0"),
        ({"i1": 2, "r1": 3, "j1": 4}, ("i1", "i9"), "i9"),
    ],
)
def test_axes_that_do_not_fit_are_named(size, rows, named):
    with pytest.raises(ValueError, match=named):
        Factorization(PAIR.cores, rows, PAIR.cols, size)


def test_only_rank_axes_shrink():
    with pytest.raises(ValueError, match=r"'i1'.* \['r1'\]"):
        shrink(PAIR, drawn(PAIR, 0), {"i1": [0]})


def test_a_rank_never_shrinks_to_nothing():
    with pytest.raises(ValueError, match="'r1': 0"):
        shrink(PAIR, drawn(PAIR, 0), {"r1": []})


@pytest.mark.parametrize("kept", [[0, 3], [-1], [0, 0], [True, False, True]])
def test_indices_that_a_rank_does_not_have_are_refused(kept):
    with pytest.raises(ValueError, match="r1.*3"):
        shrink(PAIR, drawn(PAIR, 0), {"r1": kept})


def test_cores_of_another_shape_are_refused():
    one, other = drawn(PAIR, 0)
    for wrong in ([one[:, :2], other[:2]], [one[:1], other], [one]):
        with pytest.raises(ValueError, match=r"\(2, 3\)|i1|r1"):
            dense(PAIR, wrong)
