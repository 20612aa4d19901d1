"""What a graph means: a plain numpy reader, op by op."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from tqdm import tqdm

from bayestt.algebra.einsum import Axes, einsum, spread
from bayestt.algebra.fixed import requantize, wrap
from bayestt.ir.contraction import contracted, seen
from bayestt.ir.graph import Graph, Op, inferring, verify, windowed

BATCH, ELEMENTS = 500, 1 << 21
"""Images interpreted at once and elements read of them, at most: enough to fill the vector units, few enough for a cache."""
EXACT_FLOAT32 = 1 << 24
"""The magnitude up to which float32 holds every integer."""
Tap = Callable[[Op, np.ndarray], np.ndarray]
"""Is shown every op and its value, and says the value to go on with."""


def interpret(graph: Graph, x: np.ndarray, tap: Tap | None = None) -> np.ndarray:
    """The scores (n, outputs) of images (n, ...), with a `tap` on every value where one is given.

    A float graph takes and gives float64. An integer graph takes the integers that `quantize(images, graph.input.format)` makes and gives
    int64. Its sums run in floats, many times faster than in int64: in float32 where no sum can leave 24 bits, else in float64, which holds
    integers exactly to 2**53: far beyond any accumulator.
    """
    _check(inferring(graph, "interpret"), x)
    arithmetic = _arithmetic(graph)
    return np.concatenate([_run(graph, arithmetic, {"INPUT": x[batch]}, tap)[graph.output.name] for batch in _batches(graph, x)])


def gradients(graph: Graph, x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What a training step makes of images (n, ...) and their classes (n,): scores (n, outputs), and the gradient of every constant.

    The loss whose gradient it is: the images' cross-entropies, natural logarithm, summed over all of them. All in float64.
    """
    if not verify(graph).trains:
        raise ValueError("the graph is no training step: differentiate it first")
    _check(graph, x)
    classes = prod(graph.shape(graph.output.axes[1:]))
    if labels.shape != x.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels of shape {labels.shape} ({labels.dtype}) for {len(x)} images: one integer each, from 0 to {classes - 1}")
    arithmetic, names = _arithmetic(graph), graph.gradients
    found = [_run(graph, arithmetic, {"INPUT": x[batch], "LABELS": labels[batch]}, None) for batch in _batches(graph, x)]
    return np.concatenate([each[graph.output.name] for each in found]), {
        const: sum(each[made] for each in found) for const, made in names.items()
    }


def _batches(graph: Graph, x: np.ndarray) -> Iterator[slice]:
    """Which images are interpreted together, in order."""
    batch = min(BATCH, max(1, ELEMENTS // max(_elements(graph, op) for op in graph.ops)))
    for start in tqdm(range(0, len(x), batch), desc="interpret", unit="batch", delay=3, leave=False):
        yield slice(start, start + batch)


def _check(graph: Graph, x: np.ndarray) -> None:
    """Refuse images that a graph can't take."""
    features = int(np.prod(graph.shape(graph.input.axes[1:])))
    if not len(x) or np.prod(x.shape[1:]) != features:
        sizes = ", ".join(f"{axis} {graph.size[axis]}" for axis in graph.input.axes[1:])
        raise ValueError(
            f"images of shape {x.shape}: the graph takes at least one, of {features} numbers each ({sizes}): "
            "give images like those for which the net was traced"
        )
    if graph.integer:
        low, high = graph.input.format.low, graph.input.format.high
        if not np.issubdtype(x.dtype, np.integer) or x.min() < low or x.max() > high:
            raise ValueError(
                f"an integer graph takes integers from {low} to {high}, not {x.dtype} from {x.min()} to {x.max()}: "
                "use quantize(images, graph.input.format)"
            )


def value(graph: Graph, op: Op, args: Sequence[np.ndarray], kind: type = np.float64) -> np.ndarray:
    """An op's value, given its operands', in the order of its axes: as floats of this kind, before it wraps."""
    axes = [graph[name].axes for name in op.args]
    match op.kind:
        case "CONTRACT":
            return _contracted(graph, op, [arg.astype(kind, copy=False) for arg in args], axes)
        case "MAX":
            found, read = seen(args[0], axes[0], op.window, graph.size, -np.inf)
            kept = tuple(axis for axis in read if axis in op.axes)
            return einsum([found.max(tuple(k for k, axis in enumerate(read) if axis not in op.axes))], [kept], op.axes)
        case "ADD":
            return sum(_aligned(graph, op, name, arg.astype(kind, copy=False)) for name, arg in zip(op.args, args, strict=True))
        case "RELU":
            return np.maximum(einsum(args, axes, op.axes), 0)
        case "ROUND":
            return requantize(einsum(args, axes, op.axes), op.shift, op.format.bits).astype(kind)
        case "VIEW":
            return args[0].reshape(len(args[0]), *graph.shape(op.axes[1:]))
        case "ERROR":
            return _error(*args)
        case "MASK":
            gradient, activation = (spread(arg, names, op.axes) for arg, names in zip(args, axes, strict=True))
            return np.where(activation > 0, gradient, 0)
    raise ValueError(f"op {op.name!r} ({op.kind}) is given, not computed")


def _elements(graph: Graph, op: Op) -> int:
    """Elements that an op reads of one image."""
    return max((prod(graph.shape(windowed(op, graph[name].axes)[1:])) for name in op.args if "n" in graph[name].axes), default=1)


@dataclass(frozen=True)
class _Arithmetic:
    """The float in which each value is computed, the sums that may wrap, and the constants as such floats."""

    kinds: Mapping[str, type]
    wraps: Collection[str]
    consts: Mapping[str, np.ndarray]


def _arithmetic(graph: Graph) -> _Arithmetic:
    """The smallest float for each value that holds every integer that it, or a part of its sum, can be; float64 in a float graph."""
    largest: dict[str, int] = {}
    kinds, wraps = dict.fromkeys((op.name for op in graph.ops), np.float64), set()
    for op in graph.ops if graph.integer else ():
        found = _largest(graph, op, largest)
        kinds[op.name] = np.float32 if found <= EXACT_FLOAT32 else np.float64
        wraps |= {op.name} if op.kind in ("CONTRACT", "ADD") and found > op.format.high else set()
        largest[op.name] = min(found, -op.format.low)
    return _Arithmetic(kinds, wraps, {name: const.astype(kinds[name]) for name, const in graph.consts.items()})


def _largest(graph: Graph, op: Op, largest: dict[str, int]) -> int:
    """The largest magnitude that any partial sum of an op can have, before it wraps."""
    match op.kind:
        case "CONST":
            return max(-int(graph.consts[op.name].min()), int(graph.consts[op.name].max()))
        case "CONTRACT":
            (name, *constants) = sorted(op.args, key=lambda name: "n" not in graph[name].axes)
            weights, axes = (graph.consts[constants[0]], graph[constants[0]].axes) if constants else (np.ones(()), ())
            weights = np.abs(weights.astype(np.int64))
            most = int(weights.sum(tuple(k for k, axis in enumerate(axes) if axis not in op.axes)).max())
            alone = prod(graph.shape(tuple(axis for axis in windowed(op, graph[name].axes) if axis not in (*op.axes, *axes))))
            return largest[name] * most * alone
        case "ADD":
            return sum(largest[name] << (op.format.frac - graph[name].format.frac) for name in op.args)
        case "INPUT" | "ROUND":
            return -op.format.low
    return largest[op.args[0]]


def _run(graph: Graph, arithmetic: _Arithmetic, given: Mapping[str, np.ndarray], tap: Tap | None) -> dict[str, np.ndarray]:
    """The results of one batch by name, the scores (n, outputs); any other value is forgotten once nobody reads it any more.

    `given` are the images, as INPUT, and in a training step their classes, as LABELS.
    """
    values: dict[str, np.ndarray] = {}
    results = {graph.output.name, *graph.gradients.values()}
    last = {name: op.name for op in graph.ops for name in op.args if name not in results}
    for op in graph.ops:
        kind = arithmetic.kinds[op.name]
        match op.kind:
            case "INPUT":
                found = given["INPUT"].astype(kind).reshape(len(given["INPUT"]), *graph.shape(op.axes[1:]))
            case "LABELS":
                found = given["LABELS"]
            case "CONST":
                found = arithmetic.consts[op.name]
            case _:
                found = value(graph, op, [values[name] for name in op.args], kind)
        if op.name in arithmetic.wraps:
            found = wrap(found, op.format.bits).astype(kind)
        values[op.name] = tap(op, found) if tap else found
        for name in {*op.args}:
            if last.get(name) == op.name:
                del values[name]
    scores = values[graph.output.name].reshape(len(given["INPUT"]), -1)
    return {name: values[name] for name in results} | {graph.output.name: scores.astype(np.int64) if graph.integer else scores}


def _error(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """softmax(scores) - one-hot(labels); classes are counted along the scores' axes, the last one fastest."""
    flat = scores.reshape(len(scores), -1)
    odds = np.exp(flat - flat.max(1, keepdims=True))
    return (odds / odds.sum(1, keepdims=True) - np.eye(flat.shape[1])[labels]).reshape(scores.shape)


def _contracted(graph: Graph, op: Op, args: list[np.ndarray], axes: list[Axes]) -> np.ndarray:
    """A CONTRACT's value, before it wraps."""
    pairs = [seen(*pair, op.window, graph.size, 0) if "n" in pair[1] else pair for pair in zip(args, axes, strict=True)]
    pairs.sort(key=lambda pair: "n" not in pair[1])
    if len(pairs) == 2:
        return contracted(*pairs[0], *pairs[1], op.axes)
    return einsum([value for value, _ in pairs], [read for _, read in pairs], op.axes)


def _aligned(graph: Graph, op: Op, name: str, value: np.ndarray) -> np.ndarray:
    """An ADD's operand in the result's axes and fraction."""
    if graph.integer:
        value = value * value.dtype.type(2.0 ** (op.format.frac - graph[name].format.frac))
    return spread(value, graph[name].axes, op.axes)
