"""Named-axis einsum equals numpy's, and its order of steps is right and the cheapest there is."""

from functools import partial
from itertools import combinations, permutations
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.algebra.einsum import chain, einsum, macs, order, sizes, spread

NAMES = ("i1", "i2", "j1", "r1", "r2", "n")


@st.composite
def expressions(draw, operands=5):
    """Axes of some operands, axes of the result, and a size for every axis."""
    axes = draw(st.lists(st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple), min_size=1, max_size=operands))
    used = sorted({axis for operand in axes for axis in operand})
    out = tuple(draw(st.lists(st.sampled_from(used), max_size=3, unique=True))) if used else ()
    return axes, out, {axis: draw(st.integers(1, 5)) for axis in NAMES}


def arrays_of(axes, size, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(-4, 5, [size[axis] for axis in operand]).astype(np.float64) for operand in axes]


def fewest(axes, out, size):
    """The multiplications of the cheapest pairwise order, by trying all."""
    costs = [0] if len(axes) == 1 else []
    for one, other in combinations(range(len(axes)), 2):
        rest = [operand for number, operand in enumerate(axes) if number not in (one, other)]
        both = set(axes[one]) | set(axes[other])
        kept = tuple(both & set(out).union(*rest))
        costs.append(prod(size[axis] for axis in both) + fewest([*rest, kept], out, size))
    return min(costs)


@given(expressions())
def test_einsum_is_numpys(expression):
    axes, out, size = expression
    arrays = arrays_of(axes, size)
    letter = dict(zip(NAMES, "abcdef", strict=True))
    spelled = ",".join("".join(letter[axis] for axis in operand) for operand in axes) + "->" + "".join(letter[axis] for axis in out)
    np.testing.assert_array_equal(einsum(arrays, axes, out), np.einsum(spelled, *arrays))


def test_einsum_of_a_matrix_product():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(einsum([a, b], [("i", "r"), ("r", "j")], ("j", "i")), (a @ b).T)


COSTS = {
    "multiplications": None,
    "as few steps with operand 0 as can be": lambda left, core, made: 1,
    "as few axes as can be": lambda left, core, made: 4 ** len({*left, *core}) + len(core),
}


@pytest.mark.parametrize("find", [order, *(partial(chain, cost=cost) for cost in COSTS.values())], ids=["order", *COSTS])
@given(expressions())
def test_the_steps_compute_the_einsum(find, expression):
    axes, out, size = expression
    arrays = arrays_of(axes, size)
    steps = find(axes, out, size)
    assert len(steps) == len(axes) - 1
    assert sorted(operand for left, right, _ in steps for operand in (left, right)) == list(range(2 * len(steps)))
    names, known = list(axes), list(arrays)
    for left, right, kept in steps:
        known.append(einsum([known[left], known[right]], [names[left], names[right]], kept))
        names.append(kept)
    if steps:
        assert names[-1] == out
        np.testing.assert_allclose(known[-1], einsum(arrays, axes, out))


@settings(max_examples=200)
@given(expressions())
def test_no_order_costs_less(expression):
    axes, out, size = expression
    assert macs(axes, order(axes, out, size), size) == fewest(axes, out, size)


def absorbing(axes, out, path):
    """The steps in which operand 0 absorbs the others along a path."""
    absorbed, steps = set(axes[0]), []
    for at, number in enumerate(path):
        absorbed |= set(axes[number])
        absorbed &= set(out).union(*(axes[later] for later in path[at + 1 :]))
        steps.append((len(axes) + at - 1 if at else 0, number, tuple(absorbed)))
    return steps


@given(expressions())
def test_no_chain_costs_less(expression):
    axes, out, size = expression
    others = permutations(range(1, len(axes)))
    steps = chain(axes, out, size)
    assert [left for left, _, _ in steps] == [0, *range(len(axes), len(axes) + len(steps) - 1)][: len(steps)]
    assert macs(axes, steps, size) == min(macs(axes, absorbing(axes, out, path), size) for path in others)


def partitions(numbers):
    """Every way to part numbers into groups in order."""
    if not numbers:
        yield ()
    for count in range(1, len(numbers) + 1):
        for group in combinations(numbers, count):
            yield from ((group, *rest) for rest in partitions([number for number in numbers if number not in group]))


@settings(max_examples=50, deadline=None)
@given(expressions(operands=4))
def test_no_chain_of_products_costs_less(expression):
    axes, out, size = expression

    def cost(left, core, made):
        return 3 * prod(size[axis] for axis in {*left, *core}) + 2 * prod(size[axis] for axis in core) + len(made) + 20

    def along(groups):
        total, absorbed = 0, {*axes[0]}
        for at, group in enumerate(groups):
            later = {*out}.union(*(axes[number] for others in groups[at + 1 :] for number in others))
            core = set().union(*(axes[number] for number in group))
            core &= core if len(group) == 1 else later | absorbed
            made = (absorbed | core) & later if at < len(groups) - 1 else {*out}
            total += cost(absorbed, core, made)
            absorbed = made
        return total

    made = [*axes]
    found = 0
    # What operand 0 has become is in the steps in which it, or what the step before made of it, is on the left.
    carried = 0
    for number, (left, right, kept) in enumerate(chain(axes, out, size, cost=cost), len(axes)):
        made.append(kept)
        if left == carried:
            found += cost(made[left], made[right], kept)
            carried = number
    assert found == min(map(along, partitions([*range(1, len(axes))])))


def test_cores_are_multiplied_with_each_other_where_that_is_cheaper():
    size = {"a": 2, "r": 9, "s": 9, "b": 2}
    axes = [("a",), ("a", "r"), ("r", "s"), ("s", "b")]
    assert chain(axes, ("b",), size, cost=lambda left, core, made: prod(size[axis] for axis in core)) == (
        (1, 2, ("a", "s")),
        (4, 3, ("a", "b")),
        (0, 5, ("b",)),
    )
    assert [left for left, _, _ in chain(axes, ("b",), size)] == [0, 4, 5]


def test_the_order_of_a_chain_is_the_known_one():
    size = {"a": 2, "b": 100, "c": 3, "d": 50}
    axes = [("a", "b"), ("b", "c"), ("c", "d")]
    steps = order(axes, ("a", "d"), size)
    assert steps[0][:2] == (0, 1)
    assert macs(axes, steps, size) == 2 * 100 * 3 + 2 * 3 * 50


def test_a_window_is_read_by_the_step_that_needs_it():
    size = {"c": 8, "h": 9, "o": 4, "t": 3, "r": 2, "i": 5}
    axes, windows = [("c", "h"), ("i", "r"), ("r", "t"), ("c", "r")], {"h": ("o", "t")}
    assert chain(axes, ("i", "o"), size, windows) == ((0, 3, ("h", "r")), (4, 2, ("o", "r")), (5, 1, ("i", "o")))
    assert chain(axes[:2], ("i", "r", "o"), size, windows) == ((0, 1, ("i", "r", "o")),)
    assert chain([("h",), ("c",), ("i", "c")], ("i", "o"), size, windows)[0] == (0, 1, ("o", "c"))


def test_an_array_is_spread_over_axes_it_lacks():
    array = np.arange(6).reshape(2, 3)
    assert np.array_equal(spread(array, ("a", "b"), ("b", "c", "a")), array.T[:, None, :])


@pytest.mark.timeout(5)
def test_nine_operands_are_ordered_while_you_wait():
    ranks = tuple(f"r{k}" for k in range(8))
    axes = [ranks, *((f"i{k}", rank) for k, rank in enumerate(ranks))]
    size = {**dict.fromkeys(ranks, 2), **{f"i{k}": 4 for k in range(8)}}
    assert len(order(axes, tuple(f"i{k}" for k in range(8)), size)) == 8


def test_sizes_are_read_from_shapes():
    assert sizes([("i", "r"), ("r", "j")], [(2, 3), (3, 4)]) == {"i": 2, "r": 3, "j": 4}


def test_disagreeing_sizes_are_named():
    with pytest.raises(ValueError, match=r"'r'.* 3 .* 4 ") as error:
        einsum([np.ones((2, 3)), np.ones((4, 5))], [("i", "r"), ("r", "j")], ("i", "j"))
    assert "'i', 'r'" in str(error.value)


def test_too_few_axes_are_named():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).* 2 axes i r"):
        einsum([np.ones((2, 3, 4))], [("i", "r")], ("i",))


def test_an_axis_of_the_result_that_no_operand_has_is_named():
    with pytest.raises(ValueError, match="'k'"):
        einsum([np.ones((2, 3))], [("i", "r")], ("i", "k"))
