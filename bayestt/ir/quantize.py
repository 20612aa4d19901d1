"""From a float graph to the integer graph that machines compute: power-of-two scales, chosen on calibration images."""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from tqdm import tqdm

from bayestt.algebra.einsum import Axes, einsum, spread
from bayestt.algebra.fixed import Fixed, dequantize
from bayestt.algebra.fixed import quantize as integers
from bayestt.ir.graph import ACCUMULATOR_BITS, Graph, Op, biases, completion, inferring, verify
from bayestt.ir.interpret import interpret, value

FINEST = 4
"""How many scales are tried for a tensor: the coarsest, at which nothing saturates, and finer ones, each half the one before."""
WITNESSES = 128
"""Calibration images, at most, on which the effect of a rounding is measured; the largest magnitudes are those of all."""


def quantize(graph: Graph, calibration: np.ndarray, weight_bits: int = 8, activation_bits: int = 8) -> Graph:
    """An integer graph of a folded float graph: every weight, and every activation that is kept, at its own power-of-two scale.

    The scale of a tensor is the one that changes least what its readers compute of it on the `calibration` images (n, ...), up to the next
    rounding and relative to its mean square, when that tensor alone is rounded and saturated: each finer scale saturates a larger part of
    the tensor. Then each bias is moved by the mean error that all roundings before it leave in its sum, so that errors do not add up along
    a deep net (Nagel, van Baalen, Blankevoort & Welling 2019). Give training images. Sums run in 32-bit accumulators, biases are added
    there, and one ROUND follows each sum that is read again. The output stays in the accumulator's format.
    """
    for what, bits in (("weight", weight_bits), ("activation", activation_bits)):
        if not 2 <= bits <= 8:
            raise ValueError(f"{bits} {what} bits: choose 2 to 8")
    if inferring(graph, "quantize").integer:
        raise ValueError("the graph is quantized already: give the float graph")
    if not np.isfinite(calibration).all():
        raise ValueError("the calibration images hold NaN or infinity: give finite ones")
    graph = _own_constants(graph)
    added = {name for op in graph.ops for name in biases(graph, op)}
    weights = [op.name for op in graph.ops if op.kind == "CONST" and op.name not in added]
    kept = [graph.input.name, *(op.name for op in _sums(graph) if completion(graph, op) is None and op is not graph.output)]
    largest = _largest(graph, calibration)
    bits = dict.fromkeys(weights, weight_bits) | dict.fromkeys(kept, activation_bits)
    chosen = _chosen(graph, bits, largest, calibration[:WITNESSES])
    return verify(_integer(_corrected(graph, chosen, calibration[:WITNESSES]), chosen, largest, weight_bits))


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


def _sums(graph: Graph) -> list[Op]:
    """The ops whose results are in an accumulator: sums, and what completes them."""
    wide: dict[str, Op] = {}
    for op in graph.ops:
        completes = any(name in wide and completion(graph, graph[name]) == op for name in op.args)
        wide |= {op.name: op} if op.kind in ("CONTRACT", "ADD") or completes else {}
    return [*wide.values()]


def _largest(graph: Graph, calibration: np.ndarray) -> dict[str, float]:
    """The largest magnitude of every op on the calibration images."""
    largest: dict[str, float] = {}

    def measured(op: Op, found: np.ndarray) -> np.ndarray:
        largest[op.name] = max(largest.get(op.name, 0.0), float(np.abs(found).max(initial=0)))
        return found

    interpret(graph, calibration, measured)
    return largest


def _chosen(graph: Graph, bits: Mapping[str, int], largest: Mapping[str, float], calibration: np.ndarray) -> dict[str, Fixed]:
    """The format of every tensor in `bits`, by its effect on what its readers compute."""
    coarsest = {name: bits[name] - 1 - _whole_bits(largest[name]) for name in bits}
    candidates = {name: [Fixed(bits[name], coarsest[name] + finer) for finer in range(FINEST)] for name in bits}
    readers = [op for op in graph.ops if _judges(graph, op)]
    source = _sources(graph, bits)
    last = {name: op.name for op in graph.ops for name in op.args}
    values: dict[str, np.ndarray] = {}
    squares = dict.fromkeys((op.name for op in readers), 0.0)
    errors = {(name, op.name): np.zeros(FINEST) for op in readers for name in {source.get(arg) for arg in op.args} & {*bits}}

    def judged(op: Op, found: np.ndarray) -> np.ndarray:
        values[op.name] = found
        if op.name in squares:
            args = {name: values[name] for name in op.args}
            exact = _completed(graph, op, args)
            squares[op.name] += float(np.square(exact).sum())
            for name in {source.get(arg) for arg in args} & {*bits}:
                for number, format in enumerate(candidates[name]):
                    rounded = {arg: _rounded(args[arg], format) for arg in args if source.get(arg) == name}
                    errors[name, op.name][number] += np.square(_completed(graph, op, args | rounded) - exact).sum()
        for name in {*op.args}:
            if last[name] == op.name:
                del values[name]
        return found

    interpret(graph, calibration, judged)
    total = {name: sum(found / (squares[reader] or 1) for (source, reader), found in errors.items() if source == name) for name in bits}
    return {name: candidates[name][int(np.argmin(total[name]))] for name in bits}


def _judges(graph: Graph, op: Op) -> bool:
    """Whether an op begins a sum, or is the output: what the rounding of its operands does is seen in it and in what completes it."""
    completes = any(completion(graph, graph[name]) == op for name in op.args)
    return not completes and (op.kind in ("CONTRACT", "ADD") or op is graph.output)


def _sources(graph: Graph, bits: Collection[str]) -> dict[str, str]:
    """For an op the tensor in `bits` whose format its value has: itself, or what it is a view of, the largest of, or rectifies."""
    source: dict[str, str] = {}
    for op in graph.ops:
        if op.name in bits:
            source[op.name] = op.name
        elif op.kind in ("VIEW", "MAX", "RELU") and op.args[0] in source:
            source[op.name] = source[op.args[0]]
    return source


def _completed(graph: Graph, op: Op, args: Mapping[str, np.ndarray]) -> np.ndarray:
    """What an op makes of operands, with the bias and the rectifier that follow."""
    found = value(graph, op, [args[name] for name in op.args])
    while after := completion(graph, op):
        found = value(graph, after, [graph.consts.get(name, found) for name in after.args])
        op = after
    return found


def _corrected(graph: Graph, chosen: Mapping[str, Fixed], calibration: np.ndarray) -> Graph:
    """The graph with every bias moved by the mean difference that the roundings before it make to its sum."""
    exact: dict[str, np.ndarray] = {}
    rounded: dict[str, np.ndarray] = {}
    consts = dict(graph.consts)
    last = {name: op.name for op in graph.ops for name in op.args}
    for op in tqdm(graph.ops, desc="quantize", unit="op", delay=3, leave=False):
        given = calibration.reshape(len(calibration), *graph.shape(op.axes[1:])) if op is graph.input else graph.consts.get(op.name)
        for values in (exact, rounded):
            values[op.name] = value(graph, op, [values[name] for name in op.args]) if given is None else given
        for name in biases(graph, op):
            axes = tuple(axis for axis in op.axes if axis in graph[name].axes)
            lost = (exact[op.name] - rounded[op.name]).mean(tuple(k for k, axis in enumerate(op.axes) if axis not in axes))
            consts[name] = consts[name] + einsum([lost], [axes], graph[name].axes)
            rounded[op.name] = rounded[op.name] + spread(lost, axes, op.axes)
        if op.name in chosen:
            rounded[op.name] = _rounded(rounded[op.name], chosen[op.name])
        for name in {*op.args}:
            if last[name] == op.name:
                del exact[name], rounded[name]
    return Graph(graph.ops, graph.size, consts)


def _rounded(values: np.ndarray, format: Fixed) -> np.ndarray:
    """The nearest numbers that a format has."""
    return dequantize(integers(values, format), format)


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
