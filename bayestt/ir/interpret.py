"""What a graph means: a plain numpy reader, op by op."""

from collections.abc import Callable

import numpy as np
from tqdm import tqdm

from bayestt.algebra.einsum import Axes, einsum, spread
from bayestt.algebra.fixed import requantize, wrap
from bayestt.ir.graph import Graph, Op, windowed

BATCH = 500
"""Images interpreted at once: enough to fill the vector units, few enough to stay in a few hundred megabytes."""


Tap = Callable[[Op, np.ndarray], np.ndarray]
"""Is shown every op and its value, and says the value to go on with."""


def interpret(graph: Graph, x: np.ndarray, tap: Tap | None = None) -> np.ndarray:
    """The scores (n, outputs) of images (n, ...), with a `tap` on every value where one is given.

    A float graph takes and gives float64. An integer graph takes the integers that `quantize(images, graph.input.format)` makes and gives
    int64. Its sums run in float64, which holds integers exactly to 2**53: far beyond any accumulator, and 16 times faster than int64.
    """
    _check(graph, x)
    starts = tqdm(range(0, len(x), BATCH), desc="interpret", unit="batch", delay=3, leave=False)
    return np.concatenate([_run(graph, x[start : start + BATCH], tap) for start in starts])


def _check(graph: Graph, x: np.ndarray) -> None:
    """Refuse images that a graph can't take."""
    features = int(np.prod(graph.shape(graph.input.axes[1:])))
    if not len(x) or np.prod(x.shape[1:]) != features:
        raise ValueError(f"images of shape {x.shape}: the graph takes at least one, of {features} numbers each")
    if graph.integer:
        low, high = graph.input.format.low, graph.input.format.high
        if not np.issubdtype(x.dtype, np.integer) or x.min() < low or x.max() > high:
            raise ValueError(
                f"an integer graph takes integers from {low} to {high}, not {x.dtype} from {x.min()} to {x.max()}: "
                "use quantize(images, graph.input.format)"
            )


def _run(graph: Graph, x: np.ndarray, tap: Tap | None) -> np.ndarray:
    """The scores of one batch."""
    values: dict[str, np.ndarray] = {}
    for op in graph.ops:
        value = _value(graph, op, values, x)
        values[op.name] = tap(op, value) if tap else value
    scores = values[graph.output.name].reshape(len(x), -1)
    return scores.astype(np.int64) if graph.integer else scores


def _value(graph: Graph, op: Op, values: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """One op's value, float64, in the order of its axes."""
    args = [values[name] for name in op.args]
    axes = [graph[name].axes for name in op.args]
    match op.kind:
        case "INPUT":
            return x.astype(np.float64).reshape(len(x), *graph.shape(op.axes[1:]))
        case "CONST":
            return graph.consts[op.name].astype(np.float64)
        case "CONTRACT":
            read = [windowed(op, names) for names in axes]
            value = einsum([_seen(graph, op, *pair, 0.0) for pair in zip(args, axes, strict=True)], read, op.axes)
        case "MAX":
            read = windowed(op, axes[0])
            largest = _seen(graph, op, args[0], axes[0], -np.inf).max(tuple(k for k, axis in enumerate(read) if axis not in op.axes))
            return einsum([largest], [tuple(axis for axis in read if axis in op.axes)], op.axes)
        case "ADD":
            value = sum(_aligned(graph, op, name, values[name]) for name in op.args)
        case "RELU":
            return np.maximum(einsum(args, axes, op.axes), 0)
        case "ROUND":
            return requantize(einsum(args, axes, op.axes), op.shift, op.format.bits).astype(np.float64)
        case "VIEW":
            return args[0].reshape(len(x), *graph.shape(op.axes[1:]))
    return wrap(value, op.format.bits).astype(np.float64) if graph.integer else value


def _seen(graph: Graph, op: Op, value: np.ndarray, axes: Axes, nothing: float) -> np.ndarray:
    """An operand as an op reads it: through its windows, with `nothing` where they find none."""
    for window in op.window:
        if window.axis in axes:
            at = axes.index(window.axis)
            extent = graph.size[window.axis]
            outs, taps = (np.arange(graph.size[axis]) for axis in (window.out, window.tap))
            places = outs[:, None] * window.stride + taps * window.dilation - window.padding
            there = ((places >= 0) & (places < extent)).reshape(*places.shape, *[1] * (value.ndim - at - 1))
            value = np.where(there, value.take(places.clip(0, extent - 1), axis=at), nothing)
            axes = (*axes[:at], window.out, window.tap, *axes[at + 1 :])
    return value


def _aligned(graph: Graph, op: Op, name: str, value: np.ndarray) -> np.ndarray:
    """An ADD's operand in the result's axes and fraction."""
    if graph.integer:
        value = value * 2.0 ** (op.format.frac - graph[name].format.frac)
    return spread(value, graph[name].axes, op.axes)
