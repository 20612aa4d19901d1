"""How wide accumulators must be, whatever the images are: interval arithmetic over an integer graph."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bayestt.algebra.einsum import einsum
from bayestt.ir.contraction import contracted, seen
from bayestt.ir.graph import Graph, Op, completion
from bayestt.ir.interpret import value

Interval = tuple[np.ndarray, np.ndarray]
"""The least and the largest that every element of a value may be."""


@dataclass(frozen=True)
class Sum:
    """What is added up in one accumulator, by its last op: the least and the largest of all elements, and the bits that it has."""

    name: str
    low: int
    high: int
    acc_bits: int

    @property
    def needed_bits(self) -> int:
        """The width, in two's complement, that holds every sum."""
        return 1 + max((end if end >= 0 else ~end).bit_length() for end in (self.low, self.high))

    @property
    def fits(self) -> bool:
        """Whether no image makes a sum wrap around."""
        return self.needed_bits <= self.acc_bits

    def __str__(self) -> str:
        return f"{self.needed_bits} of {self.acc_bits} bits, in {self.name}" + ("" if self.fits else ", which may wrap around")


def overflow(graph: Graph) -> tuple[Sum, ...]:
    """The sums of an integer graph, in its order, with bounds that hold for every image that its input's format allows.

    Only whole sums count, a contraction with its bias: on the way to one an accumulator may wrap around, whatever the order of its terms,
    and it comes back, because it counts modulo 2**bits. A sum that does not fit may be any number for those who read it.
    """
    found = ((op, *interval) for op, interval in _intervals(graph) if _whole(graph, op))
    return tuple(Sum(op.name, int(low.min()), int(high.max()), op.format.bits) for op, low, high in found)


def intervals(graph: Graph) -> dict[str, Interval]:
    """The interval (1, ...) of every element of every op, as readers find it; but of a contraction before its bias as if it never wraps.

    No image exceeds a bound. A contraction of the images attains each of its own, unless it sums over the places of a window and so reads
    an element several times. Deeper in a graph, elements are taken to be anywhere in their intervals, each for itself, and no image may
    attain all that at once. A window's taps beyond the border add nothing, so that a place near it has a smaller interval.
    """
    return {op.name: _wrapped(op, interval) if _whole(graph, op) else interval for op, interval in _intervals(graph)}


def _intervals(graph: Graph) -> Iterator[tuple[Op, Interval]]:
    """Every op with its interval, as if sums never wrapped around; those that may do so to their readers."""
    if not graph.integer:
        raise ValueError("a float graph has no accumulators: give the integer graph that quantize makes")
    last = {name: op.name for op in graph.ops for name in op.args}
    known: dict[str, Interval] = {}
    for op in graph.ops:
        interval = _interval(graph, op, [known[name] for name in op.args])
        yield op, interval
        known[op.name] = _wrapped(op, interval) if _whole(graph, op) else interval
        for name in {*op.args}:
            if last[name] == op.name:
                del known[name]


def _whole(graph: Graph, op: Op) -> bool:
    """Whether an op is the last that adds to its accumulator."""
    after = completion(graph, op)
    return op.kind in ("CONTRACT", "ADD") and (after is None or after.kind != "ADD")


def _wrapped(op: Op, interval: Interval) -> Interval:
    """What a sum's readers find: anything, where it may wrap around."""
    low, high = interval
    fits = (low >= op.format.low) & (high <= op.format.high)
    return np.where(fits, low, op.format.low), np.where(fits, high, op.format.high)


def _interval(graph: Graph, op: Op, args: list[Interval]) -> Interval:
    """An op's interval, given those of its operands."""
    match op.kind:
        case "INPUT":
            shape = (1, *graph.shape(op.axes[1:]))
            return np.full(shape, float(op.format.low)), np.full(shape, float(op.format.high))
        case "CONST":
            const = graph.consts[op.name].astype(np.float64)
            return const, const
        case "CONTRACT" if len(args) == 2:
            return _contracted(graph, op, args)
    low, high = ([interval[end] for interval in args] for end in (0, 1))
    return value(graph, op, low), value(graph, op, high)


def _contracted(graph: Graph, op: Op, args: list[Interval]) -> Interval:
    """A contraction is least where what has a weight above 0 is least, and what has one below 0 largest; and the other way round."""
    activation, constant = sorted((0, 1), key=lambda k: "n" not in graph[op.args[k]].axes)
    (low, axes), (high, _) = (seen(end, graph[op.args[activation]].axes, op.window, graph.size, 0) for end in args[activation])
    named = graph[op.args[constant]].axes
    kept = tuple(axis for axis in named if axis in (*op.axes, *axes))
    # Weights that meet the same elements for the same sum are one.
    weights = einsum([args[constant][0]], [named], kept)
    above, below = np.maximum(weights, 0), np.minimum(weights, 0)

    def total(with_above: np.ndarray, with_below: np.ndarray) -> np.ndarray:
        return sum(contracted(x, axes, w, kept, op.axes) for x, w in ((with_above, above), (with_below, below)))

    return total(low, high), total(high, low)
