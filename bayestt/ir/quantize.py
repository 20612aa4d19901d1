"""From a float graph to the integer graph that machines compute: power-of-two scales, chosen on calibration images."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bayestt.algebra.fixed import Fixed, dequantize
from bayestt.algebra.fixed import quantize as integers
from bayestt.ir.graph import Graph, Op, biases, completion, verify
from bayestt.ir.interpret import interpret

ACCUMULATOR_BITS = 32
SAMPLES = 100_000
"""Numbers looked at, per tensor, to choose its scale."""


def quantize(graph: Graph, calibration: np.ndarray, weight_bits: int = 8, activation_bits: int = 8) -> Graph:
    """An integer graph of a folded float graph: every weight, and every activation that is kept, at its own power-of-two scale.

    Each scale is the one with the least mean squared error on that tensor (weights: their entries; activations: their values on the
    `calibration` images (n, ...), which should be training images). Sums run in 32-bit accumulators, biases are added there, and one ROUND
    follows each sum that is read again. The output stays in the accumulator's format.
    """
    for what, bits in (("weight", weight_bits), ("activation", activation_bits)):
        if not 2 <= bits <= 8:
            raise ValueError(f"{bits} {what} bits: choose 2 to 8")
    if verify(graph).integer:
        raise ValueError("the graph is quantized already: give the float graph")
    sums = [op for op in graph.ops[1:-1] if op.kind not in ("CONST", "VIEW")]
    kept = [graph.input.name, *(op.name for op in sums if completion(graph, op) is None)]
    chosen = _activation_formats(graph, kept, calibration, activation_bits)
    chosen = _alignable(graph, chosen, weight_bits - 2)
    rounded = _with_rounds(graph, kept)
    formats = _formats(rounded, chosen, weight_bits)
    ops = tuple(
        replace(op, format=formats[op.name], shift=_shift(op, formats) if op.kind == "ROUND" else 0) for op in rounded.ops
    )
    return verify(Graph(ops, graph.size, {name: integers(const, formats[name]) for name, const in graph.consts.items()}))


def best_format(values: np.ndarray, bits: int) -> Fixed:
    """The format of that width with the least mean squared rounding and saturation error on values."""
    sample = np.asarray(values, np.float64).ravel()
    sample = sample[:: max(1, sample.size // SAMPLES)]
    largest = np.abs(sample).max(initial=0.0)
    if largest == 0:
        return Fixed(bits, bits - 1)
    whole = bits - 1 - int(np.ceil(np.log2(largest)))
    candidates = [Fixed(bits, frac) for frac in range(whole - 1, whole + 4)]
    return min(candidates, key=lambda fixed: np.mean(np.square(sample - dequantize(integers(sample, fixed), fixed))))


def _activation_formats(graph: Graph, kept: list[str], calibration: np.ndarray, bits: int) -> dict[str, Fixed]:
    """The best format of every kept activation, by its values on the calibration images (every n-th: `SAMPLES` numbers do)."""
    samples: dict[str, list[np.ndarray]] = {name: [] for name in kept}

    def watch(op: Op, value: np.ndarray) -> None:
        if op.name in samples:
            step = max(1, value.size * len(calibration) // len(value) // SAMPLES)
            samples[op.name].append(value.ravel()[::step])

    interpret(graph, calibration, watch)
    return {name: best_format(np.concatenate(values), bits) for name, values in samples.items()}


def _alignable(graph: Graph, chosen: Mapping[str, Fixed], most: int) -> dict[str, Fixed]:
    """The formats with the finer operand of a sum of two activations coarsened, until a weight of 2**`most` aligns the other to it."""
    formats = dict(chosen)
    for op in graph.ops:
        if op.kind == "ADD" and not biases(graph, op) and all(name in formats for name in op.args):
            coarsest = min(formats[name].frac for name in op.args)
            formats |= {name: replace(formats[name], frac=min(formats[name].frac, coarsest + most)) for name in op.args}
    return formats


def _with_rounds(graph: Graph, kept: list[str]) -> Graph:
    """The graph with a ROUND after every kept sum, read in its place."""
    names = {name: f"{name}.round" for name in kept if name != graph.input.name}
    ops: list[Op] = []
    for op in graph.ops:
        ops.append(replace(op, args=tuple(names.get(arg, arg) for arg in op.args)))
        if op.name in names:
            ops.append(Op(names[op.name], "ROUND", op.axes, (op.name,)))
    return Graph(tuple(ops), graph.size, graph.consts)


def _formats(graph: Graph, chosen: Mapping[str, Fixed], weight_bits: int) -> dict[str, Fixed]:
    """The format of every op: chosen where a number is kept, following from its operands elsewhere."""
    formats: dict[str, Fixed] = {}
    for op in graph.ops:
        added = biases(graph, op)
        fracs = [formats[name].frac for name in op.args if name not in added]
        match op.kind:
            case "INPUT":
                formats[op.name] = chosen[op.name]
            case "CONST":
                formats[op.name] = best_format(graph.consts[op.name], weight_bits)
            case "CONTRACT":
                formats[op.name] = Fixed(ACCUMULATOR_BITS, sum(fracs))
            case "ADD":
                formats[op.name] = Fixed(ACCUMULATOR_BITS, max(fracs))
                formats |= {name: formats[op.name] for name in added}
            case "ROUND":
                frac = max(min(chosen[op.args[0]].frac, fracs[0]), fracs[0] - 31)
                formats[op.name] = replace(chosen[op.args[0]], frac=frac)
            case _:
                formats[op.name] = formats[op.args[0]]
    return formats


def _shift(op: Op, formats: Mapping[str, Fixed]) -> int:
    """The bits that a ROUND drops."""
    return formats[op.args[0]].frac - formats[op.name].frac
