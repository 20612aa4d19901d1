"""Folding: the same function, no view that common factors make needless, one constant a step, and the cheapest steps."""

from itertools import permutations
from math import prod
from random import Random

import numpy as np
import pytest
from graphs import features, float_graphs, written
from hypothesis import given, settings

from bayestt.algebra.factorization import Factorization
from bayestt.algebra.formats import cp, tensor_train, tt_matrix, tucker
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, verify, windowed
from bayestt.ir.interpret import interpret


def kinds(graph: Graph) -> list[str]:
    """What the graph does, constants left out."""
    return [op.kind for op in graph.ops if op.kind != "CONST"]


def assert_same(graph: Graph, folded: Graph) -> None:
    """Both give the same scores, whatever the images."""
    x = np.random.default_rng(0).normal(size=(6, features(graph)))
    expected = interpret(graph, x)
    np.testing.assert_allclose(interpret(folded, x), expected, rtol=1e-9, atol=1e-9 * max(1, np.abs(expected).max()))


@settings(max_examples=150, deadline=None)
@given(graph=float_graphs(windows=True))
def test_a_folded_graph_is_equal_and_has_one_constant_a_step(graph: Graph) -> None:
    folded = fold(graph)
    assert_same(graph, folded)
    assert all(len(op.args) <= 2 for op in folded.ops)
    assert fold(folded).ops == folded.ops


@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        ((512,), (4, 4, 8, 4), True),
        ((4, 4, 8, 4), (16, 32), True),
        ((2, 4), (4, 2), True),
        ((4, 6), (6, 4), False),
        ((6, 2), (2, 6), True),
        ((3, 2), (2, 3), False),
        ((1, 6, 1), (2, 1, 3), True),
        ((1, 1), (1,), True),
        ((7,), (7,), True),
        ((8, 9, 2), (4, 36), True),
        ((8, 9, 2), (36, 4), False),
    ],
)
@pytest.mark.parametrize("layer", ["a bias", "a contraction", "the output"])
def test_a_view_goes_where_common_factors_exist(before: tuple[int, ...], after: tuple[int, ...], gone: bool, layer: str) -> None:
    old, new = [f"h{k}" for k in range(len(before))], [f"j{k}" for k in range(len(after))]
    size = dict(zip(old + new, before + after, strict=True)) | {"i": 3}
    text = f"x INPUT n {' '.join(old)}\nb CONST {old[0]}\ny ADD n {' '.join(old)} < x b\nv VIEW n {' '.join(new)} < y\n"
    text += {
        "a bias": f"c CONST {' '.join(new)}\nz ADD n {' '.join(new)} < v c",
        "a contraction": f"w CONST {' '.join(reversed(new))} i\nz CONTRACT n i {new[-1]} < v w",
        "the output": "",
    }[layer]
    graph = verify(written(text, **size))
    folded = fold(graph)
    assert_same(graph, folded)
    assert ("VIEW" not in kinds(folded)) == (gone and layer != "the output")


SHARED = {
    "a square layer with a skip": "w CONST j h\ny CONTRACT n j < x w\nv VIEW n j < x\nz ADD n j < y v",
    "a constant that sums both names": "w CONST j i\nv VIEW n j < x\np CONTRACT n i < x w\nq CONTRACT n i < v w\nz ADD n i < p q",
    "a view back at the end": "v VIEW n j < x\nz VIEW n h < v",
    "a view back before a layer": "v VIEW n j < x\nu VIEW n h < v\nw CONST h i\nz CONTRACT n i < u w",
    "names that change places": "v VIEW n a b < x\nu VIEW n j < v\nt VIEW n b a < u\nw CONST b i\nz CONTRACT n a i < t w",
    "two views of one": "v VIEW n j < x\nu VIEW n a b < x\nw CONST j i\np CONTRACT n i < v w\nq CONTRACT n i < u s\nz ADD n i < p q",
}
SHARED["two views of one"] = "s CONST b a i\n" + SHARED["two views of one"]


@pytest.mark.parametrize("text", SHARED.values(), ids=SHARED)
def test_axes_that_meet_elsewhere_are_not_confused(text: str) -> None:
    graph = verify(written("x INPUT n h\n" + text, h=4, j=4, a=2, b=2, i=3))
    assert_same(graph, fold(graph))


def test_contractions_of_constants_are_computed_and_unused_ones_dropped() -> None:
    text = """x INPUT n h
        a CONST h r
        b CONST r i
        spare CONST i
        w CONTRACT i h < a b
        y CONTRACT n i < x w"""
    graph = verify(written(text, h=3, r=2, i=4))
    folded = fold(graph)
    assert [op.name for op in folded.ops] == ["x", "w", "y"]
    np.testing.assert_allclose(folded.consts["w"], (graph.consts["a"] @ graph.consts["b"]).T)


FORMS = {
    "tt_matrix": tt_matrix((4, 2, 3), (2, 5, 4), (3, 5)),
    "wide tt_matrix": tt_matrix((2, 2, 2, 2), (3, 3, 3, 3), 4),
    "tensor_train": tensor_train((4, 3), (2, 5), (3, 6, 4)),
    "tucker": tucker((4, 3), (5, 2), (3, 2, 4, 2)),
    "cp": cp((4, 3), (5, 2), 6),
}


def factorized(form: Factorization) -> Graph:
    """One layer, named y, as it is traced."""
    names = [f"core{k}" for k in range(len(form.cores))]
    lines = [f"{name} CONST {' '.join(core)}" for name, core in zip(names, form.cores, strict=True)]
    text = f"x INPUT n {' '.join(form.cols)}\n" + "\n".join(lines) + f"\ny CONTRACT n {' '.join(form.rows)} < {' '.join(['x', *names])}"
    return verify(written(text, **form.size))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_chain_is_as_cheap_as_the_cheapest_of_all(form: Factorization) -> None:
    graph = factorized(form)
    folded = fold(graph)
    assert_same(graph, folded)

    def cost(path: tuple[int, ...]) -> int:
        total, alive = 0, set(form.cols)
        for step, core in enumerate(path):
            later = set(form.rows).union(*(form.cores[other] for other in path[step + 1 :]))
            total += prod(form.size[axis] for axis in alive | set(form.cores[core]))
            alive = (alive | set(form.cores[core])) & later
        return total

    steps = [op for op in folded.ops if op.kind == "CONTRACT"]
    found = sum(prod(folded.size[axis] for axis in {a for arg in op.args for a in folded[arg].axes} - {"n"}) for op in steps)
    assert found == min(map(cost, permutations(range(len(form.cores)))))
    assert [op.name for op in steps] == [*(f"y.step{k + 1}" for k in range(len(form.cores) - 1)), "y"]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_step_costs_the_graph_is_equal(form: Factorization, seed: int) -> None:
    graph = factorized(form)
    folded = fold(graph, lambda group, size: Random(f"{seed} {group.x_axes} {group.weight_axes}").random())
    assert_same(graph, folded)
    assert all(len(op.args) <= 2 for op in folded.ops)


def test_a_step_is_charged_for_as_the_machine_sees_it() -> None:
    """Where a step costs 1 the dense weight is cheapest, named after its cores; where a weight costs 1, no product of cores is."""
    graph = factorized(FORMS["tt_matrix"])
    dense = fold(graph, lambda group, size: 1)
    assert [(op.name, op.args) for op in dense.ops if op.kind == "CONTRACT"] == [("y", ("x", "y.core0.core1.core2"))]
    kept = fold(graph, lambda group, size: prod(size[axis] for axis in group.weight_axes))
    assert sum(const.size for const in kept.consts.values()) == sum(const.size for const in graph.consts.values())
    seen = []
    fold(graph, lambda group, size: seen.append((group.x_axes, group.weight_axes, group.y_axes)) or 1)
    assert (("n", "j1", "j2", "j3"), ("i3", "j3", "r2"), ("n", "j1", "j2", "i3", "r2")) in [
        (x, tuple(sorted(w)), (*y[:3], *sorted(y[3:]))) for x, w, y in seen
    ]


def test_a_product_of_cores_is_read_through_all_their_windows() -> None:
    lines = ["x INPUT n j h w", "a CONST j r", "b CONST r kh s", "c CONST s kw i", f"y CONTRACT n i oh ow < x a b c {SWEEP}"]
    graph = verify(written("\n".join(lines), **SIZES))
    folded = fold(graph, lambda group, size: 1)
    assert_same(graph, folded)
    assert [[window.axis for window in op.window] for op in folded.ops if op.kind == "CONTRACT"] == [["h", "w"]]


def spent(graph: Graph) -> int:
    """Multiplications of all contractions for an image, of the axes as they are read."""
    axes = [{axis for arg in op.args for axis in windowed(op, graph[arg].axes)} - {"n"} for op in graph.ops if op.kind == "CONTRACT"]
    return sum(prod(graph.shape(tuple(names))) for names in axes)


SIZES = {"j": 16, "i": 12, "h": 8, "w": 6, "oh": 4, "ow": 3, "kh": 3, "kw": 3, "r": 4, "s": 5, "j1": 4, "j2": 4, "i1": 3, "i2": 4, "t": 2}
SWEEP = "| h=oh*2+kh-1 w=ow*2+kw-1"
PIXELS, OUTS = 8 * 6, 4 * 3
CONVOLUTIONS = {
    "dense": ("j", "i", {"core0": "i j kh kw"}, 12 * 16 * 9 * OUTS, [["h", "w"]]),
    "tucker": (
        *("j", "i", {"core0": "i s", "core1": "s r kh kw", "core2": "r j"}),
        *(PIXELS * 16 * 4 + OUTS * 9 * 4 * 5 + OUTS * 5 * 12, [[], ["h", "w"], []]),
    ),
    "cp": (
        *("j", "i", {"core0": "i r", "core1": "j r", "core2": "kh r", "core3": "kw r"}),
        *(PIXELS * 16 * 4 + 4 * 6 * 3 * 4 + OUTS * 3 * 4 + OUTS * 4 * 12, [[], ["h"], ["w"], []]),
    ),
    "tensor train, taps first": (
        *("j1 j2", "i1 i2", {"core0": "kh kw r", "core1": "r j1 s", "core2": "s j2 t", "core3": "t i1 i2"}),
        *(None, None),
    ),
}


@pytest.mark.parametrize(("cols", "rows", "cores", "cost", "windows"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_is_as_cheap_as_its_cheapest_chain(
    cols: str, rows: str, cores: dict[str, str], cost: int | None, windows: list[list[str]] | None
) -> None:
    lines = [f"x INPUT n {cols} h w", *(f"{name} CONST {axes}" for name, axes in cores.items())]
    graph = verify(written("\n".join([*lines, f"y CONTRACT n {rows} oh ow < {' '.join(['x', *cores])} {SWEEP}"]), **SIZES))
    folded = fold(graph)
    assert_same(graph, folded)
    steps = [op for op in folded.ops if op.kind == "CONTRACT"]
    assert len(steps) == len(cores)
    assert windows is None or [[window.axis for window in op.window] for op in steps] == windows
    assert cost is None or spent(folded) == cost

    def along(path: tuple[str, ...]) -> int:
        """What it costs to absorb the cores in this order, each window read with the first of its taps."""
        total, alive, wanted = 0, {*cols.split(), "h", "w"}, {*rows.split(), "oh", "ow"}
        for at, name in enumerate(path):
            core = {*cores[name].split()}
            for side in {"h", "w"} & alive:
                if f"k{side}" in core:
                    alive = alive - {side} | {f"o{side}", f"k{side}"}
            alive |= core
            total += prod(SIZES[axis] for axis in alive)
            alive &= wanted.union({"h", "w"}, *(cores[later].split() for later in path[at + 1 :]))
        return total

    assert spent(folded) == min(map(along, permutations(cores)))


SCALES = {
    "a scale and a bias": (
        "b CONST i\ns CONST i\nz CONTRACT n i oh < y s\nv ADD n i oh < z b\nu RELU n i oh < v",
        ["CONTRACT", "ADD", "RELU"],
    ),
    "a bias, a scale, a bias": (
        "b CONST i\nv ADD n i oh < y b\ns CONST i\nz CONTRACT n i oh < v s\nc CONST\nu ADD n i oh < c z",
        ["CONTRACT", "ADD"],
    ),
    "a scale of two axes": ("s CONST oh i\nz CONTRACT n i oh < y s", ["CONTRACT", "CONTRACT"]),
    "a number": ("s CONST\nz CONTRACT n i oh < y s", ["CONTRACT"]),
    "a scale read twice": ("s CONST i\nz CONTRACT n i oh < y s\nv CONTRACT n i oh < z s", ["CONTRACT", "CONTRACT", "CONTRACT"]),
    "a sum read twice": ("s CONST i\nz CONTRACT n i oh < y s\nv ADD n i oh < z y", ["CONTRACT", "CONTRACT", "ADD"]),
    "a scale that sums": ("s CONST i\nz CONTRACT n oh < y s", ["CONTRACT", "CONTRACT"]),
    "a scale that turns": ("s CONST i\nz CONTRACT n oh i < y s", ["CONTRACT", "CONTRACT"]),
    "a scale of a rectified sum": ("v RELU n i oh < y\ns CONST i\nz CONTRACT n i oh < v s", ["CONTRACT", "RELU", "CONTRACT"]),
    "a bias of more axes": ("b CONST i\nv ADD n i oh < y b\nc CONST oh\nz ADD n i oh < c v", ["CONTRACT", "ADD"]),
    "a slice, then a layer": ("v CONTRACT n i o < y | oh=o*2+k\ns CONST i e\nz CONTRACT n e o < v s", ["CONTRACT", "CONTRACT"]),
    "a slice, then a slice": ("v CONTRACT n i o < y | oh=o*2+k\nz CONTRACT n q o < v | i=q+k2", ["CONTRACT"] * 3),
    "a sum, then a layer": ("v CONTRACT n i < y\ns CONST i e\nz CONTRACT n e < v s", ["CONTRACT"] * 3),
    "a slice and a constant over what it slices": ("v CONTRACT n i o < y | oh=o*2+k\ns CONST i oh\nz CONTRACT n o < v s", ["CONTRACT"] * 3),
    "a slice and a constant over its tap": ("v CONTRACT n i o < y | oh=o*2+k\ns CONST i k\nz CONTRACT n k o < v s", ["CONTRACT"] * 3),
}


@pytest.mark.parametrize(("text", "left"), SCALES.values(), ids=SCALES)
def test_a_scale_a_bias_and_a_slice_go_into_what_is_beside_them(text: str, left: list[str]) -> None:
    text = "x INPUT n j h\nw CONST i j kh\ny CONTRACT n i oh < x w | h=oh*2+kh-1\n" + text
    graph = verify(written(text, **SIZES, o=2, k=1, k2=1, q=3, e=2))
    folded = fold(graph)
    assert_same(graph, folded)
    assert kinds(folded) == ["INPUT", *left]
    assert fold(folded).ops == folded.ops


@pytest.mark.parametrize(("before", "after", "gone"), [((4, 6), (4, 6), True), ((24,), (4, 6), True), ((2, 2, 6), (4, 6), False)])
def test_an_axis_under_a_window_is_renamed_and_never_split(before: tuple[int, ...], after: tuple[int, ...], gone: bool) -> None:
    old, new = [f"h{k}" for k in range(len(before))], [f"j{k}" for k in range(len(after))]
    size = dict(zip(old + new, before + after, strict=True)) | {"o": 2, "k": 3}
    text = f"x INPUT n {' '.join(old)}\nv VIEW n {' '.join(new)} < x\nz MAX n o j1 < v | j0=o+k"
    graph = verify(written(text, **size))
    folded = fold(graph)
    assert_same(graph, folded)
    assert ("VIEW" not in kinds(folded)) == gone
