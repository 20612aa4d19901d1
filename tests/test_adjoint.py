"""Gradients by messages over a tree: they are the gradients, and no tree is cheaper."""

from itertools import product
from math import inf, prod
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bayestt.algebra.adjoint import Adjoint, adjoint
from bayestt.algebra.einsum import einsum, macs

NAMES = ("i1", "i2", "j1", "r1", "r2", "n")
TRAIN = [("n", "j1", "j2", "j3"), ("i1", "j1", "r1"), ("r1", "i2", "j2", "r2"), ("r2", "i3", "j3")]
SIZE = {"n": 1, "i1": 4, "j1": 7, "r1": 5, "i2": 8, "j2": 4, "r2": 6, "i3": 4, "j3": 7}
OUT = ("n", "i1", "i2", "i3")


@st.composite
def expressions(draw):
    """Axes of some operands, axes of the result, a size for every axis, and the operands whose gradient is wanted."""
    axes = draw(st.lists(st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple), min_size=1, max_size=4))
    used = sorted({axis for operand in axes for axis in operand})
    out = tuple(draw(st.lists(st.sampled_from(used), max_size=3, unique=True))) if used else ()
    wanted = {k for k in range(len(axes)) if draw(st.booleans())}
    for k in wanted:
        assume({*axes[k]} <= {*out}.union(*(names for other, names in enumerate(axes) if other != k)))
    return axes, out, {axis: draw(st.integers(1, 4)) for axis in NAMES}, wanted


def known_axes(found: Adjoint, axes, out):
    return [*axes, out, *(made for _, _, made in (*found.forward, *found.backward))]


@given(expressions())
def test_the_steps_make_the_result_and_the_gradients(expression):
    axes, out, size, wanted = expression
    random = np.random.default_rng(0)
    arrays = [random.integers(-4, 5, [size[axis] for axis in names]).astype(float) for names in (*axes, out)]
    found, names = adjoint(axes, out, size, wanted), [*axes, out]
    for left, right, made in (*found.forward, *found.backward):
        arrays.append(einsum([arrays[left], arrays[right]], [names[left], names[right]], made))
        names.append(made)
    if found.forward:
        assert np.array_equal(arrays[len(axes) + len(found.forward)], einsum(arrays[: len(axes)], axes, out))
    assert wanted <= {*found.gradients}
    for k in wanted:
        others = [other for other in range(len(axes) + 1) if other != k]
        expected = einsum([arrays[other] for other in others], [names[other] for other in others], axes[k])
        gradient = found.gradients[k]
        assert np.array_equal(einsum([arrays[gradient]], [names[gradient]], axes[k]), expected)
        assert len(axes) == 1 or names[gradient] == axes[k]


@given(expressions())
def test_the_cost_is_that_of_the_steps(expression):
    axes, out, size, wanted = expression
    found = adjoint(axes, out, size, wanted)
    assert found.cost == macs([*axes, out], [*found.forward, *found.backward], size)


def trees(leaves):
    """Every way to multiply operands pair by pair, as nested pairs."""
    if len(leaves) == 1:
        yield leaves[0]
    for chosen in product((True, False), repeat=len(leaves) - 1):
        left = [leaves[0], *(leaf for leaf, there in zip(leaves[1:], chosen, strict=True) if there)]
        if right := [leaf for leaf in leaves if leaf not in left]:
            yield from product(trees(left), trees(right))


def inside(tree):
    return {tree} if isinstance(tree, int) else inside(tree[0]) | inside(tree[1])


def messages(tree, axes, out, wanted, cost):
    """What a tree costs by definition: each product, and the gradient of each product in which something is wanted, from its neighbours."""

    def kept(part):
        outside = {*out}.union(*(axes[k] for k in range(len(axes)) if k not in part))
        return frozenset({axis for k in part for axis in axes[k] if axis in outside} if len(part) > 1 else axes[min(part)])

    def spent(tree):
        if isinstance(tree, int):
            return 0
        left, right = map(inside, tree)
        both, total = kept(left | right), spent(tree[0]) + spent(tree[1]) + cost(kept(left), kept(right), kept(left | right))
        total += cost(both, kept(right), kept(left)) if left & wanted else 0
        return total + (cost(both, kept(left), kept(right)) if right & wanted else 0)

    return spent(tree)


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
@settings(max_examples=40, deadline=None)
@given(expression=expressions())
def test_no_tree_is_cheaper(expression, seed):
    axes, out, size, wanted = expression

    def cost(left, right, made):
        if seed is None:
            return prod(size[axis] for axis in {*left, *right})
        return Random(f"{seed} {[sorted(names) for names in sorted((sorted(left), sorted(right)))]} {sorted(made)}").randint(1, 99)

    found = adjoint(axes, out, size, wanted, cost=cost)
    assert found.cost == min(messages(tree, axes, out, wanted, cost) for tree in trees([*range(len(axes))]))


@pytest.mark.parametrize("images", [1, 1000])
def test_the_dense_weight_is_formed_where_it_pays_and_never_where_it_must_not(images):
    size = {**SIZE, "n": images}
    dense = prod(size[axis] for axis in ("i1", "i2", "i3", "j1", "j2", "j3"))

    def largest_constant(found):
        made = [axes for axes in known_axes(found, TRAIN, OUT) if "n" not in axes]
        return max(prod(size[axis] for axis in axes) for axes in made)

    free = adjoint(TRAIN, OUT, size, {1, 2, 3})
    apart = adjoint(TRAIN, OUT, size, {1, 2, 3}, apart={1, 2, 3})
    assert (largest_constant(free) == dense) == (images == 1000)
    assert largest_constant(apart) < dense
    assert free.cost <= apart.cost < inf
    assert (free == apart) == (images == 1)


def test_an_image_without_gradient_saves_the_steps_that_only_it_would_need():
    whole, layer = adjoint(TRAIN, OUT, SIZE, {0, 1, 2, 3}), adjoint(TRAIN, OUT, SIZE, {1, 2, 3})
    assert len(whole.backward) == 2 * 3 and len(layer.backward) < 6
    assert 0 in whole.gradients and 0 not in layer.gradients
    assert layer.cost < whole.cost == 3 * macs(TRAIN, whole.forward, SIZE)


def test_an_axis_that_nothing_else_has_is_refused():
    with pytest.raises(ValueError, match=r"axes \['h'\] of operand 0 are in no other operand"):
        adjoint([("n", "h", "j"), ("j",)], ("n",), {"n": 1, "h": 2, "j": 3}, {0})
