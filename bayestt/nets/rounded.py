"""An integer graph as a network that learns on: the way from weights of few bits to better weights of few bits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, max_pool1d, pad

from bayestt.algebra.einsum import Axes, numbered
from bayestt.algebra.fixed import Fixed, dequantize
from bayestt.algebra.fixed import quantize as integers
from bayestt.ir.graph import Graph, Op, Window


class Rounded(nn.Module):
    """What an integer graph computes, as floats: images (n, ...) -> scores (n, classes), every number that it rounds rounded alike.

    Parameters are the graph's constants as they were in the float graph, `consts`, where they round to the same integers, and what these
    stand for elsewhere, as in biases that `quantize` has moved: so training begins with the integer graph's own scores, and moves constants
    from one integer to another. Gradients pass a rounding as if it were not there, and stop where it saturates (straight-through: Bengio,
    Léonard & Courville 2013; Hubara et al. 2016). In float64 the scores are exactly `interpret`'s; in float32, which holds integers to
    2**24, nearly always.
    """

    def __init__(self, graph: Graph, consts: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        if not graph.integer:
            raise ValueError("the graph computes in floats, expected integers: quantize it first")
        self.integer = graph
        self.names = [op.name for op in graph.ops if op.kind == "CONST"]
        if odd := [name for name in self.names if name in consts and consts[name].shape != graph.consts[name].shape]:
            raise ValueError(f"constants {odd} have arrays of another shape: give those of the float graph that was quantized")
        starts = (_start(graph.consts[name], graph[name].format, consts.get(name)) for name in self.names)
        self.constants = nn.ParameterList(torch.tensor(start, dtype=torch.get_default_dtype()) for start in starts)

    def forward(self, x: Tensor) -> Tensor:
        graph, values = self.integer, dict[str, Tensor]()
        constants = dict(zip(self.names, self.constants, strict=True))
        for op in graph.ops:
            values[op.name] = _value(graph, op, values, constants.get(op.name, x))
        return values[graph.output.name].reshape(len(x), -1)

    def graph(self) -> Graph:
        """The integer graph with the constants as they are now."""
        arrays = [constant.detach().cpu().double().numpy() for constant in self.constants]
        consts = {name: integers(array, self.integer[name].format) for name, array in zip(self.names, arrays, strict=True)}
        return replace(self.integer, consts=consts)


def _start(const: np.ndarray, format: Fixed, before: np.ndarray | None) -> np.ndarray:
    """What an integer constant starts from: the numbers before rounding where they become its integers."""
    exact = dequantize(const, format)
    return exact if before is None else np.where(integers(before, format) == const, before, exact)


def _value(graph: Graph, op: Op, values: Mapping[str, Tensor], given: Tensor) -> Tensor:
    """One op's value in the order of its axes; `given` is what an INPUT or a CONST gets from outside."""
    args, axes = [values[name] for name in op.args], [graph[name].axes for name in op.args]
    match op.kind:
        case "INPUT":
            return _round(given.reshape(len(given), *graph.shape(op.axes[1:])), op.format)
        case "CONST":
            return _round(given, op.format)
        case "CONTRACT" if op.window:
            return _convolved(graph, op, args, axes)
        case "CONTRACT":
            return torch.einsum(*numbered(args, axes, op.axes))
        case "MAX":
            return _largest(graph, op, args[0], axes[0])
        case "ADD":
            return sum(_arranged(arg, names, op.axes) for arg, names in zip(args, axes, strict=True))
        case "RELU":
            return _arranged(args[0], axes[0], op.axes).relu()
        case "ROUND":
            return _round(_arranged(args[0], axes[0], op.axes), op.format)
    return args[0].reshape(len(args[0]), *graph.shape(op.axes[1:]))


def nearest(values: Tensor, fixed: Fixed) -> Tensor:
    """The nearest integers of a format, halves up, saturated, as floats: `bayestt.algebra.fixed.quantize` in torch, without a gradient."""
    exact = values.detach() * 2.0**fixed.frac
    below = exact.floor()
    # Not floor(exact + 0.5): of the number just below a half, where training leaves many a weight, that sum is rounded up to 1.
    return (below + (exact - below >= 0.5)).clamp(fixed.low, fixed.high)


def _round(values: Tensor, fixed: Fixed) -> Tensor:
    """The nearest numbers of a format; their gradient is the values', where these are in its range."""
    step = 2.0**-fixed.frac
    within = values.clamp(fixed.low * step, fixed.high * step)
    return nearest(values, fixed) * step + (within - within.detach())


def _arranged(values: Tensor, axes: Axes, wanted: Axes) -> Tensor:
    """A tensor with its axes in another order, and one of size 1 for each that it lacks."""
    ordered = values.permute([axes.index(axis) for axis in wanted if axis in axes])
    return ordered[tuple(slice(None) if axis in axes else None for axis in wanted)]


def _convolved(graph: Graph, op: Op, args: Sequence[Tensor], axes: Sequence[Axes]) -> Tensor:
    """A contraction through windows as one of torch's convolutions; without a constant it is the sum over its taps."""
    operands = dict(zip(("kernel", "x")[-len(args) :], sorted(zip(axes, args, strict=True), key=lambda pair: "n" in pair[0]), strict=True))
    names, x = operands["x"]
    used, kernel = operands.get("kernel", ((), x.new_ones(())))
    places, taps, outs = (tuple(getattr(window, which) for window in op.window) for which in ("axis", "tap", "out"))
    shared = tuple(axis for axis in used if axis in names)
    summed, both = (tuple(axis for axis in shared if (axis in op.axes) == stays) for stays in (False, True))
    made = tuple(axis for axis in used if axis not in (*shared, *taps))
    apart = tuple(axis for axis in names if axis not in (*shared, *places))
    if not {*made, *apart} <= {*op.axes} or {*taps} & {*op.axes} or len(taps) > 2:
        raise ValueError(f"op {op.name!r} reads through its windows what no convolution of torch's can: give a graph that `trace` has made")
    order = (*both, *made, *summed, *taps)
    weight = _arranged(kernel, used, order).expand(graph.shape(order))
    grid = _padded(_arranged(x, names, (*apart, *both, *summed, *places)), op.window, graph, 0.0)
    groups, channels, extents = prod(graph.shape(both)), prod(graph.shape(summed)), grid.shape[-len(taps) :]
    y = (conv1d, conv2d)[len(taps) - 1](
        grid.reshape(-1, groups * channels, *extents),
        weight.reshape(-1, channels, *graph.shape(taps)),
        stride=[window.stride for window in op.window],
        dilation=[window.dilation for window in op.window],
        groups=groups,
    )
    kept = (*apart, *both, *made, *outs)
    return _arranged(y.reshape([len(x) if axis == "n" else graph.size[axis] for axis in kept]), kept, op.axes)


def _largest(graph: Graph, op: Op, x: Tensor, names: Axes) -> Tensor:
    """The largest over axes, through windows one axis at a time."""
    for window in op.window:
        others = tuple(axis for axis in names if axis != window.axis)
        grid = _padded(_arranged(x, names, (*others, window.axis)), (window,), graph, -torch.inf)
        pooled = max_pool1d(grid.reshape(-1, 1, grid.shape[-1]), graph.size[window.tap], window.stride, dilation=window.dilation)
        x, names = pooled.reshape(*grid.shape[:-1], -1), (*others, window.out)
    if gone := [k for k, axis in enumerate(names) if axis not in op.axes]:
        x, names = x.amax(gone), tuple(axis for axis in names if axis in op.axes)
    return _arranged(x, names, op.axes)


def _padded(grid: Tensor, windows: Sequence[Window], graph: Graph, nothing: float) -> Tensor:
    """A tensor, its last axes those of the windows, with `nothing` around it and no more at its end than they reach."""
    margins: list[int] = []
    for window in windows:
        reach = (graph.size[window.out] - 1) * window.stride + (graph.size[window.tap] - 1) * window.dilation + 1
        margins = [window.padding, reach - window.padding - graph.size[window.axis], *margins]
    return pad(grid, margins, value=nothing)
