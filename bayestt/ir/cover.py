"""A step's work on a box of indices, covered by nests: one for each stretch of places that find the same taps, and for the last lanes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from bayestt.algebra.einsum import Axes
from bayestt.ir.border import runs
from bayestt.ir.graph import Window
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.place import Strides
from bayestt.ir.step import Step

Box = Mapping[str, range]
"""A range of every axis of a step, steps of 1."""


@dataclass(frozen=True)
class Place:
    """Where a stream's elements lie in a memory: the one with all indices 0, be it there or not, would lie at `address`."""

    address: int
    strides: Strides
    memory: str = "data"

    def at(self, box: Box) -> int:
        """The address of a box's first element."""
        return self.address + sum(box[axis].start * stride for axis, stride in self.strides.items())


def part_at(address: int, strides: Strides, box: Box) -> Place:
    """Where elements lie if those of a box begin at an address."""
    return Place(address - Place(0, strides).at(box), strides)


def cover(step: Step, box: Box, tile: Nest, streams: Mapping[str, Place], size: Mapping[str, int]) -> Iterator[Nest]:
    """The nests that together compute a box of a step's results, its operands and results lying where `streams` say."""
    windows = step.group.window
    read = {**streams, "x": _read(streams["x"], windows)}
    for stretches in product(*(runs(window, box[window.out], size) for window in windows)):
        places = {window.out: places for window, (places, _) in zip(windows, stretches, strict=True)}
        taps = {window.tap: taps for window, (_, taps) in zip(windows, stretches, strict=True)}
        yield from _nests(step, {**box, **places, **taps}, tile, read)


def _read(x: Place, windows: tuple[Window, ...]) -> Place:
    """Where an operand's elements lie as windows read them: by places and taps."""
    address, strides = x.address, {axis: stride for axis, stride in x.strides.items() if axis not in {window.axis for window in windows}}
    for window in windows:
        stride = x.strides[window.axis]
        address -= window.padding * stride
        strides |= {window.out: window.stride * stride, window.tap: window.dilation * stride}
    return Place(address, strides, x.memory)


def _nests(step: Step, box: Box, tile: Nest, streams: Mapping[str, Place]) -> Iterator[Nest]:
    """The nests of a box in which every place finds the same taps: more than one where axes do not fill whole lanes."""
    group = step.group
    bound = [axis for _, axes in [*step.lane, *step.reduce] for axis in axes]
    axes = list(dict.fromkeys(group.y_axes + group.read_axes + group.weight_axes))
    first = {stream: place.at(box) for stream, place in streams.items()}

    def loop_over(axis: str, extent: int, tiled: int = 1) -> Loop:
        """A loop over an axis, or over tiles along it: packed constants have a tile's stride already."""
        moves = {stream: place.strides.get(axis, 0) * (tiled if stream in "xy" else 1) for stream, place in streams.items()}
        return Loop(axis, extent, **moves)

    outer = [loop_over(axis, len(box[axis])) for axis in axes if axis in group.y_axes and axis not in bound and len(box[axis]) > 1]
    reduce = [loop_over(axis, len(box[axis])) for axis in axes if axis not in group.y_axes and axis not in bound]
    # Loops of the tile that are not full take zeros, of which the largest may not know.
    for loop, names in step.reduce if not group.maximum else ():
        reduce += [loop_over(names[-1], -(-_extent(names, box) // loop.extent), loop.extent)] if names else []
        reduce.append(replace(loop, axis=" ".join(names) or loop.axis))
    for parts in product(*(_parts(loop, _extent(names, box) if names else 0) for loop, names in step.lane)):
        lane, tiles, start = [], [], dict(first)
        for (loop, names), (skipped, count, extent) in zip(step.lane, parts, strict=True):
            y = streams["y"].strides[names[-1]] if names else 0
            lane.append(replace(loop, axis=" ".join(names) or loop.axis, extent=extent, y=y))
            over = loop_over(names[-1], count, loop.extent) if names else Loop(loop.axis, 1)
            tiles += [over] if count > 1 else []
            start = {stream: at + skipped * getattr(over, stream) for stream, at in start.items()}
        yield Nest(
            tuple(outer + tiles),
            tuple(reduce),
            tuple(lane),
            **start,
            shift=group.shift,
            relu=group.relu,
            bits=group.bits,
            acc_bits=tile.acc_bits,
            maximum=group.maximum,
            source=streams["x"].memory,
            target=streams["y"].memory,
            name=group.y,
        )


def _extent(axes: Axes, box: Box) -> int:
    """How many indices axes have together: a loop over several steps along the last, on into the next row of the one before."""
    return prod(len(box[axis]) for axis in axes)


def _parts(loop: Loop, extent: int) -> list[tuple[int, int, int]]:
    """How axes fill a lane loop: (tiles before, tiles, lanes in each) of the full tiles and of the rest; once where there is none."""
    if extent == 0:
        return [(0, 1, 1)]
    full, rest = divmod(extent, loop.extent)
    return ([(0, full, loop.extent)] if full else []) + ([(full, 1, rest)] if rest else [])
