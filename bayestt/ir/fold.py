"""Bring a traced graph to the form that machines run: constants computed, views and scales folded away, contractions pairwise."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from math import prod

import numpy as np

from bayestt.algebra.einsum import Axes, chain, einsum, spread
from bayestt.ir.graph import Graph, Op, Window, biases, inferring, verify, windowed
from bayestt.ir.group import Group, shape_of

GroupCost = Callable[[Group, Mapping[str, int]], float]
"""What a group costs on a machine, given the size of every axis but the batch."""


def fold(graph: Graph, cost: GroupCost | None = None) -> Graph:
    """An equal graph (float) with as few operations as possible, and no more than one constant in any contraction.

    1. Contractions of constants alone are computed. 2. A VIEW between two ways to split the same elements goes where both can be refined
    to common factors (512 = 4*4*8*4 seen as 16*32): axes are split, in activations and constants alike. Where they can't (24 = 4*6 seen
    as 6*4), where both names of an axis meet in another operation, or where an axis under a window would be split, it stays. 3. A scale
    (of batch-norm) goes into the contraction before it and its biases, a bias into the bias before it, a contraction without constants
    (a slice) into the one after it. 4. A contraction with several cores becomes the cheapest chain of steps with one core each; a window
    is read in the step that needs its taps. Cheapest is what multiplies least or, given the `cost` of a step on a machine, what costs
    least: then cores are also multiplied with each other, down to the dense weight, where a step with their product is cheaper.
    """
    ready = _melted(_without_views(_constants_computed(inferring(graph, "fold"))))
    return verify(_constants_computed(_pairwise(ready, cost)))


def _constants_computed(graph: Graph) -> Graph:
    """Every contraction of constants alone replaced by the constant it makes; what nobody uses dropped."""
    consts, ops = dict(graph.consts), []
    for op in graph.ops:
        if op.kind == "CONTRACT" and all(name in consts for name in op.args):
            consts[op.name] = einsum([consts[name] for name in op.args], [graph[name].axes for name in op.args], op.axes)
            op = Op(op.name, "CONST", op.axes)
        ops.append(op)
    return _ordered(Graph(tuple(ops), graph.size, consts))


def _without_views(graph: Graph) -> Graph:
    """The graph with every VIEW removed that a refinement of axes makes needless, but an output keeps its axes."""
    for view in [op.name for op in graph.ops[:-1] if op.kind == "VIEW"]:
        op = graph[view]
        arg = graph[op.args[0]]
        pieces = _refinement(arg.axes[1:], op.axes[1:], graph.size)
        if pieces and all(_apart(graph, other, pieces[0]) for other in graph.ops if other.name != view):
            graph = _rewritten(_split(graph, *pieces), {}, {view: op.args[0]}, {})
    return graph


def _apart(graph: Graph, op: Op, renamed: Mapping[str, Axes]) -> bool:
    """Whether the axes that meet in an op are still different ones after renaming, and each one under a window still one."""
    under = _under_windows(op)
    axes = {*under, *(axis for name in (op.name, *op.args) for axis in graph[name].axes)}
    made = [piece for axis in axes for piece in renamed.get(axis, (axis,))]
    return len(set(made)) == len(made) and all(len(renamed.get(axis, (axis,))) == 1 for axis in under)


def _under_windows(op: Op) -> Axes:
    """All axes that an op's windows name."""
    return tuple(axis for window in op.window for axis in (window.axis, window.out, window.tap))


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

    def under(window: Window) -> Window:
        axis, out, tap = refined((window.axis, window.out, window.tap))
        return replace(window, axis=axis, out=out, tap=tap)

    sizes = {axis: extent for axis, extent in graph.size.items() if axis not in renamed} | dict(size)
    ops = tuple(
        replace(op, axes=refined(op.axes), window=tuple(map(under, op.window))) if renamed.keys() & {*op.axes, *_under_windows(op)} else op
        for op in graph.ops
    )
    consts = {op.name: graph.consts[op.name].reshape([sizes[axis] for axis in op.axes]) for op in ops if op.kind == "CONST"}
    return Graph(ops, sizes, consts)


def _melted(graph: Graph) -> Graph:
    """The graph with scales, biases and contractions without constants taken into the ops beside them."""
    for op in graph.ops:
        if op.kind in ("CONTRACT", "ADD") and not op.window:
            graph = _taken_in(graph, graph[op.name])
    return _ordered(graph)


def _taken_in(graph: Graph, op: Op) -> Graph:
    """The graph with an op taken into the one that it alone reads, or that one into it; the same graph where neither can be."""
    before, own = _read_alone(graph, op), _own(graph, op)
    if before is None or not own:
        return graph
    if op.kind == "CONTRACT" and before.kind == "CONTRACT" and before.args[1:] == ():
        lost = {*windowed(before, graph[before.args[0]].axes)} - {*before.axes}
        foreign = lost.union(window.axis for window in before.window)
        slices = all(graph.size[axis] == 1 for axis in lost) and not any(foreign & {*graph[name].axes} for name in own)
        return _rewritten(graph, {op.name: replace(op, window=before.window)}, {before.name: before.args[0]}, {}) if slices else graph
    if op.axes != before.axes or not all({*graph[name].axes} <= {*op.axes} for name in own):
        return graph
    at, added = before, []
    while at and biases(graph, at) and (inner := _own(graph, at)):
        at, added = _read_alone(graph, at), [*added, *inner]
    if op.kind == "ADD":
        return _rewritten(graph, {}, {op.name: before.name}, _combined(graph, np.add, added[:1], own)) if added else graph
    cores = (_own(graph, at) or []) if at and at.kind == "CONTRACT" else []
    if scaled := [name for name in cores if all({*graph[scale].axes} <= {*graph[name].axes} for scale in own)][:1]:
        return _rewritten(graph, {}, {op.name: before.name}, _combined(graph, np.multiply, [*scaled, *added], own))
    return graph


def _read_alone(graph: Graph, op: Op) -> Op | None:
    """The op whose result this one alone reads, if it reads one."""
    read = [name for name in op.args if name not in graph.consts]
    return graph[read[0]] if len(read) == 1 and len(graph.consumers(read[0])) == 1 else None


def _own(graph: Graph, op: Op) -> list[str] | None:
    """The constants that an op reads; None where another op reads one of them too."""
    read = [name for name in op.args if name in graph.consts]
    return read if all(len(graph.consumers(name)) == 1 for name in read) else None


def _combined(graph: Graph, combine: np.ufunc, names: list[str], others: list[str]) -> dict[str, tuple[Axes, np.ndarray]]:
    """Axes and arrays of constants, each one combined with all others."""
    made = {}
    for name in names:
        parts = [(graph[part].axes, graph.consts[part]) for part in (name, *others)]
        axes = tuple(dict.fromkeys(axis for part, _ in parts for axis in part))
        made[name] = axes, reduce(combine, [spread(array, part, axes) for part, array in parts])
    return made


def _rewritten(graph: Graph, changed: dict[str, Op], same: Mapping[str, str], consts: dict[str, tuple[Axes, np.ndarray]]) -> Graph:
    """The graph with other ops and constants in place of those of their names, and without ops that are the `same` as another."""
    changed = changed | {name: replace(graph[name], axes=axes) for name, (axes, _) in consts.items()}
    kept = [changed.get(op.name, op) for op in graph.ops if op.name not in same]
    renamed = tuple(replace(op, args=tuple(same.get(name, name) for name in op.args)) if same.keys() & {*op.args} else op for op in kept)
    return Graph(renamed, graph.size, {**graph.consts, **{name: array for name, (_, array) in consts.items()}})


def _ordered(graph: Graph) -> Graph:
    """The graph without what its last operation does not need, every constant right before its first reader."""
    needed = {next(op.name for op in reversed(graph.ops) if op.kind != "CONST")}
    for op in reversed(graph.ops):
        needed |= {*op.args} if op.name in needed else set()
    ops: dict[str, Op] = {}
    for op in graph.ops:
        if op.name in needed and op.name not in graph.consts:
            ops |= {name: graph[name] for name in op.args if name in graph.consts} | {op.name: op}
    return Graph(tuple(ops.values()), graph.size, {name: graph.consts[name] for name in ops if name in graph.consts})


def _pairwise(graph: Graph, cost: GroupCost | None) -> Graph:
    """The graph with contractions of several cores replaced by the cheapest chain: steps `fc1.step1`, ..., then `fc1` itself."""
    ops: list[Op] = []
    for op in graph.ops:
        if op.kind == "CONTRACT" and len(op.args) > 2:
            ops += _steps(op, graph, cost)
        else:
            ops.append(op)
    return Graph(tuple(ops), graph.size, graph.consts)


def _steps(op: Op, graph: Graph, cost: GroupCost | None) -> list[Op]:
    """One contraction as a chain; the activation is operand 0. A step reads through the windows that the next one finds read."""
    names = sorted(op.args, key=lambda name: "n" not in graph[name].axes)
    windows = {window.axis: (window.out, window.tap) for window in op.window}

    def read(left: Axes, made: Axes) -> tuple[Window, ...]:
        return tuple(window for window in op.window if window.axis in left and window.axis not in made)

    def spent(left: Axes, core: Axes, made: Axes) -> float:
        return cost(shape_of(names[0], op.name, left, core, made, read(left, made)), graph.size)

    steps = chain([graph[name].axes for name in names], op.axes, {**graph.size, "n": 1}, windows, cost and spent)
    activations = [k for k, (_, _, made) in enumerate(steps) if "n" in made]
    known, short = [*names], [name.rpartition(".")[2] for name in names]
    for k, (left, right, _) in enumerate(steps):
        step = f"{op.name}.step{activations.index(k) + 1}" if k in activations[:-1] else op.name
        short.append(f"{short[left]}.{short[right]}")
        known.append(step if k in activations else f"{op.name}.{short[-1]}")
    axes = [*(graph[name].axes for name in names), *(made for _, _, made in steps)]
    return [
        Op(name, "CONTRACT", made, (known[left], known[right]), window=read(axes[left], made) if "n" in made else ())
        for (left, right, made), name in zip(steps, known[len(names) :], strict=True)
    ]
