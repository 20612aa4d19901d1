"""The meaning of a graph against einsum written by hand and against exact arithmetic on Python's integers."""

import tracemalloc
from itertools import product
from math import prod

import numpy as np
import pytest
import torch
from graphs import extremes, features, float_graphs, images, written
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, Op, verify, windowed
from bayestt.ir.interpret import BATCH, interpret
from bayestt.ir.quantize import quantize


def wrapped(value: int, bits: int) -> int:
    """Two's complement in that many bits."""
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


def exact(graph: Graph, image: list[int]) -> list[int]:
    """An integer graph's scores of one image: every value a dict from index to Python integer."""

    def indices(axes: tuple[str, ...]) -> list[tuple[int, ...]]:
        return list(product(*(range(graph.size[axis]) for axis in axes)))

    def axes_of(op: Op) -> tuple[str, ...]:
        return tuple(axis for axis in op.axes if axis != "n")

    def at(name: str, index: dict[str, int]) -> int:
        return values[name].get(tuple(index[axis] for axis in axes_of(graph[name])), 0)

    values: dict[str, dict[tuple[int, ...], int]] = {}
    for op in graph.ops:
        axes, made = axes_of(op), {}
        read = [axis for name in op.args for axis in windowed(op, axes_of(graph[name]))]
        every = list(dict.fromkeys([*axes, *read]))
        if op.kind in ("INPUT", "CONST", "VIEW"):
            flat = {"INPUT": lambda: image, "CONST": lambda op=op: graph.consts[op.name].ravel().tolist()}
            elements = flat[op.kind]() if op.kind in flat else [values[op.args[0]][i] for i in indices(axes_of(graph[op.args[0]]))]
            values[op.name] = dict(zip(indices(axes), elements, strict=True))
            continue
        for place in indices(every):
            index = dict(zip(every, place, strict=True))
            key = tuple(index[axis] for axis in axes)
            index |= {each.axis: index[each.out] * each.stride + index[each.tap] * each.dilation - each.padding for each in op.window}
            there = all(0 <= index[each.axis] < graph.size[each.axis] for each in op.window)
            match op.kind:
                case "CONTRACT":
                    made[key] = wrapped(made.get(key, 0) + prod(at(name, index) for name in op.args), op.format.bits)
                case "MAX" if there:
                    made[key] = max(made.get(key, at(op.args[0], index)), at(op.args[0], index))
                case "ADD":
                    terms = [at(name, index) * 2 ** (op.format.frac - graph[name].format.frac) for name in op.args]
                    made[key] = wrapped(sum(terms), op.format.bits)
                case "RELU":
                    made[key] = max(at(op.args[0], index), 0)
                case "ROUND":
                    near = (2 * at(op.args[0], index) + 2**op.shift) // 2 ** (op.shift + 1)
                    made[key] = min(max(near, -(2 ** (op.format.bits - 1))), 2 ** (op.format.bits - 1) - 1)
        values[op.name] = made
    return [values[graph.output.name][index] for index in indices(axes_of(graph.output))]


def most_terms(graph: Graph) -> int:
    """The products that the largest operation sums, all its results taken together."""
    return max(prod(graph.shape(tuple({axis for name in op.args for axis in windowed(op, graph[name].axes)} - {"n"}))) for op in graph.ops)


@settings(max_examples=80, deadline=None)
@given(graph=float_graphs(windows=True), bits=st.integers(2, 8), extreme=st.booleans(), seed=st.integers(0, 99))
def test_integers_are_exact(graph: Graph, bits: int, extreme: bool, seed: int) -> None:
    assume(most_terms(graph) < 20_000)
    integer = quantize(fold(graph), np.random.default_rng(seed).normal(size=(9, features(graph))), bits)
    if extreme:
        integer = extremes(integer, seed)
    x = images(integer, 2, seed, extreme)
    assert interpret(integer, x).tolist() == [exact(integer, image.tolist()) for image in x]


def test_accumulators_wrap_and_roundings_saturate() -> None:
    text = """x INPUT n h @ 16/0
        w CONST h @ 16/0
        y CONTRACT n h < x w @ 32/0
        b CONST h @ 32/0
        z ADD n h < y b @ 32/0
        r ROUND n h < z @ 8/-20 >> 20"""
    graph = written(text, h=3)
    graph = verify(Graph(graph.ops, graph.size, {"w": np.array([-32768, 2, 1]), "b": np.array([2**31 - 1, 2**31 - 1, -(2**31)])}))
    x = np.array([[-32768, 1, -1], [1, 32767, 32767]])
    assert interpret(graph, x).tolist() == [exact(graph, image.tolist()) for image in x] == [[-128, -128, 127], [127, -128, -128]]


@pytest.mark.parametrize(("bits", "weight"), [(8, 127), (9, 32767), (16, 32767)], ids=["in 24 bits", "just beyond", "far beyond"])
def test_sums_that_do_not_fit_in_small_floats_are_exact_too(bits: int, weight: int) -> None:
    graph = written(f"x INPUT n h @ {bits}/0\nw CONST h @ 16/0\ny CONTRACT n < x w @ 32/0\nb CONST @ 32/0\nz ADD n < y b @ 32/0", h=3)
    graph = verify(Graph(graph.ops, graph.size, {"w": np.array([weight, weight, -1]), "b": np.array((1 << 24) + 1)}))
    x = np.array([[2 ** (bits - 1) - 1] * 3, [-(2 ** (bits - 1))] * 3])
    assert interpret(graph, x).tolist() == [exact(graph, image.tolist()) for image in x]


def test_sums_over_axes_that_no_constant_has_are_exact_too() -> None:
    graph = written("x INPUT n h w @ 8/0\nk CONST @ 8/0\ny CONTRACT n < x k @ 32/0", h=33, w=35)
    graph = verify(Graph(graph.ops, graph.size, {"k": np.array(127)}))
    assert interpret(graph, np.full((1, 33, 35), -127)).tolist() == [[-127 * 127 * 33 * 35]]


def test_a_value_is_forgotten_once_it_is_not_read_any_more() -> None:
    """A chain of large images: all of them together are many times what is held at once."""
    text = "x INPUT n h\n" + "".join(f"r{k} RELU n h < {f'r{k - 1}' if k else 'x'}\n" for k in range(50))
    graph = verify(written(text, h=100_000))
    tracemalloc.start()
    interpret(graph, np.ones((1, 100_000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 100_000 * 8


def test_floats_are_plain_einsum() -> None:
    text = """x INPUT n h w
        v VIEW n j1 j2 < x
        core0 CONST i1 j1 r
        core1 CONST r i2 j2
        y CONTRACT n i1 i2 < v core0 core1
        b CONST i2
        z ADD n i1 i2 < b y
        t RELU n i2 i1 < z
        s ADD n i1 i2 < z t"""
    graph = verify(written(text, h=4, w=3, j1=2, j2=6, r=3, i1=5, i2=2))
    x = np.random.default_rng(1).normal(size=(7, 4, 3))
    core0, core1, bias = (graph.consts[name] for name in ("core0", "core1", "b"))
    z = np.einsum("njk,ajr,rbk->nab", x.reshape(7, 2, 6), core0, core1) + bias
    np.testing.assert_allclose(interpret(graph, x), (z + np.maximum(z, 0)).reshape(7, 10), rtol=1e-12)


def test_axes_in_one_operand_alone_are_summed_there() -> None:
    graph = verify(written("x INPUT n h\nw CONST i k\ny CONTRACT n i < x w", h=3, i=2, k=4))
    x = np.random.default_rng(2).normal(size=(5, 3))
    np.testing.assert_allclose(interpret(graph, x), np.outer(x.sum(1), graph.consts["w"].sum(1)))


@st.composite
def sweeps(draw: st.DrawFn) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """What torch calls stride, padding, dilation and kernel_size of a window over rows and columns; and the images' channels and sides."""
    kernel, dilation, stride, sides = (draw(st.tuples(*[st.integers(*ends)] * 2)) for ends in ((1, 3), (1, 2), (1, 3), (1, 8)))
    reach = [dilation[k] * (kernel[k] - 1) for k in (0, 1)]
    padding = tuple(draw(st.integers(0, kernel[k] // 2)) for k in (0, 1))
    sides = [max(sides[k], reach[k] + 1) for k in (0, 1)]
    size = {"c": draw(st.integers(1, 3)), "i": draw(st.integers(1, 3)), "h": sides[0], "w": sides[1], "kh": kernel[0], "kw": kernel[1]}
    size |= {out: (sides[k] + 2 * padding[k] - reach[k] - 1) // stride[k] + 1 for k, out in enumerate(("oh", "ow"))}
    return {"stride": stride, "padding": padding, "dilation": dilation, "kernel_size": kernel}, size


def swept(kind: str, sweep: dict[str, tuple[int, int]], size: dict[str, int]) -> Graph:
    """The graph of one op that reads rows and columns through windows, and a constant `k` where it needs one."""
    windows = " ".join(
        f"{axis}=o{axis}*{sweep['stride'][k]}+k{axis}*{sweep['dilation'][k]}-{sweep['padding'][k]}" for k, axis in enumerate("hw")
    )
    constants = {"MAX": "", "CONTRACT": "k CONST\n", "CONV": "k CONST i c kh kw\n"}[kind]
    channel = "i" if kind == "CONV" else "c"
    kind, operands = kind.replace("CONV", "CONTRACT"), "x k" if constants else "x"
    return verify(written(f"x INPUT n c h w\n{constants}y {kind} n {channel} oh ow < {operands} | {windows}", **size))


@settings(max_examples=100, deadline=None)
@given(sweep=sweeps())
def test_windows_are_torchs(sweep: tuple[dict, dict]) -> None:
    settings, size = sweep
    x = np.random.default_rng(0).normal(size=(2, size["c"], size["h"], size["w"]))
    image = torch.from_numpy(x)
    sliding = {key: settings[key] for key in ("stride", "padding", "dilation")}
    graph = swept("CONV", settings, size)
    convolved = functional.conv2d(image, torch.from_numpy(graph.consts["k"]), **sliding)
    np.testing.assert_allclose(interpret(graph, x), convolved.flatten(1).numpy(), atol=1e-12)
    largest = functional.max_pool2d(image, **settings)
    assert np.array_equal(interpret(swept("MAX", settings, size), x), largest.flatten(1).numpy())
    if settings["dilation"] == (1, 1):
        graph = swept("CONTRACT", settings, size)
        average = functional.avg_pool2d(image, settings["kernel_size"], settings["stride"], settings["padding"])
        scale = graph.consts["k"] * prod(settings["kernel_size"])
        np.testing.assert_allclose(interpret(graph, x), scale * average.flatten(1).numpy(), atol=1e-12)


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 3])
def test_many_images_are_as_each_alone(count: int) -> None:
    graph = verify(written("x INPUT n h @ 8/0\nw CONST h i @ 8/0\ny CONTRACT n i < x w @ 32/0", h=3, i=2))
    x = images(graph, count, 0, extreme=False)
    assert interpret(graph, x).tolist() == (x @ graph.consts["w"]).tolist()
    assert interpret(graph, x[-1:]).tolist() == interpret(graph, x)[-1:].tolist()


def test_a_tap_sees_every_op_of_every_batch_and_may_change_it() -> None:
    graph = verify(written("x INPUT n h\nw CONST h i\ny CONTRACT n i < x w", h=3, i=2))
    seen: list[tuple[str, tuple[int, ...]]] = []

    def tap(op: Op, value: np.ndarray) -> np.ndarray:
        seen.append((op.name, value.shape))
        return value + 1 if op.name == "y" else value

    tapped = interpret(graph, np.ones((BATCH + 1, 3)), tap)
    assert np.array_equal(tapped, interpret(graph, np.ones((BATCH + 1, 3))) + 1)
    assert seen == [(name, shape) for n in (BATCH, 1) for name, shape in (("x", (n, 3)), ("w", (3, 2)), ("y", (n, 2)))]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((0, 3), int), r"\(0, 3\).*at least one, of 3 numbers each \(h 3\): give images like"),
        (np.zeros((2, 4), int), r"\(2, 4\).*of 3 numbers"),
        (np.zeros((2, 3)), "integers from -128 to 127, not float64"),
        (np.full((2, 3), 128), "from 128 to 128"),
        (np.full((2, 3), -129), "from -129 to -129"),
        (np.zeros((2, 3), bool), "not bool"),
    ],
)
def test_images_that_do_not_fit_are_refused(x: np.ndarray, words: str) -> None:
    graph = verify(written("x INPUT n h @ 8/0\ny RELU n h < x @ 8/0", h=3))
    with pytest.raises(ValueError, match=words):
        interpret(graph, x)
