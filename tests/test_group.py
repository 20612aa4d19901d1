"""Groups: which ops one nest computes together, and with what constants."""

import numpy as np
import pytest
from graphs import extremes, features, float_graphs, images, written
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.algebra.einsum import einsum
from bayestt.algebra.fixed import requantize, wrap
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, Op, verify
from bayestt.ir.group import Group, copy_of, groups
from bayestt.ir.interpret import interpret
from bayestt.ir.quantize import quantize

X = "x INPUT n h @ 8/0\nw CONST h i @ 8/0\ny CONTRACT n i < x w @ 32/0\n"
FUSED = {
    "a sum alone": (X, ["x -> y"]),
    "with its bias": (X + "b CONST i @ 32/0\nz ADD n i < b y @ 32/0", ["x -> z"]),
    "with bias, rectifier and rounding": (
        X + "b CONST i @ 32/0\nz ADD n i < y b @ 32/0\nt RELU n i < z @ 32/0\nr ROUND n i < t @ 8/-4 >> 4",
        ["x -> r"],
    ),
    "a rounding before a rectifier ends the group": (X + "r ROUND n i < y @ 8/-4 >> 4\nt RELU n i < r @ 8/-4", ["x -> r", "r -> t"]),
    "two readers end the group": (
        X + "r ROUND n i < y @ 8/-4 >> 4\nt RELU n i < r @ 8/-4\ns ADD n i < r t @ 32/-4",
        ["x -> r", "r -> t", "r t -> s"],
    ),
    "one bias in a group": (
        X + "b CONST i @ 32/0\nz ADD n i < y b @ 32/0\nr ROUND n i < z @ 16/0\nc CONST i @ 32/0\ns ADD n i < r c @ 32/0",
        ["x -> r", "r -> s"],
    ),
    "the largest, rectified": (
        "x INPUT n h @ 8/0\ny MAX n o < x | h=o*2+k @ 8/0\nt RELU n o < y @ 8/0",
        ["x -> t"],
    ),
    "a window with a border": ("x INPUT n h @ 8/0\nw CONST k i @ 8/0\ny CONTRACT n i o < x w | h=o+k-1 @ 32/0", ["x -> y"]),
    "taps that stay": (
        "x INPUT n h @ 8/0\nw CONST i @ 8/0\ny CONTRACT n i o k < x w | h=o+k-1 @ 32/0",
        ["x -> y.window", "y.window -> y"],
    ),
    "places that are summed": ("x INPUT n h @ 8/0\ny MAX n < x | h=o+k-1 @ 8/0", ["x -> y.window", "y.window -> y"]),
    "places that are summed without a border": ("x INPUT n h @ 8/0\ny MAX n < x | h=o+k @ 8/0", ["x -> y"]),
    "a view between": ("x INPUT n h @ 8/0\nv VIEW n i < x @ 8/0\nw CONST i @ 8/0\ny CONTRACT n < v w @ 32/0", ["v VIEW", "v -> y"]),
}


def named(items: list[Group | Op]) -> list[str]:
    """What reads what, in short."""
    return [f"{item.name} {item.kind}" if isinstance(item, Op) else f"{' '.join(item.x)} -> {item.y}" for item in items]


@pytest.mark.parametrize(("text", "expected"), FUSED.values(), ids=FUSED)
def test_a_group_is_a_sum_and_what_completes_it(text: str, expected: list[str]) -> None:
    assert named(groups(verify(written(text, h=4, i=4, k=3, o=2)))) == expected


def test_a_group_carries_bias_shift_and_rectifier() -> None:
    text = X + "b CONST i @ 8/-1\nz ADD n i < y b @ 32/0\nt RELU n i < z @ 32/0\nr ROUND n i < t @ 4/-7 >> 7"
    graph = verify(written(text, h=3, i=2))
    (group,) = groups(graph)
    assert (group.shift, group.relu, group.bits, group.weight_axes, group.init_axes) == (7, True, 4, ("h", "i"), ("i",))
    assert (group.init == graph.consts["b"] * 2).all()
    assert (group.weights == graph.consts["w"]).all()


def test_a_finer_bias_scales_the_weights() -> None:
    graph = verify(written(X + "b CONST i @ 16/3\nz ADD n i < y b @ 32/3", h=3, i=2))
    (group,) = groups(graph)
    assert (group.weights == 8 * graph.consts["w"]).all()
    assert (group.init == graph.consts["b"]).all()


def test_two_activations_are_weighed_to_align() -> None:
    text = "x INPUT n h @ 8/4\na ROUND n h < x @ 8/4\nb ROUND n h < x @ 8/1 >> 3\nz ADD n h < b a @ 32/4"
    *_, group = groups(verify(written(text, h=3)))
    assert (group.x, group.x_axes, group.weights.tolist(), group.weight_axes) == (("b", "a"), ("n", "h", "+"), [8, 1], ("+",))


def meaning(group: Group, values: dict[str, np.ndarray], graph: Graph) -> np.ndarray:
    """What a group's docstring says, by einsum over what its windows find, absent elements being 0 or, for the largest, very low."""
    size = {**graph.size, "n": 3}
    operand, axes = values[group.x[0]], group.x_axes
    if len(group.x) == 2:
        operand = np.stack([operand, einsum([values[group.x[1]]], [graph[group.x[1]].axes], group.x_axes[:-1])], axis=-1)
    for window in group.window:
        at = axes.index(window.axis)
        places = np.add.outer(np.arange(size[window.out]) * window.stride, np.arange(size[window.tap]) * window.dilation) - window.padding
        absent = group.blank if group.blank is not None else -(1 << 40) if group.maximum else 0
        taken = np.moveaxis(operand.take(places % size[window.axis], axis=at), (at, at + 1), (-2, -1))
        operand = np.moveaxis(np.where((places >= 0) & (places < size[window.axis]), taken, absent), (-2, -1), (at, at + 1))
        axes = (*axes[:at], window.out, window.tap, *axes[at + 1 :])
    assert axes == group.read_axes
    if group.maximum:
        largest = operand.max(tuple(k for k, axis in enumerate(axes) if axis not in group.y_axes))
        return requantize(
            np.maximum(einsum([largest], [tuple(axis for axis in axes if axis in group.y_axes)], group.y_axes), group.init),
            group.shift,
            group.bits,
            group.relu,
        )
    product = einsum([operand, group.weights], [axes, group.weight_axes], group.y_axes)
    others = tuple(axis for axis in group.y_axes if axis not in group.init_axes)
    ones = np.ones([size[axis] for axis in others], np.int64)
    init = einsum([group.init, ones], [group.init_axes, others], group.y_axes)
    return requantize(wrap(product + init, 32), group.shift, group.bits, group.relu)


@settings(max_examples=80, deadline=None)
@given(graph=float_graphs(windows=True), seed=st.integers(0, 99))
def test_groups_mean_what_the_graph_means(graph: Graph, seed: int) -> None:
    integer = extremes(quantize(fold(graph), np.random.default_rng(seed).normal(size=(9, features(graph)))), seed)
    x = images(integer, 3, seed, extreme=True)
    values = {integer.input.name: x.reshape(3, *integer.shape(integer.input.axes[1:]))}
    for item in groups(integer):
        if isinstance(item, Op):
            values[item.name] = values[item.args[0]].reshape(3, *integer.shape(item.axes[1:]))
            continue
        values[item.y] = meaning(item, values, integer)
    assert (values[integer.output.name].reshape(3, -1) == interpret(integer, x)).all()


def test_a_copy_changes_nothing() -> None:
    copy = copy_of("a", "a.copy", ("n", "h"), 16)
    assert (copy.x, copy.y, copy.x_axes, copy.y_axes) == (("a",), "a.copy", ("n", "h"), ("n", "h"))
    assert (int(copy.weights), int(copy.init), copy.shift, copy.relu, copy.bits) == (1, 0, 0, False, 16)
