"""What a training step takes: multiplications, and memory by what it is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from bayestt.ir.graph import Graph


@dataclass(frozen=True)
class Memory:
    """Elements that a training step of a batch holds: of constants, of their gradients, and of values between.

    `kept` are values that the way back reads again, images and products of cores among them; `most` is what is held of all values between
    at the busiest moment, when each one is forgotten after its last reader.
    """

    parameters: int
    gradients: int
    kept: int
    most: int


def multiplications(graph: Graph, images: int = 1) -> int:
    """Multiplications of all contractions of a graph without windows, folded or differentiated, for a batch of so many images.

    A contraction of one operand only sums; of more than two it is not known how it is computed, and the graph is refused.
    """
    total = 0
    for op in (op for op in graph.ops if op.kind == "CONTRACT" and len(op.args) > 1):
        if len(op.args) > 2 or op.window:
            how = "through windows" if op.window else f"{len(op.args)} operands"
            raise ValueError(f"op {op.name!r} multiplies {how}: give a graph without windows, folded or differentiated")
        total += _elements(graph, tuple({axis for name in op.args for axis in graph[name].axes}), images)
    return total


def memory(graph: Graph, images: int = 1) -> Memory:
    """The elements that a training step holds, its ops being run in order; a VIEW takes no place of its own."""
    if not graph.trains:
        raise ValueError("the graph is no training step: differentiate it first")
    place: dict[str, str] = {}
    for op in graph.ops:
        place[op.name] = place[op.args[0]] if op.kind == "VIEW" else op.name
    results = {*graph.gradients.values(), *graph.consts}
    between = [op for op in graph.ops if place[op.name] == op.name and op.name not in results]
    turned = next(number for number, op in enumerate(graph.ops) if op.kind == "ERROR")
    last = {place[name]: number for number, op in enumerate(graph.ops) for name in (op.name, *op.args)}
    held = {op.name: _elements(graph, op.axes, images) for op in between}
    made = {op.name: number for number, op in enumerate(graph.ops)}
    return Memory(
        graph.parameters,
        sum(graph.consts[name].size for name in graph.gradients),
        sum(held[op.name] for op in between if made[op.name] < turned < last[op.name]),
        max(sum(held[op.name] for op in between if made[op.name] <= now <= last[op.name]) for now in range(len(graph.ops))),
    )


def _elements(graph: Graph, axes: Sequence[str], images: int) -> int:
    """Elements over axes, the batch's among them."""
    return prod(images if axis == "n" else graph.size[axis] for axis in axes)
