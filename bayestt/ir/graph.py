"""A trained network as operations over named axes: a tensor dataflow graph."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from types import MappingProxyType

import numpy as np

from bayestt.algebra.einsum import Axes
from bayestt.algebra.fixed import Fixed

ARITY = {
    "INPUT": (0, 0),
    "CONST": (0, 0),
    "CONTRACT": (1, 99),
    "MAX": (1, 1),
    "ADD": (2, 2),
    "RELU": (1, 1),
    "ROUND": (1, 1),
    "VIEW": (1, 1),
    "LABELS": (0, 0),
    "ERROR": (2, 2),
    "MASK": (2, 2),
}
TRAINING = ("LABELS", "ERROR", "MASK")
"""The kinds that only a training step has."""
STORED_BITS, ACCUMULATOR_BITS = 16, 32
"""Integers up to the first width may be kept between operations; sums have the second, and are gone once they are rounded."""


@dataclass(frozen=True)
class Window:
    """How a convolution or a pooling reads an axis of its activation: as two, `out` and `tap`.

    Element (out, tap) is element out * stride + tap * dilation - padding of `axis`; there is none where that lies outside.
    """

    axis: str
    out: str
    tap: str
    stride: int = 1
    dilation: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Op:
    """One operation; its result has these axes and, in an integer graph, this number format.

    INPUT     the images                          CONST  a trained array, `graph.consts[name]`
    CONTRACT  the einsum of one activation and constants: axes that the result lacks are summed
    MAX       the largest over the axes that the result lacks
    ADD       a sum; operands are aligned to the result's format, a constant may lack axes
    RELU      max(x, 0)                           ROUND  requantize(x, shift, format.bits)
    VIEW      the same elements in the same (row-major) order under other axes

    CONTRACT and MAX may read axes of their activation through a `window`; what is not there adds nothing, and is never the largest.
    Three more kinds make a training step of a graph (see `differentiate`), in which contractions may multiply activations and sum `n`:

    LABELS    the images' classes                 ERROR  softmax(scores) - one-hot(labels), the gradient of their cross-entropy
    MASK      the first operand where the second one is positive, else 0

    The batch axis `n` comes first in every activation. An error or a picture shows `name`: `fc1.core0`, `fc1.relu`.
    """

    name: str
    kind: str
    axes: Axes
    args: tuple[str, ...] = ()
    format: Fixed | None = None
    shift: int = 0
    window: tuple[Window, ...] = ()


@dataclass(frozen=True, eq=False)
class Graph:
    """Operations in an order in which they can run, the last one being the output; its meaning is `interpret`.

    `size` gives every axis but the batch `n`; in an integer graph every op has a format and every constant is an integer array.
    A training step says in `gradients` which op makes the gradient of each constant; its output are the scores that its ERROR reads.
    """

    ops: tuple[Op, ...]
    size: Mapping[str, int]
    consts: Mapping[str, np.ndarray]
    gradients: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", MappingProxyType({axis: int(extent) for axis, extent in self.size.items()}))
        object.__setattr__(self, "consts", MappingProxyType(dict(self.consts)))
        object.__setattr__(self, "gradients", MappingProxyType(dict(self.gradients)))

    def __reduce__(self) -> tuple:
        return Graph, (self.ops, dict(self.size), dict(self.consts), dict(self.gradients))

    def __getitem__(self, name: str) -> Op:
        if found := self._named.get(name):
            return found
        raise KeyError(f"{name!r} is no op of this graph")

    @property
    def input(self) -> Op:
        """The images."""
        return self.ops[0]

    @property
    def output(self) -> Op:
        """The scores."""
        return self[self._error.args[0]] if self._error else self.ops[-1]

    @property
    def trains(self) -> bool:
        """Whether the graph is a training step."""
        return self._error is not None

    @property
    def integer(self) -> bool:
        """Whether the graph computes in integers."""
        return self.input.format is not None

    @property
    def parameters(self) -> int:
        """Entries of all constants."""
        return sum(const.size for const in self.consts.values())

    @property
    def parameter_bits(self) -> int:
        """Bits that all constants take: at their formats' widths, 32 where there is none."""
        return sum(self.consts[op.name].size * (op.format.bits if op.format else 32) for op in self.ops if op.kind == "CONST")

    def shape(self, axes: Axes) -> tuple[int, ...]:
        """The sizes of axes."""
        return tuple(self.size[axis] for axis in axes)

    def consumers(self, name: str) -> list[Op]:
        """The ops that read this one."""
        return self._readers.get(name, [])

    @cached_property
    def _named(self) -> dict[str, Op]:
        return {op.name: op for op in reversed(self.ops)}

    @cached_property
    def _error(self) -> Op | None:
        return next((op for op in self.ops if op.kind == "ERROR"), None)

    @cached_property
    def _readers(self) -> dict[str, list[Op]]:
        readers: dict[str, list[Op]] = {}
        for op in self.ops:
            for name in dict.fromkeys(op.args):
                readers.setdefault(name, []).append(op)
        return readers


def windowed(op: Op, axes: Axes) -> Axes:
    """An activation's axes as an op reads them: `out` and `tap` where it has a window."""
    read = {window.axis: (window.out, window.tap) for window in op.window}
    return tuple(part for axis in axes for part in read.get(axis, (axis,)))


def taps(window: Window, out: int, size: Mapping[str, int]) -> range:
    """The taps of a window that find an element, at one of its places."""
    first = out * window.stride - window.padding
    below = -(-max(-first, 0) // window.dilation)
    above = (size[window.axis] - 1 - first) // window.dilation + 1
    return range(below, min(size[window.tap], above))


def biases(graph: Graph, op: Op) -> list[str]:
    """The constants that an ADD adds to an activation; none for any other op."""
    return [name for name in op.args if op.kind == "ADD" and graph[name].kind == "CONST"]


def completion(graph: Graph, op: Op) -> Op | None:
    """The op that works on a sum before it leaves its accumulator: its only reader, if that is the next of bias, rectifier, rounding."""
    stages = {"CONTRACT": ("ADD", "RELU", "ROUND"), "MAX": ("RELU", "ROUND"), "ADD": ("RELU", "ROUND"), "RELU": ("ROUND",)}
    readers = graph.consumers(op.name)
    if len(readers) != 1 or readers[0].kind not in stages.get(op.kind, ()):
        return None
    return readers[0] if readers[0].kind != "ADD" or biases(graph, readers[0]) else None


def verify(graph: Graph) -> Graph:
    """The same graph, if it is legal; else an error that names the op and what is wrong with it."""
    if not graph.ops or graph.input.kind != "INPUT" or any(op.kind == "INPUT" for op in graph.ops[1:]):
        raise ValueError("a graph starts with its one INPUT: put it first")
    if not graph.trains and (graph.output.kind in ("INPUT", "CONST") or "n" not in graph.output.axes):
        raise ValueError("a graph ends with an operation on its input, and this one has none")
    seen: dict[str, Op] = {}
    for op in graph.ops:
        if fault := _fault(op, seen, graph):
            raise ValueError(f"op {op.name!r} ({op.kind} {' '.join(op.axes)}): {fault}")
        seen[op.name] = op
    if fault := _training_fault(graph):
        raise ValueError(fault)
    for op in graph.ops[:-1] if graph.integer else ():
        if op.kind != "CONST" and op.format.bits > STORED_BITS and completion(graph, op) is None:
            readers = [reader.name for reader in graph.consumers(op.name)]
            raise ValueError(f"op {op.name!r} keeps {op.format.bits} bits for {readers}: ROUND it to {STORED_BITS} at most")
    if stray := set(graph.consts) - {op.name for op in graph.ops if op.kind == "CONST"}:
        raise ValueError(f"constants {sorted(stray)} belong to no CONST op")
    return graph


def inferring(graph: Graph, verb: str) -> Graph:
    """The same graph, if it is legal and no training step, which `verb` does not take."""
    if verify(graph).trains:
        raise ValueError(f"{verb} takes no training step ({' '.join(TRAINING)}): give the graph that was differentiated")
    return graph


def _fault(op: Op, seen: Mapping[str, Op], graph: Graph) -> str | None:
    """What is wrong with an op, given those before it."""
    if op.kind not in ARITY:
        return f"unknown kind, expected one of {' '.join(ARITY)}"
    if op.name in seen:
        return "its name is taken by an earlier op"
    if missing := [name for name in op.args if name not in seen]:
        return f"reads {missing}, which no earlier op makes"
    least, most = ARITY[op.kind]
    if not least <= len(op.args) <= most:
        return f"has {len(op.args)} operands, expected {least} to {most}"
    if len(set(op.axes)) < len(op.axes):
        return "names an axis twice"
    if unsized := [axis for axis in op.axes if axis != "n" and graph.size.get(axis, 0) < 1]:
        return f"axes {unsized} have no size"
    if (op.format is None) == graph.integer:
        return "has no number format in an integer graph" if graph.integer else "has a number format in a float graph"
    args = [seen[name] for name in op.args]
    return _axes_fault(op, args, graph) or (_format_fault(op, args, graph) if graph.integer else None)


def _axes_fault(op: Op, args: list[Op], graph: Graph) -> str | None:
    """What is wrong with an op's axes or constants."""
    activations = [arg for arg in args if "n" in arg.axes]
    if op.window and op.kind not in ("CONTRACT", "MAX"):
        return "has a window: only CONTRACT and MAX read through one"
    if op.kind == "CONST":
        return _const_fault(op, graph)
    sums_images = graph.trains and op.kind == "CONTRACT" and "n" not in op.axes
    if args and ("n" in op.axes) != bool(activations) and not sums_images:
        return "its result and its operands disagree on the batch axis n"
    if (not args or activations) and op.axes[:1] != ("n",) and not sums_images:
        return "the batch axis n comes first"
    if args and not activations and (graph.integer or op.kind not in ("CONTRACT", *(["ADD"] if graph.trains else []))):
        return "works on constants alone: compute the constant before"
    if op.kind in TRAINING or any(arg.kind == "LABELS" for arg in args):
        return _training_op_fault(op, args, graph)
    if op.kind == "CONTRACT" and len(activations) > 1 and not graph.trains:
        return f"multiplies activations {[arg.name for arg in activations]}: a contraction takes one, and constants"
    if op.kind in ("CONTRACT", "MAX"):
        if op.window and (fault := _window_fault(op, activations, [arg for arg in args if arg not in activations], graph)):
            return fault
        if new := set(op.axes) - {axis for arg in args for axis in (windowed(op, arg.axes) if arg in activations else arg.axes)}:
            return f"axes {sorted(new)} are in no operand"
    if op.kind == "ADD":
        for arg in args:
            if extra := set(arg.axes) - set(op.axes):
                return f"operand {arg.name!r} has axes {sorted(extra)} that the result lacks"
            if "n" in arg.axes and set(arg.axes) != set(op.axes):
                return f"activation {arg.name!r} lacks axes {sorted(set(op.axes) - set(arg.axes))} of the result"
    if op.kind in ("RELU", "ROUND") and set(op.axes) != set(args[0].axes):
        return f"its axes are not those of {args[0].name!r}: {' '.join(args[0].axes)}"
    if op.kind == "VIEW" and (known := set(op.axes[1:]) & set(args[0].axes)):
        return f"views under axes {sorted(known)} that its operand has already: name new ones"
    if op.kind == "VIEW" and _elements(op, graph) != _elements(args[0], graph):
        return f"{_elements(op, graph)} elements cannot view the {_elements(args[0], graph)} of {args[0].name!r}"
    return None


def _training_op_fault(op: Op, args: list[Op], graph: Graph) -> str | None:
    """What is wrong with an op that only a training step has, or with one that reads its labels."""
    if not graph.trains:
        return "belongs to a training step, which has an ERROR"
    if op.kind == "LABELS":
        return None if op.axes == ("n",) else "labels have the batch axis n alone"
    if op.kind == "ERROR" and (args[1].kind != "LABELS" or op.axes != args[0].axes):
        read = f"{args[0].name!r} ({' '.join(args[0].axes)}) and {args[1].name!r} ({args[1].kind})"
        return f"reads {read}, expected scores of its own axes, and LABELS"
    if op.kind != "ERROR" and any(arg.kind == "LABELS" for arg in args):
        return "reads the labels: ERROR alone does"
    if op.kind == "MASK" and (other := [arg.name for arg in args if set(arg.axes) != set(op.axes)]):
        return f"its axes are not those of {other}"
    return None


def _training_fault(graph: Graph) -> str | None:
    """What is wrong with a graph as a training step."""
    if graph.trains and graph.integer:
        return "a training step computes in floats: differentiate the float graph"
    if len(errors := [op.name for op in graph.ops if op.kind == "ERROR"]) > 1:
        return f"ops {errors} are all an ERROR: a training step has one"
    if graph.gradients and not graph.trains:
        return f"gradients of {sorted(graph.gradients)} and no ERROR: only a training step has gradients"
    for const, made in graph.gradients.items():
        if const not in graph.consts or made not in graph._named or graph[made].axes != graph[const].axes:
            return f"op {made!r} is no gradient of {const!r}: name a constant, and an op of its axes"
    return None


def _window_fault(op: Op, activations: list[Op], constants: list[Op], graph: Graph) -> str | None:
    """What is wrong with the windows through which an op reads its activation."""
    if not activations:
        return "has a window and no activation to read through it"
    activation, axes = activations[0], {window.axis for window in op.window}
    if both := [(arg.name, sorted(axes & {*arg.axes})) for arg in constants if axes & {*arg.axes}]:
        return f"constant {both[0][0]!r} has axes {both[0][1]}, which are read through a window"
    if len(axes) < len(op.window):
        return f"has {len(op.window)} windows over {sorted(axes)}: one for each axis"
    if op.kind == "MAX" and (kept := [window.tap for window in op.window if window.tap in op.axes]):
        return f"keeps the taps {kept} of its windows: some of them find nothing that could be the largest"
    read = windowed(op, activation.axes)
    if len(set(read)) < len(read):
        return f"reads {activation.name!r} as {' '.join(read)}: name every axis once"
    for window in op.window:
        if window.axis not in activation.axes or window.axis == "n":
            return f"has a window over {window.axis!r}, which is no axis of an image in {activation.name!r}"
        if unsized := [axis for axis in (window.out, window.tap) if graph.size.get(axis, 0) < 1]:
            return f"axes {unsized} of its window have no size"
        if window.stride < 1 or window.dilation < 1 or window.padding < 0:
            return f"has {window}: stride and dilation are at least 1, padding at least 0"
        if empty := [out for out in range(graph.size[window.out]) if not taps(window, out, graph.size)]:
            return f"its window over {window.axis!r} finds nothing at {window.out}={empty[0]}: less padding or fewer {window.out}"
    return None


def _const_fault(op: Op, graph: Graph) -> str | None:
    """What is wrong with a constant."""
    if op.name not in graph.consts:
        return "has no array"
    const = graph.consts[op.name]
    if "n" in op.axes:
        return "a constant has no batch axis n"
    if const.shape != graph.shape(op.axes):
        return f"its array has shape {const.shape} and its axes have {graph.shape(op.axes)}"
    if not np.isfinite(const).all():
        return "its array has NaN or infinite entries"
    if graph.integer:
        if not np.issubdtype(const.dtype, np.integer):
            return f"its array holds {const.dtype}, expected integers"
        if op.format and (const.min() < op.format.low or const.max() > op.format.high):
            return f"its array runs from {const.min()} to {const.max()} and {op.format.bits} bits from {op.format.low} to {op.format.high}"
    return None


def _format_fault(op: Op, args: list[Op], graph: Graph) -> str | None:
    """What is wrong with an op's number format."""
    fracs = [arg.format.frac for arg in args]
    if op.kind == "CONTRACT" and len(args) > 2:
        return f"has {len(args) - 1} constants, an integer contraction has one: fold the float graph first"
    if op.kind in ("CONTRACT", "ADD") and op.format.bits != ACCUMULATOR_BITS:
        return f"sums in {op.format.bits} bits, accumulators have {ACCUMULATOR_BITS}"
    if op.kind == "CONTRACT" and (wide := [arg.name for arg in args if arg.format.bits > STORED_BITS]):
        return f"multiplies {wide} of {max(arg.format.bits for arg in args)} bits: {STORED_BITS} at most"
    if op.kind == "CONTRACT" and op.format.frac != sum(fracs):
        return f"a product of fractions {fracs} has {sum(fracs)} fractional bits, not {op.format.frac}"
    if op.kind == "ADD" and max(fracs) != op.format.frac:
        return f"operands with fractions {fracs} align to {max(fracs)} fractional bits, not {op.format.frac}"
    if op.kind == "ADD" and max(fracs) - min(fracs) > STORED_BITS:
        return f"operands with fractions {fracs} are {max(fracs) - min(fracs)} bits apart: {STORED_BITS} at most"
    if op.kind in ("RELU", "VIEW", "MAX") and op.format != args[0].format:
        return f"its format is not that of {args[0].name!r}"
    if op.kind == "ROUND" and not (0 <= op.shift <= 31 and op.format.frac == fracs[0] - op.shift):
        return f"shift {op.shift} takes {fracs[0]} fractional bits to {fracs[0] - op.shift}, not {op.format.frac}; shifts are 0 to 31"
    return None


def _elements(op: Op, graph: Graph) -> int:
    """Elements of a result, per image."""
    return prod(graph.shape(op.axes[1:] if op.axes[:1] == ("n",) else op.axes))
