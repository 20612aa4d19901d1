"""A step's work cut into boxes: parts of constants that fit their memories, strips of external tensors that fit the data memory."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

from bayestt.algebra.einsum import Axes
from bayestt.ir.border import seen
from bayestt.ir.cover import Box
from bayestt.ir.nest import Nest
from bayestt.ir.pack import packed_length
from bayestt.ir.place import Strides, arrange, length, squeeze
from bayestt.ir.room import Room
from bayestt.ir.step import Step
from bayestt.ir.steps import Tensor

Blocks = dict[str, int]
"""How many indices of every axis that may be cut a box has at most."""


@dataclass(frozen=True)
class Buffer:
    """Where the part of an external tensor that a box needs lies in the data memory."""

    address: int
    strides: Strides
    length: int


@dataclass(frozen=True)
class Cut:
    """The boxes of a step's work in order, and a buffer for each of its tensors that lies in external memory."""

    boxes: tuple[Box, ...]
    buffers: Mapping[str, Buffer]


@dataclass(frozen=True)
class Work:
    """A step to be cut, with what decides how: its tensors and which of them lie `outside`, in external memory."""

    step: Step
    tensors: Mapping[str, Tensor]
    outside: tuple[str, ...]
    tile: Nest
    size: Mapping[str, int]


def cut(work: Work, room: Room, busy: list[tuple[int, int]]) -> Cut | None:
    """The largest boxes of a step with buffers between the busy (address, length) pairs of the data memory; None where none fit.

    Axes of the constants are cut until a part of them fits; then, until strips fit, the rows of a window or else the first axis that y has
    of x, what x lacks, and the rest. Of the two orders, strips outermost or parts of constants outermost, the one that brings in less is
    taken.
    """

    def placed(blocks: Blocks) -> dict[str, int] | None:
        return squeeze({name: extent for name, (_, extent) in _buffers(work, blocks).items()}, busy, room.data)

    parts = _parts(work, room)
    blocks = _narrowed(parts, _strip_axes(work), work, lambda blocks: placed(blocks) is not None)
    if blocks is None:
        return None
    addresses = placed(blocks)
    buffers = {name: Buffer(addresses[name], *found) for name, found in _buffers(work, blocks).items()}
    strips = sorted(_strip_axes(work), key=lambda axis: axis in constant_axes(work.step))
    orders = [tuple(_boxes(work, blocks, order)) for order in (strips, strips[::-1])]
    return Cut(min(orders, key=lambda boxes: _moved(work, boxes, room)), buffers)


def demands(work: Work, room: Room) -> tuple[int, int]:
    """Elements of data memory that a step's buffers need: for strips of one row, and for the smallest boxes."""
    blocks = _parts(work, room)
    axes = _strip_axes(work)
    row, least = (_buffers(work, blocks | _smallest(work, narrow)) for narrow in (axes[:1], axes))
    return sum(extent for _, extent in row.values()), sum(extent for _, extent in least.values())


def operand_box(step: Step, box: Box, size: Mapping[str, int]) -> Box:
    """The part of an operand that a box of a step reads."""
    through = {window.axis: seen(window, box[window.out], size) for window in step.group.window}
    return {axis: through.get(axis) or box[axis] for axis in step.group.x_axes if axis != "+"}


def constant_axes(step: Step) -> Axes:
    """The axes over which a step's packed constants differ."""
    bound = [axis for loop, axes in step.lane if loop.w or loop.init for axis in axes]
    return tuple(dict.fromkeys([*step.group.weight_axes, *step.group.init_axes, *bound]))


def _parts(work: Work, room: Room) -> Blocks:
    """The blocks of a step whose constants fit their memories; the step is refused if none do."""
    step = work.step
    taps = {window.tap for window in step.group.window}
    whole = {axis: work.size[axis] for axis in step.group.y_axes if axis != "n" and axis not in taps}
    lanes = [axis for _, axes in step.lane for axis in axes]
    fixed = step.inner_axes
    axes = sorted((axis for axis in whole if axis in constant_axes(step) and axis not in fixed), key=lambda axis: axis not in lanes)
    limits = {"w": room.weights, "init": room.inits}
    blocks = _narrowed(whole, axes, work, lambda blocks: all(_constants(work, blocks, stream) <= most for stream, most in limits.items()))
    if blocks is None:
        least = whole | _smallest(work, axes)
        needs = {stream: _constants(work, least, stream) for stream in limits}
        stream = next(stream for stream, most in limits.items() if needs[stream] > most)
        raise ValueError(
            f"op {step.group.y!r} needs {needs[stream]} {'weights' if stream == 'w' else 'initial sums'} for its smallest part, "
            f"and the machine has room for {limits[stream]}: enlarge that memory"
        )
    return blocks


def _constants(work: Work, blocks: Blocks, stream: str) -> int:
    """Elements of a step's packed weights or initial sums, for one box."""
    group = work.step.group
    axes = group.weight_axes if stream == "w" else group.init_axes
    return packed_length(axes, [*work.step.lane, *work.step.reduce], stream, {**work.size, **blocks})


def _narrowed(blocks: Blocks, axes: list[str], work: Work, fits: Callable[[Blocks], bool]) -> Blocks | None:
    """The blocks, cut in turn over axes into as few as fit; None where even the smallest don't."""
    if fits(blocks):
        return blocks
    for axis in axes:
        grain = _grain(work.step, axis)
        tiles = -(-blocks[axis] // grain)
        for extent in dict.fromkeys(-(-tiles // count) * grain for count in range(2, tiles + 1)):
            blocks = blocks | {axis: extent}
            if fits(blocks):
                return blocks
    return None


def _smallest(work: Work, axes: list[str]) -> Blocks:
    """The smallest blocks of some axes."""
    return {axis: min(_grain(work.step, axis), work.size[axis]) for axis in axes}


def _grain(step: Step, axis: str) -> int:
    """The indices of an axis that the machine runs at once, if it runs along no other."""
    return next((loop.extent for loop, axes in step.lane if axes == (axis,)), 1)


def _strip_axes(work: Work) -> list[str]:
    """The axes of a step's result in the order in which they are cut."""
    group = work.step.group
    outs, taps = ({getattr(window, part) for window in group.window} for part in ("out", "tap"))
    axes = [axis for axis in group.y_axes if axis != "n" and axis not in taps and axis not in work.step.inner_axes]
    beside = [name for name in group.x if name not in work.outside]
    if len(group.x) > 1 and beside:
        # A strip with the strides of the operand beside it has no gaps if it is cut where they are largest.
        return sorted(axes, key=lambda axis: -work.tensors[beside[0]].strides[axis])
    axes.sort(key=lambda axis: (axis not in outs, axis not in group.read_axes))
    return axes[:1] + sorted(axes[1:], key=lambda axis: axis in group.read_axes)


def _buffers(work: Work, blocks: Blocks) -> dict[str, tuple[Strides, int]]:
    """The strides and the length of the buffer of every tensor that lies outside."""
    group = work.step.group
    batch = {loop.axis: loop.x for loop in work.tile.lane if loop.axis == "n"}
    beside = [name for name in group.x if name not in work.outside]
    overshoot = sum((loop.extent - 1) * loop.x for loop in work.tile.reduce)
    found = {}
    for name in work.outside:
        extents, wants, axes, behind = {**work.size, **blocks}, work.step.wants("y", work.size), group.y_axes, 0
        if name in group.x:
            behind = overshoot
            axes = tuple(axis for axis in group.x_axes if axis != "+")
            wants = work.tensors[beside[0]].strides if beside else work.step.wants("x", work.size)
            for window in group.window:
                stretches = _ranges(work.size[window.out], blocks.get(window.out, work.size[window.out]))
                extents[window.axis] = max(len(seen(window, outs, work.size)) for outs in stretches)
        strides = arrange(axes, extents, {**batch, **wants}) or arrange(axes, extents, wants)
        found[name] = strides, length(strides, extents) + behind
    return found


def _boxes(work: Work, blocks: Blocks, order: list[str]) -> Iterator[Box]:
    """All boxes, those that differ in the last axes of an order next to each other."""
    group = work.step.group
    axes = dict.fromkeys(group.y_axes + group.x_axes + group.read_axes + group.weight_axes + group.init_axes)
    whole = {axis: range(work.size[axis]) for axis in axes}
    for ranges in product(*(_ranges(work.size[axis], blocks[axis]) for axis in order)):
        yield {**whole, **dict(zip(order, ranges, strict=True))}


def _ranges(extent: int, block: int) -> list[range]:
    """The indices of an axis in blocks."""
    return [range(first, min(first + block, extent)) for first in range(0, extent, block)]


def _moved(work: Work, boxes: tuple[Box, ...], room: Room) -> int:
    """Elements of operands and weights that come in for boxes in this order, again when others took their place in between."""
    step, held, moved = work.step, {}, 0
    inside = _constants(work, {}, "w") <= room.weights and _constants(work, {}, "init") <= room.inits
    for box in boxes:
        part = {axis: box[axis] for axis in constant_axes(step)}
        needs = {name: operand_box(step, box, work.size) for name in work.outside if name in step.group.x}
        moved += sum(prod(map(len, need.values())) for name, need in needs.items() if held.get(name) != need)
        if not inside and held.get("constants") != part:
            moved += _constants(work, {axis: len(indices) for axis, indices in part.items()}, "w")
        held = {**needs, "constants": part}
    return moved
