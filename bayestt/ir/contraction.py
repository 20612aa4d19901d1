"""Contractions through windows as matrix products: what makes `interpret` fast."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from bayestt.algebra.einsum import Axes, einsum, numbered
from bayestt.ir.graph import Window


def seen(value: np.ndarray, axes: Axes, windows: Sequence[Window], size: Mapping[str, int], nothing: float) -> tuple[np.ndarray, Axes]:
    """An activation as an op reads it through its windows, with `nothing` where they find none, and its axes: a view, not to be written.

    What lies beside an element in memory still does, so that a matrix product finds channels together where there are many.
    """
    reach = {each.axis: (size[each.out] - 1) * each.stride + (size[each.tap] - 1) * each.dilation + 1 for each in windows}
    before = {each.axis: each.padding for each in windows}
    around = [(before.get(axis, 0), max(0, reach.get(axis, 0) - before.get(axis, 0) - value.shape[k])) for k, axis in enumerate(axes)]
    value = _padded(value, around, nothing)
    through = {each.axis: each for each in windows}
    shape, strides, names = [], [], []
    for axis, extent, stride in zip(axes, value.shape, value.strides, strict=True):
        if each := through.get(axis):
            shape += [size[each.out], size[each.tap]]
            strides += [stride * each.stride, stride * each.dilation]
            names += [each.out, each.tap]
        else:
            shape, strides, names = [*shape, extent], [*strides, stride], [*names, axis]
    return as_strided(value, shape, strides, writeable=False), tuple(names)


def _padded(value: np.ndarray, around: Sequence[tuple[int, int]], nothing: float) -> np.ndarray:
    """An array with so many elements before and after it along each axis, in the same order in memory."""
    if not any(map(any, around)):
        return value
    order = np.argsort([-stride for stride in value.strides], kind="stable")
    shape = [before + extent + after for extent, (before, after) in zip(value.shape, around, strict=True)]
    padded = np.full([shape[k] for k in order], nothing, value.dtype).transpose(np.argsort(order))
    padded[tuple(slice(before, before + extent) for extent, (before, _) in zip(value.shape, around, strict=True))] = value
    return padded


def contracted(x: np.ndarray, x_axes: Axes, w: np.ndarray, w_axes: Axes, out: Axes) -> np.ndarray:
    """The einsum of an activation and a constant, as one matrix product for each index of the axes that both have and the result keeps.

    The result lies in memory with the constant's axes innermost.
    """
    summed = [axis for axis in x_axes if axis in w_axes and axis not in out]
    free = [axis for axis in w_axes if axis in out and axis not in x_axes]
    if not summed or not free:
        return np.einsum(*numbered([x, w], [x_axes, w_axes], out))
    stride = dict(zip(x_axes, x.strides, strict=True))
    both = [axis for axis in x_axes if axis in w_axes and axis in out]
    rows = sorted((axis for axis in x_axes if axis in out and axis not in w_axes), key=stride.__getitem__, reverse=True)
    summed.sort(key=stride.__getitem__, reverse=True)
    left = einsum([x], [x_axes], (*both, *rows, *summed))
    right = einsum([w], [w_axes], (*both, *summed, *free))
    count = len(both)
    product = left.reshape(*left.shape[:count], -1, int(np.prod(left.shape[count + len(rows) :]))) @ right.reshape(
        *right.shape[:count], -1, int(np.prod(right.shape[count + len(summed) :]))
    )
    shape = (*left.shape[: count + len(rows)], *right.shape[count + len(summed) :])
    return einsum([product.reshape(shape)], [(*both, *rows, *free)], out)
