"""From a float graph to the integer graph that machines compute: power-of-two scales, chosen on calibration images."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from bayestt.algebra.einsum import Axes
from bayestt.algebra.fixed import Fixed, dequantize
from bayestt.algebra.fixed import quantize as integers
from bayestt.ir.graph import ACCUMULATOR_BITS, Graph, Op, biases, completion, verify
from bayestt.ir.interpret import interpret

FINEST = 4
"""How many scales are tried for a tensor: the coarsest, at which nothing saturates, and finer ones, each half the one before."""


def quantize(graph: Graph, calibration: np.ndarray, weight_bits: int = 8, activation_bits: int = 8) -> Graph:
    """An integer graph of a folded float graph: every weight, and every activation that is kept, at its own power-of-two scale.

    Scales are chosen one tensor after another: each is the one that changes the scores of the `calibration` images (n, ...) least, in mean
    square, when its tensor and those before it are rounded and saturated. Give training images. Sums run in 32-bit accumulators, biases
    are added there, and one ROUND follows each sum that is read again. The output stays in the accumulator's format.
    """
    for what, bits in (("weight", weight_bits), ("activation", activation_bits)):
        if not 2 <= bits <= 8:
            raise ValueError(f"{bits} {what} bits: choose 2 to 8")
    if verify(graph).integer:
        raise ValueError("the graph is quantized already: give the float graph")
    if not np.isfinite(calibration).all():
        raise ValueError("the calibration images hold NaN or infinity: give finite ones")
    graph = _own_constants(graph)
    added = {name for op in graph.ops for name in biases(graph, op)}
    weights = [op.name for op in graph.ops if op.kind == "CONST" and op.name not in added]
    sums = [op for op in graph.ops[1:-1] if op.kind not in ("CONST", "VIEW")]
    kept = [graph.input.name, *(op.name for op in sums if completion(graph, op) is None)]
    largest = _largest(graph, calibration)
    chosen = _chosen(graph, dict.fromkeys(weights, weight_bits) | dict.fromkeys(kept, activation_bits), largest, calibration)
    return verify(_integer(graph, chosen, largest, weight_bits))


def _own_constants(graph: Graph) -> Graph:
    """The graph with a constant of its own for every reader: each may need another scale."""
    ops, consts = [], {}
    for op in graph.ops:
        if op.kind == "CONST":
            continue
        shared = [name for name in op.args if name in graph.consts]
        names = {name: f"{name}.{op.name}" if name in consts else name for name in shared}
        ops += [replace(graph[name], name=own) for name, own in names.items()]
        consts |= {own: graph.consts[name] for name, own in names.items()}
        ops.append(replace(op, args=tuple(names.get(name, name) for name in op.args)))
    return Graph(tuple(ops), graph.size, consts)


def _largest(graph: Graph, calibration: np.ndarray) -> dict[str, float]:
    """The largest magnitude of every op on the calibration images."""
    largest: dict[str, float] = {}

    def measured(op: Op, value: np.ndarray) -> np.ndarray:
        largest[op.name] = max(largest.get(op.name, 0.0), float(np.abs(value).max(initial=0)))
        return value

    interpret(graph, calibration, measured)
    return largest


def _chosen(graph: Graph, bits: Mapping[str, int], largest: Mapping[str, float], calibration: np.ndarray) -> dict[str, Fixed]:
    """The format of every tensor in `bits`, by its effect on the scores of the calibration images."""
    scores = interpret(graph, calibration)
    chosen: dict[str, Fixed] = {}

    def error(name: str, format: Fixed) -> float:
        formats = chosen | {name: format}

        def rounded(op: Op, value: np.ndarray) -> np.ndarray:
            return dequantize(integers(value, formats[op.name]), formats[op.name]) if op.name in formats else value

        return float(np.mean(np.square(interpret(graph, calibration, rounded) - scores)))

    for name in tqdm([op.name for op in graph.ops if op.name in bits], desc="quantize", unit="tensor", delay=3, leave=False):
        coarsest = bits[name] - 1 - _whole_bits(largest[name])
        candidates = [Fixed(bits[name], coarsest + finer) for finer in range(FINEST)]
        errors = [error(name, format) for format in candidates]
        chosen[name] = candidates[errors.index(min(errors))]
    return chosen


def _integer(graph: Graph, chosen: Mapping[str, Fixed], largest: Mapping[str, float], weight_bits: int) -> Graph:
    """The integer graph with the chosen formats, coarser where an accumulator or an alignment would not hold them."""
    ops: list[Op] = []
    formats: dict[str, Fixed] = {}
    rounded: dict[str, str] = {}

    def read(name: str) -> str:
        """The op in the integer graph that has a float op's value: itself, or what rounds it."""
        return rounded.get(name, name)

    def add(op: Op, format: Fixed, shift: int = 0) -> None:
        ops.append(replace(op, format=format, shift=shift, args=tuple(map(read, op.args))))
        formats[op.name] = format

    def add_round(axes: Axes, source: str, made: str, bits: int, frac: int) -> str:
        shift = min(max(formats[source].frac - frac, 0), 31)
        add(Op(made, "ROUND", axes, (source,)), Fixed(bits, formats[source].frac - shift), shift)
        return made

    def at_most(name: str, frac: int, reader: Op) -> str:
        """An operand, or what it rounds to with so few fractional bits; an accumulator as it is."""
        source = read(name)
        if formats[source].frac <= frac or formats[source].bits == ACCUMULATOR_BITS:
            return source
        return add_round(graph[name].axes, source, f"{source}.{reader.name}", formats[source].bits, frac)

    for op in (op for op in graph.ops if op.kind != "CONST"):
        constants = [name for name in op.args if name in graph.consts]
        activations = [name for name in op.args if name not in constants]
        fracs = [formats[read(name)].frac for name in activations]
        match op.kind:
            case "INPUT":
                add(op, chosen[op.name])
            case "CONTRACT":
                most = _room(graph, op, largest) - fracs[0]
                for name in constants:
                    add(graph[name], replace(chosen[name], frac=min(chosen[name].frac, most)))
                add(op, Fixed(ACCUMULATOR_BITS, fracs[0] + sum(formats[name].frac for name in constants)))
            case "ADD":
                most = _room(graph, op, largest) if constants else min(fracs) + weight_bits - 2
                aligned = {name: at_most(name, most, op) for name in activations}
                format = Fixed(ACCUMULATOR_BITS, max(formats[name].frac for name in aligned.values()))
                for name in constants:
                    add(graph[name], format)
                add(replace(op, args=tuple(aligned.get(name, name) for name in op.args)), format)
            case _:
                add(op, formats[read(op.args[0])])
        if op.name in chosen and formats[op.name].bits == ACCUMULATOR_BITS:
            format = chosen[op.name]
            rounded[op.name] = add_round(op.axes, op.name, f"{op.name}.round", format.bits, format.frac)
    return Graph(tuple(ops), graph.size, {name: integers(const, formats[name]) for name, const in graph.consts.items()})


def _room(graph: Graph, op: Op, largest: Mapping[str, float]) -> int:
    """The most fractional bits at which an accumulator holds a sum with its bias, one bit to spare."""
    after = completion(graph, op)
    held = [op.name, *biases(graph, op), *([after.name, *biases(graph, after)] if after else [])]
    return ACCUMULATOR_BITS - 2 - _whole_bits(max(largest[name] for name in held))


def _whole_bits(value: float) -> int:
    """Bits before the point of a magnitude; negative for one that starts behind it."""
    return int(np.ceil(np.log2(value))) if value else 0
