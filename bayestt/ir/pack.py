"""Constants in the order in which a machine reads them: one word after another."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from bayestt.algebra.einsum import Axes
from bayestt.ir.nest import Loop
from bayestt.ir.place import Strides

Bound = Sequence[tuple[Loop, Axes]]
"""The loops of a tile, each with the axes it runs over in an operation: several as one, row-major; none where it runs once."""


def pack(array: np.ndarray, axes: Axes, bound: Bound, stream: str, size: Mapping[str, int]) -> tuple[np.ndarray, Strides]:
    """A constant as words of what a tile reads of it at once: flat int64 array, and its `packed_strides`.

    `stream` is `w` or `init`: loops of the tile with a stride there make up the word. Tiles that reach past the end of a loop's axes, and
    loops that run once, are filled up with zeros; an axis that the constant lacks is repeated.
    """
    inner = _inner(bound, stream)
    inside = [axis for _, names in inner for axis in names]
    free = [axis for axis in axes if axis not in inside]
    grid, names = np.asarray(array, np.int64), list(axes)
    for axis in (axis for axis in inside if axis not in axes):
        grid, names = np.repeat(grid[..., None], size[axis], axis=-1), [*names, axis]
    grid = grid.transpose([names.index(axis) for axis in (*free, *inside)])
    extents, count = [prod(size[axis] for axis in over) for _, over in inner], len(free)
    tiles = [-(-extent // loop.extent) for extent, (loop, _) in zip(extents, inner, strict=True)]
    shape = [*grid.shape[:count], *(tiled * loop.extent for tiled, (loop, _) in zip(tiles, inner, strict=True))]
    filled = np.zeros(shape, np.int64)
    filled[tuple(slice(extent) for extent in (*grid.shape[:count], *extents))] = grid.reshape([*grid.shape[:count], *extents])
    split = [part for tiled, (loop, _) in zip(tiles, inner, strict=True) for part in (tiled, loop.extent)]
    filled = filled.reshape([*shape[:count], *split])
    order = [*range(count), *range(count, filled.ndim, 2), *range(count + 1, filled.ndim, 2)]
    words = [prod(loop.extent for loop, _ in inner[k + 1 :]) for k in range(len(inner))]
    if wrong := [loop.axis for (loop, _), stride in zip(inner, words, strict=True) if stride != getattr(loop, stream)]:
        raise ValueError(f"the tile's strides of {stream} over {wrong} do not fill a word without gaps")
    return filled.transpose(order).ravel(), packed_strides(axes, bound, stream, size)


def packed_strides(axes: Axes, bound: Bound, stream: str, size: Mapping[str, int]) -> Strides:
    """How far apart a packed constant's elements are along every axis; along a loop's last axis, its tiles."""
    inner = _inner(bound, stream)
    inside = [axis for _, names in inner for axis in names]
    filled = prod(loop.extent for loop, _ in inner)
    strides: Strides = {}
    for loop, names in reversed(inner):
        if names:
            strides[names[-1]] = filled
            filled *= -(-prod(size[axis] for axis in names) // loop.extent)
    for axis in reversed([axis for axis in axes if axis not in inside]):
        strides[axis] = filled
        filled *= size[axis]
    return strides


def packed_length(axes: Axes, bound: Bound, stream: str, size: Mapping[str, int]) -> int:
    """How many elements `pack` makes of a constant."""
    inner = _inner(bound, stream)
    free = {*axes}.difference(*(names for _, names in inner))
    tiled = (-(-prod(size[axis] for axis in names) // loop.extent) * loop.extent for loop, names in inner)
    return prod(size[axis] for axis in free) * prod(tiled)


def _inner(bound: Bound, stream: str) -> list[tuple[Loop, Axes]]:
    """The loops that make up a word, the one that runs slowest in it first."""
    return sorted(((loop, names) for loop, names in bound if getattr(loop, stream)), key=lambda pair: -getattr(pair[0], stream))
