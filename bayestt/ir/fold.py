"""Bring a traced graph to the form that machines run: constants computed, views split away, contractions pairwise."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from bayestt.algebra.einsum import Axes, chain, einsum
from bayestt.ir.graph import Graph, Op, verify


def fold(graph: Graph) -> Graph:
    """An equal graph (float) with as few operations as possible, and no more than one constant in any contraction.

    1. Contractions of constants alone are computed. 2. A VIEW between two ways to split the same elements goes where both can be refined
    to common factors (512 = 4*4*8*4 seen as 16*32): axes are split, in activations and constants alike. Where they can't (24 = 4*6 seen
    as 6*4), or where both names of an axis meet in another operation, it stays. 3. A contraction with several cores becomes the cheapest
    chain of steps with one core each.
    """
    return verify(_pairwise(_without_views(_constants_computed(verify(graph)))))


def _constants_computed(graph: Graph) -> Graph:
    """Every contraction of constants alone replaced by the constant it makes; unused constants dropped."""
    consts, ops = dict(graph.consts), []
    for op in graph.ops:
        if op.kind == "CONTRACT" and all(name in consts for name in op.args):
            consts[op.name] = einsum([consts[name] for name in op.args], [graph[name].axes for name in op.args], op.axes)
            op = Op(op.name, "CONST", op.axes)
        ops.append(op)
    read = {name for op in ops if op.kind != "CONST" for name in op.args}
    kept = tuple(op for op in ops if op.kind != "CONST" or op.name in read)
    return Graph(kept, graph.size, {op.name: consts[op.name] for op in kept if op.kind == "CONST"})


def _without_views(graph: Graph) -> Graph:
    """The graph with every VIEW removed that a refinement of axes makes needless, but an output keeps its axes."""
    for view in [op.name for op in graph.ops[:-1] if op.kind == "VIEW"]:
        op = graph[view]
        arg = graph[op.args[0]]
        pieces = _refinement(arg.axes[1:], op.axes[1:], graph.size)
        if pieces and all(_apart(graph, other, pieces[0]) for other in graph.ops if other.name != view):
            graph = _bypassed(_split(graph, *pieces), view)
    return graph


def _apart(graph: Graph, op: Op, renamed: Mapping[str, Axes]) -> bool:
    """Whether the axes that meet in an op are still different ones after renaming."""
    axes = {axis for name in (op.name, *op.args) for axis in graph[name].axes}
    made = [piece for axis in axes for piece in renamed.get(axis, (axis,))]
    return len(set(made)) == len(made)


def _refinement(left: Axes, right: Axes, size: Mapping[str, int]) -> tuple[dict[str, Axes], dict[str, int]] | None:
    """Common factors of two ways to split the same elements: the new axes of every old one, and their sizes; None where there are none.

    Both splits cut the row-major order at strides; they have common factors if the strides, taken together, divide one another.
    """
    strides = {axes: [prod(size[axis] for axis in axes[k:]) for k in range(len(axes) + 1)] for axes in (left, right)}
    cuts = sorted({*strides[left], *strides[right]}, reverse=True)
    if any(upper % lower for upper, lower in zip(cuts, cuts[1:], strict=False)):
        return None
    pieces = {side: _pieces(axes, strides[axes], cuts) for side, axes in (("left", left), ("right", right))}
    names: dict[tuple[int, int], str] = {}
    for side in ("right", "left"):
        names |= {spans[0]: axis for axis, spans in pieces[side].items() if len(spans) == 1}
    for axis, spans in pieces["left"].items():
        for k, span in enumerate(spans):
            names.setdefault(span, f"{axis}.{k + 1}")
    renamed = {axis: tuple(names[span] for span in spans) for side in pieces.values() for axis, spans in side.items()}
    return renamed, {name: upper // lower for (upper, lower), name in names.items()}


def _pieces(axes: Axes, strides: list[int], cuts: list[int]) -> dict[str, list[tuple[int, int]]]:
    """The spans between neighbouring cuts that make up each axis; an axis of size 1 is made up of none."""
    return {
        axis: [(a, b) for a, b in zip(cuts, cuts[1:], strict=False) if upper >= a and b >= lower]
        for axis, upper, lower in zip(axes, strides, strides[1:], strict=False)
    }


def _split(graph: Graph, renamed: Mapping[str, Axes], size: Mapping[str, int]) -> Graph:
    """The graph with axes replaced by those they are made up of, everywhere."""

    def refined(axes: Axes) -> Axes:
        return tuple(piece for axis in axes for piece in renamed.get(axis, (axis,)))

    sizes = {axis: extent for axis, extent in graph.size.items() if axis not in renamed} | dict(size)
    ops = tuple(replace(op, axes=refined(op.axes)) for op in graph.ops)
    consts = {op.name: graph.consts[op.name].reshape([sizes[axis] for axis in op.axes]) for op in ops if op.kind == "CONST"}
    return Graph(ops, sizes, consts)


def _bypassed(graph: Graph, name: str) -> Graph:
    """The graph without an op whose result is its operand."""
    source = graph[name].args[0]
    ops = tuple(replace(op, args=tuple(source if arg == name else arg for arg in op.args)) for op in graph.ops if op.name != name)
    return Graph(ops, graph.size, graph.consts)


def _pairwise(graph: Graph) -> Graph:
    """The graph with contractions of several cores replaced by the cheapest chain: steps `fc1.step1`, ..., then `fc1` itself."""
    ops: list[Op] = []
    for op in graph.ops:
        if op.kind == "CONTRACT" and len(op.args) > 2:
            ops += _steps(op, graph)
        else:
            ops.append(op)
    return Graph(tuple(ops), graph.size, graph.consts)


def _steps(op: Op, graph: Graph) -> list[Op]:
    """One contraction as a chain; the activation is operand 0."""
    names = sorted(op.args, key=lambda name: "n" not in graph[name].axes)
    steps = chain([graph[name].axes for name in names], op.axes, {**graph.size, "n": 1})
    known = [*names, *(f"{op.name}.step{k + 1}" for k in range(len(steps) - 1)), op.name]
    return [Op(known[len(names) + k], "CONTRACT", axes, (known[left], known[right])) for k, (left, right, axes) in enumerate(steps)]
