"""What torch's layers and functions are as operations of a Graph."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from bayestt.algebra.einsum import Axes
from bayestt.algebra.factorization import Factorization
from bayestt.ir.graph import Op, Window

IMAGE_AXES: dict[int, Axes] = {1: ("x",), 2: ("h", "w"), 3: ("c", "h", "w")}
Pair = int | Sequence[int]
"""What torch takes for rows and columns: one number for both, or two."""


@dataclass(frozen=True)
class Value:
    """A tensor in a forward: the op that computes it, and torch's shape of an image, which the op's axes make up in row-major order."""

    op: Op
    shape: tuple[int, ...]


@dataclass
class Sheet:
    """What has been drawn of a graph so far; ops are added one at a time."""

    ops: list[Op] = field(default_factory=list)
    size: dict[str, int] = field(default_factory=dict)
    consts: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, name: str, kind: str, axes: Axes, *args: str, window: Sequence[Window] = ()) -> Op:
        """Add an op, whose axes have sizes already."""
        self.ops.append(Op(name, kind, axes, args, window=tuple(window)))
        return self.ops[-1]

    def constant(self, name: str, axes: Axes, array: Tensor | np.ndarray | float) -> str:
        """Add a constant, which gives new axes their sizes; its name."""
        found = array.detach().cpu().double().numpy() if isinstance(array, Tensor) else np.asarray(array, np.float64)
        if not {*axes} <= {*self.size}:
            self.size |= zip(axes, found.shape, strict=True)
        self.consts[name] = found.reshape([self.size[axis] for axis in axes])
        return self.add(name, "CONST", axes).name

    def view(self, name: str, x: Value, axes: Axes) -> Op:
        """Add a view of x with one axis for each of its dimensions."""
        self.size |= zip(axes, x.shape, strict=True)
        return self.add(name, "VIEW", ("n", *axes), x.op.name)

    def dimensions(self, name: str, x: Value, whole: bool = False) -> tuple[Op, list[Axes]]:
        """An op with x's elements, and the axes that make up each dimension of its shape: one axis alone where `whole`."""
        axes, found = list(x.op.axes[1:]), []
        for extent in x.shape:
            taken: list[str] = []
            while axes and (not taken or prod(self.size[axis] for axis in taken) < extent):
                taken.append(axes.pop(0))
            found.append(tuple(taken))
        if not axes and all(
            taken and prod(self.size[axis] for axis in taken) == extent and not (whole and len(taken) > 1)
            for taken, extent in zip(found, x.shape, strict=True)
        ):
            return x.op, found
        fresh = tuple(f"{name}.x.{axis}" for axis in IMAGE_AXES[len(x.shape)])
        return self.view(f"{name}.x", x, fresh), [(axis,) for axis in fresh]


def rectified(sheet: Sheet, name: str, x: Value) -> Value:
    """max(x, 0)."""
    return Value(sheet.add(name, "RELU", x.op.axes, x.op.name), x.shape)


def added(sheet: Sheet, name: str, x: Value, y: Value) -> Value:
    """x + y, of one shape."""
    if x.shape != y.shape:
        raise ValueError(f"adds images of shapes {x.shape} and {y.shape}: make them equal, nothing is repeated here")
    args = [x.op, y.op]
    if x.op.axes != y.op.axes:
        fresh = tuple(f"{name}.{axis}" for axis in IMAGE_AXES[len(x.shape)])
        args = [sheet.view(f"{name}.x{k}", each, fresh) for k, each in enumerate((x, y))]
    return Value(sheet.add(name, "ADD", args[0].axes, *(arg.name for arg in args)), x.shape)


def linear(sheet: Sheet, name: str, x: Value, form: Factorization, cores: Sequence[Tensor], bias: Tensor | None) -> Value:
    """A linear layer as the contraction with all cores of its weight."""
    own = _own(sheet, name, form, cores)
    if x.shape != (form.shape[1],):
        raise ValueError(f"multiplies {form.shape[1]} features, and its images have shape {x.shape}: flatten them to (n, {form.shape[1]})")
    view = sheet.add(f"{name}.x", "VIEW", ("n", *own.cols), x.op.name)
    return _contracted(sheet, name, view, own, (), bias)


def convolved(
    sheet: Sheet, name: str, x: Value, form: Factorization, cores: Sequence[Tensor], bias: Tensor | None, layer: nn.Module
) -> Value:
    """A convolution as the contraction with all cores of its kernel, whose taps are kh and kw; `layer` has the settings of nn.Conv2d."""
    if layer.groups != 1 or layer.padding_mode != "zeros":
        raise ValueError(f"has groups={layer.groups} and padding_mode={layer.padding_mode!r}: a Graph takes groups=1 and 'zeros'")
    own = _own(sheet, name, form, cores)
    channels = prod(sheet.size[axis] for axis in own.cols)
    if len(x.shape) != 3 or x.shape[0] != channels:
        raise ValueError(f"convolves {channels} channels, and its images have shape {x.shape}: give (n, {channels}, h, w)")
    sides = (f"{name}.x.h", f"{name}.x.w")
    sheet.size |= zip(sides, x.shape[1:], strict=True)
    view = sheet.add(f"{name}.x", "VIEW", ("n", *own.cols, *sides), x.op.name)
    window = _windows(sheet, name, sides, (form.size["kh"], form.size["kw"]), layer.stride, layer.padding, layer.dilation)
    return _contracted(sheet, name, view, own, window, bias)


def normalized(sheet: Sheet, name: str, x: Value, layer: nn.Module) -> Value:
    """Batch-norm with its running statistics: a scale and a bias for each channel."""
    if layer.running_mean is None:
        raise ValueError("keeps no running statistics: batch-norm is traced in eval mode, build it with track_running_stats=True")
    if x.shape[0] != layer.num_features:
        raise ValueError(f"normalizes {layer.num_features} channels, and its images have shape {x.shape}")
    op, (channel, *_) = sheet.dimensions(name, x)
    scale = 1 / torch.sqrt(layer.running_var.double() + layer.eps) * (1 if layer.weight is None else layer.weight)
    bias = (0 if layer.bias is None else layer.bias) - layer.running_mean * scale
    scaled = sheet.add(f"{name}.scaled", "CONTRACT", op.axes, op.name, sheet.constant(f"{name}.scale", channel, scale))
    return Value(sheet.add(name, "ADD", op.axes, scaled.name, sheet.constant(f"{name}.bias", channel, bias)), x.shape)


def pooled(sheet: Sheet, name: str, x: Value, kind: str, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = 1) -> Value:
    """The largest (MAX) or the mean (CONTRACT) of every window of rows and columns."""
    if len(x.shape) != 3:
        raise ValueError(f"pools images (n, c, h, w), and these have shape {x.shape}")
    op, ((channel,), *sides) = sheet.dimensions(name, x, whole=True)
    made = _windows(sheet, name, [side for (side,) in sides], kernel, stride, padding, dilation)
    outs = tuple(window.out for window in made)
    constants = []
    if kind == "CONTRACT":
        constants = [sheet.constant(f"{name}.share", (), 1 / prod(sheet.size[window.tap] for window in made))]
    y = sheet.add(name, kind, ("n", channel, *outs), op.name, *constants, window=made)
    return Value(y, (x.shape[0], *(sheet.size[out] for out in outs)))


def mean(sheet: Sheet, name: str, x: Value, dims: Sequence[int], keep: bool) -> Value:
    """The mean over dimensions of an image, counted from 0 without the batch; they stay with one element where `keep`."""
    op, axes = sheet.dimensions(name, x)
    kept = tuple(axis for k, names in enumerate(axes) if k not in dims for axis in names)
    share = sheet.constant(f"{name}.share", (), 1 / prod(x.shape[k] for k in dims))
    shape = tuple(1 if k in dims else extent for k, extent in enumerate(x.shape) if keep or k not in dims)
    return Value(sheet.add(name, "CONTRACT", ("n", *kept), op.name, share), shape)


def sliced(sheet: Sheet, name: str, x: Value, slices: Sequence[slice]) -> Value:
    """x[:, slices]: every step of each slice, from the first element on, is what a window with one tap finds."""
    op, axes = sheet.dimensions(name, x, whole=True)
    made, out, shape = [], [], []
    for (axis,), side, part in zip(axes, IMAGE_AXES[len(x.shape)], [*slices, *[slice(None)] * (len(x.shape) - len(slices))], strict=True):
        places = range(*part.indices(sheet.size[axis]))
        if places[:1] != range(1) or places.step < 1:
            raise ValueError(f"takes [{part.start}:{part.stop}:{part.step}] of {side}: a Graph's slices begin with the first element")
        if len(places) < sheet.size[axis]:
            made.append(Window(axis, f"{name}.{side}", f"{name}.k{side}", places.step))
            sheet.size |= {made[-1].out: len(places), made[-1].tap: 1}
        out.append(axis if len(places) == sheet.size[axis] else made[-1].out)
        shape.append(len(places))
    return Value(sheet.add(name, "CONTRACT", ("n", *out), op.name, window=made), tuple(shape))


def padded(sheet: Sheet, name: str, x: Value, pads: Sequence[tuple[int, int]]) -> Value:
    """x with so many zeros before and after each dimension, or with as many elements less: what ones in a constant pick."""
    op, axes = sheet.dimensions(name, x, whole=True)
    out, constants, shape = [], [], []
    for (axis,), side, (before, after) in zip(axes, IMAGE_AXES[len(x.shape)], pads, strict=True):
        extent = sheet.size[axis]
        out.append(f"{name}.{side}" if before or after else axis)
        shape.append(extent + before + after)
        if before or after:
            picks = np.eye(extent + before + after, extent, -before)
            constants.append(sheet.constant(f"{name}.picks_{side}", (out[-1], axis), picks))
    return Value(sheet.add(name, "CONTRACT", ("n", *out), op.name, *constants), tuple(shape))


def pair(setting: Pair) -> tuple[int, int]:
    """A setting for rows and for columns."""
    return (setting, setting) if isinstance(setting, int) else tuple(setting) * (3 - len(setting))


@dataclass(frozen=True)
class _Own:
    """A layer's own axes and the names of its constants."""

    rows: Axes
    cols: Axes
    constants: tuple[str, ...]


def _own(sheet: Sheet, name: str, form: Factorization, cores: Sequence[Tensor]) -> _Own:
    """A layer's cores as constants over axes that bear its name."""

    def own(axes: Axes) -> Axes:
        return tuple(f"{name}.{axis}" for axis in axes)

    constants = [sheet.constant(f"{name}.core{k}", own(axes), core) for k, (core, axes) in enumerate(zip(cores, form.cores, strict=True))]
    rows, cols = (own(tuple(axis for axis in axes if axis not in ("kh", "kw"))) for axes in (form.rows, form.cols))
    return _Own(rows, cols, tuple(constants))


def _contracted(sheet: Sheet, name: str, view: Op, own: _Own, window: Sequence[Window], bias: Tensor | None) -> Value:
    """The contraction of a view with a layer's constants, and the bias of its rows."""
    outs = tuple(each.out for each in window)
    product = name if bias is None else f"{name}.product"
    y = sheet.add(product, "CONTRACT", ("n", *own.rows, *outs), view.name, *own.constants, window=window)
    if bias is not None:
        y = sheet.add(name, "ADD", y.axes, product, sheet.constant(f"{name}.bias", own.rows, bias))
    return Value(y, (prod(sheet.size[axis] for axis in own.rows), *(sheet.size[axis] for axis in outs)))


def _windows(
    sheet: Sheet, name: str, axes: Sequence[str], kernel: Pair, stride: Pair, padding: Pair | str, dilation: Pair
) -> tuple[Window, ...]:
    """Windows over rows and columns, as torch's settings say; the sizes of their axes are added."""
    made = []
    paddings = pair(0 if isinstance(padding, str) else padding)
    settings = zip(axes, "hw", pair(kernel), pair(stride), paddings, pair(dilation), strict=True)
    for axis, side, taps, step, before, spread in settings:
        extent, reach = sheet.size[axis], spread * (taps - 1) + 1
        before, around = (reach - 1) // 2 if padding == "same" else before, reach - 1 if padding == "same" else 2 * before
        if extent + around < reach:
            raise ValueError(f"has a window {reach} long over {side}, where its images have {extent} elements and {around} of padding")
        window = Window(axis, f"{name}.{side}", f"{name}.k{side}", step, spread, before)
        sheet.size |= {window.out: (extent + around - reach) // step + 1, window.tap: taps}
        made.append(window)
    return tuple(made)
