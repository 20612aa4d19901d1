"""Operations that are computed together: a sum, its bias, its rectifier and its rounding."""

from dataclasses import dataclass, replace

import numpy as np

from bayestt.algebra.einsum import Axes
from bayestt.ir.border import ragged
from bayestt.ir.graph import Graph, Op, Window, biases, completion, windowed


@dataclass(frozen=True)
class Group:
    """y[y_axes] = requantize(init + sum of x * weights, shift, relu), or the largest instead of the sum where it has `maximum`.

    `x` names one stored tensor, or two that are added (then `weights` has the axis `+`, one power of two for each), read through
    `window`. `weights` is a constant over `weight_axes`, a bare 1 for copies; `init` is the bias, already in the accumulator's format,
    over `init_axes`. Where a window whose taps stay in y finds nothing, y is `blank`; None if none of them does.
    """

    x: tuple[str, ...]
    x_axes: Axes
    weights: np.ndarray
    weight_axes: Axes
    init: np.ndarray
    init_axes: Axes
    y: str
    y_axes: Axes
    shift: int = 0
    relu: bool = False
    bits: int = 8
    window: tuple[Window, ...] = ()
    maximum: bool = False
    blank: int | None = None

    @property
    def read_axes(self) -> Axes:
        """The axes of x as the group reads them: two where it has a window."""
        return windowed(self, self.x_axes)


def copy_of(name: str, made: str, axes: Axes, bits: int) -> Group:
    """The group that copies a stored tensor."""
    return Group((name,), axes, np.array(1), (), np.array(0), (), made, axes, bits=bits)


def shape_of(name: str, made: str, x_axes: Axes, weight_axes: Axes, y_axes: Axes, window: tuple[Window, ...]) -> Group:
    """The group that contracts a stored tensor with one constant, of which the axes alone are known: what machines charge for by shape."""
    return Group((name,), x_axes, np.array(1), weight_axes, np.array(0), (), made, y_axes, window=window)


def groups(graph: Graph) -> list[Group | Op]:
    """An integer graph's activations as groups in order, and the VIEWs between them (which compute nothing)."""
    found: list[Group | Op] = []
    taken: set[str] = set()
    live = _live(graph)
    for op in (op for op in graph.ops[1:] if op.name in live):
        if op.kind == "CONST" or op.name in taken:
            continue
        if op.kind == "VIEW":
            found.append(op)
            continue
        group, last = _started(op, graph)
        if any(ragged(window, op.axes, graph.size) for window in op.window):
            found.append(_unfolded(group, op, graph))
            group = replace(group, x=(found[-1].y,), x_axes=found[-1].y_axes, window=())
        while follower := completion(graph, last):
            group, last = _extended(group, follower, graph), follower
            taken.add(follower.name)
        found.append(replace(group, y=last.name, y_axes=last.axes, bits=last.format.bits))
    return found


def _live(graph: Graph) -> set[str]:
    """The ops that the output needs."""
    live = {graph.output.name}
    for op in reversed(graph.ops):
        live |= set(op.args) if op.name in live else set()
    return live


def _started(op: Op, graph: Graph) -> tuple[Group, Op]:
    """The group that begins with an op, before what follows is taken in."""
    activations = [name for name in op.args if "n" in graph[name].axes]
    axes = graph[activations[0]].axes
    plain = copy_of(activations[0], op.name, axes, op.format.bits)
    match op.kind:
        case "CONTRACT":
            for const in (name for name in op.args if name not in activations):
                plain = replace(plain, weights=graph.consts[const].astype(np.int64), weight_axes=graph[const].axes)
            return replace(plain, window=op.window), op
        case "MAX":
            return replace(plain, init=np.array(op.format.low), window=op.window, maximum=True), op
        case "ADD" if len(activations) == 2:
            aligned = np.array([1 << (op.format.frac - graph[name].format.frac) for name in activations])
            return replace(plain, x=tuple(activations), x_axes=(*axes, "+"), weights=aligned, weight_axes=("+",)), op
    return _extended(plain, op, graph), op


def _unfolded(group: Group, op: Op, graph: Graph) -> Group:
    """The copy in which every element that a group's windows find has a place of its own, for sums that run over no box of places."""
    activation = graph[group.x[0]]
    made = copy_of(activation.name, f"{op.name}.window", activation.axes, activation.format.bits)
    return replace(made, y_axes=group.read_axes, window=group.window, blank=activation.format.low if group.maximum else 0)


def _extended(group: Group, op: Op, graph: Graph) -> Group:
    """The group with the bias, rectifier or rounding that an op adds to it."""
    match op.kind:
        case "ADD":
            bias = biases(graph, op)[0]
            aligned = graph.consts[bias].astype(np.int64) << (op.format.frac - graph[bias].format.frac)
            scale = 1 << (op.format.frac - next(graph[name].format.frac for name in op.args if name != bias))
            return replace(group, init=aligned, init_axes=graph[bias].axes, weights=group.weights * scale)
        case "RELU":
            return replace(group, relu=True)
    return replace(group, shift=op.shift)
