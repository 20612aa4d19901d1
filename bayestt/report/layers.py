"""A network layer by layer: what its ranks save, and what each layer costs a machine."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from bayestt.ir.graph import Graph, Op, biases, taps, windowed
from bayestt.report.table import table


@dataclass(frozen=True)
class Layer:
    """A layer of a traced network: its ranks, its parameters (biases included), and what the same layer dense would take of an image.

    Multiplications (`dense_macs`) leave out those with pixels that a border lacks.
    """

    name: str
    ranks: Mapping[str, int]
    parameters: int
    dense_parameters: int
    dense_macs: int


@dataclass(frozen=True)
class Cost:
    """What a layer costs a machine: multiplications of an image, cycles of a batch, and bytes of activations in and out of the chip.

    `busy` is the part of all multipliers' cycles in which they multiply (0 to 1).
    """

    macs: int
    cycles: int
    busy: float
    moved_bytes: int


def layers(graph: Graph) -> tuple[Layer, ...]:
    """The layers of a float graph as `trace` draws it, before `fold`: its contractions with trained cores, in order."""
    found = []
    for op in graph.ops:
        cores = [name for name in op.args if re.search(r"\.core\d+$", name)]
        if op.kind != "CONTRACT" or not cores:
            continue
        (x,) = (graph[name] for name in op.args if name not in graph.consts)
        read = windowed(op, x.axes)
        rows, summed = (tuple(axis for axis in mine if axis not in other) for mine, other in ((op.axes, read), (read, op.axes)))
        ranks = {axis: graph.size[axis] for core in cores for axis in graph[core].axes if axis not in (*rows, *summed)}
        bias = sum(graph.consts[name].size for reader in graph.consumers(op.name) for name in biases(graph, reader))
        name = op.name.removesuffix(".product")
        found.append(
            Layer(
                name,
                {axis.removeprefix(f"{name}."): extent for axis, extent in ranks.items()},
                sum(graph.consts[core].size for core in cores) + bias,
                prod(graph.shape((*rows, *summed))) + bias,
                _macs(graph, op, (*rows, *summed)),
            )
        )
    return tuple(found)


def layer_of(graph: Graph, name: str, known: Sequence[str]) -> str:
    """The known layer that an op of the folded or integer graph belongs to: its own, or that of the nearest op before it that has one."""
    while True:
        if found := [layer for layer in known if name == layer or name.startswith(f"{layer}.")]:
            return max(found, key=len)
        op = next((op for op in graph.ops if op.name == re.sub(r"\.(copy\d+|scores)$", "", name)), None)
        if op is None or not op.args:
            raise ValueError(f"op {name!r} comes after no layer of {', '.join(known)}: give the layers of the graph that it was made of")
        name = op.args[0]


def layer_table(found: Sequence[Layer], costs: Mapping[str, Cost]) -> str:
    """Every layer's ranks, parameters, multiplications (both also as times fewer than dense), cycles, use of multipliers and traffic."""
    rows = []
    for layer in found:
        cost = costs[layer.name]
        rows.append(
            (
                layer.name,
                " ".join(f"{axis} {rank}" for axis, rank in layer.ranks.items()) or "dense",
                f"{layer.parameters:,}",
                f"{layer.dense_parameters / layer.parameters:.1f}x",
                f"{cost.macs:,}",
                f"{layer.dense_macs / cost.macs:.1f}x",
                f"{cost.cycles:,}",
                f"{100 * cost.busy:.0f} %",
                f"{cost.moved_bytes:,}",
            )
        )
    head = ("layer", "ranks", "parameters", "fewer", "MACs an image", "fewer", "cycles a batch", "multiplying", "bytes in and out")
    return table(head, rows)


def _macs(graph: Graph, op: Op, weight: Sequence[str]) -> int:
    """Multiplications of an image with a dense weight over these axes: one for each of its entries at each place that finds it."""
    found = {window.tap: sum(len(taps(window, out, graph.size)) for out in range(graph.size[window.out])) for window in op.window}
    places = {window.out for window in op.window}
    apart = [axis for axis in op.axes if axis not in (*weight, *places, "n")]
    return prod(found.get(axis, graph.size[axis]) for axis in (*weight, *apart))
