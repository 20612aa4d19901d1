"""Constants in the order in which a machine reads them: one word after another."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from bayestt.algebra.einsum import Axes
from bayestt.ir.nest import Loop

Bound = Sequence[tuple[Loop, str | None]]
"""The loops of a tile, each with the axis it runs over in an operation, None where it runs once."""


def pack(array: np.ndarray, axes: Axes, bound: Bound, stream: str, size: Mapping[str, int]) -> tuple[np.ndarray, dict[str, int]]:
    """A constant as words of what a tile reads of it at once: flat int64 array, and the stride of every axis, a bound one's being a tile's.

    `stream` is `w` or `init`: loops of the tile with a stride there make up the word. Tiles that reach past the end of an axis, and loops
    that run once, are filled up with zeros; an axis that the constant lacks is repeated.
    """
    inner = sorted(((loop, axis) for loop, axis in bound if getattr(loop, stream)), key=lambda pair: -getattr(pair[0], stream))
    free = [axis for axis in axes if axis not in [name for _, name in inner]]
    names, grid = list(axes), np.asarray(array, np.int64)
    for loop, axis in inner:
        grid, names = _tiled(grid, names, loop.extent, axis, size.get(axis, 1), f"{loop.axis}'")
    tiles = [axis or f"{loop.axis}?" for loop, axis in inner]
    order = [*free, *tiles, *(f"{loop.axis}'" for loop, _ in inner)]
    grid = grid.transpose([names.index(name) for name in order])
    strides = dict(zip(order, (int(np.prod(grid.shape[k + 1 :])) for k in range(grid.ndim)), strict=True))
    if wrong := [loop.axis for loop, _ in inner if strides[f"{loop.axis}'"] != getattr(loop, stream)]:
        raise ValueError(f"the tile's strides of {stream} over {wrong} do not fill a word without gaps")
    return grid.ravel(), {axis: strides[axis] for axis in [*free, *(axis for _, axis in inner if axis)]}


def packed_length(axes: Axes, bound: Bound, stream: str, size: Mapping[str, int]) -> int:
    """How many elements `pack` makes of a constant."""
    inner = [(loop, axis) for loop, axis in bound if getattr(loop, stream)]
    free = prod(size[axis] for axis in axes if axis not in [name for _, name in inner])
    return free * prod(-(-size.get(axis, 1) // loop.extent) * loop.extent for loop, axis in inner)


def _tiled(grid: np.ndarray, names: list[str], extent: int, axis: str | None, length: int, inside: str) -> tuple[np.ndarray, list[str]]:
    """The array with an axis split into (tiles, `inside`), or with both added where it lacks the axis."""
    if axis not in names:
        grid = np.repeat(grid[..., None], length, axis=-1)
        names = [*names, axis or f"{inside[:-1]}?"]
    at = len(names) - 1 if axis is None else names.index(axis)
    tiles = -(-length // extent)
    grid = np.pad(grid, [(0, tiles * extent - length if k == at else 0) for k in range(grid.ndim)])
    grid = grid.reshape(*grid.shape[:at], tiles, extent, *grid.shape[at + 1 :])
    return grid, [*names[: at + 1], inside, *names[at + 1 :]]
