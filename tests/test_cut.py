"""Cutting: boxes hold every result once, their constants and buffers fit, and no fewer would do."""

from itertools import product

import numpy as np
from graphs import TILES, features, float_graphs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bayestt.ir.bind import bind
from bayestt.ir.border import seen
from bayestt.ir.cut import Cut, Work, constant_axes, cut, demands, operand_box
from bayestt.ir.fold import fold
from bayestt.ir.group import Group, groups
from bayestt.ir.nest import Nest
from bayestt.ir.pack import packed_length
from bayestt.ir.quantize import quantize
from bayestt.ir.room import Room
from bayestt.ir.step import Step
from bayestt.ir.steps import steps


@st.composite
def works(draw: st.DrawFn) -> Work:
    """A step of a random graph, with some of its tensors outside."""
    graph = draw(float_graphs(windows=True))
    integer = quantize(fold(graph), np.random.default_rng(0).normal(size=(9, features(graph))))
    tile: Nest = TILES[draw(st.sampled_from(list(TILES)))]
    images = next((loop.extent for loop in tile.lane if loop.axis == "n"), 1)
    size = {**integer.size, "n": images, "+": 2}
    items = [bind(item, tile, size)[0] if isinstance(item, Group) else item for item in groups(integer)]
    names = [item.group.y if isinstance(item, Step) else item.name for item in items]
    outside = frozenset(name for name in (integer.input.name, *names[:-1]) if draw(st.booleans()))
    made, tensors = steps(items, integer.input, tile, size, outside)
    assume(made)
    step = draw(st.sampled_from(made))
    moved = tuple(name for name in dict.fromkeys((*step.group.x, step.group.y)) if tensors[name].place in outside)
    return Work(step, tensors, moved, tile, size)


def roomy(work: Work, data: int, constants: int) -> tuple[Room, Cut]:
    """A room with so much more than the least a step needs, and its cut there."""
    bound, group = [*work.step.lane, *work.step.reduce], work.step.group
    fixed = work.step.inner_axes
    least = {axis: 1 for axis in group.y_axes if axis != "n" and axis not in fixed}
    least |= {axes[0]: loop.extent for loop, axes in work.step.lane if len(axes) == 1}
    needs = [
        packed_length(axes, bound, stream, {**work.size, **{axis: min(extent, work.size[axis]) for axis, extent in least.items()}})
        for axes, stream in ((group.weight_axes, "w"), (group.init_axes, "init"))
    ]
    kept = 1
    for window in group.window:
        kept *= work.size[window.tap] if window.tap in group.y_axes else 1
    room = Room(weights=needs[0] * kept + constants, inits=needs[1] * kept + constants)
    room = Room(demands(work, room)[1] + data, room.weights, room.inits)
    return room, cut(work, room, [])


@settings(max_examples=50)
@given(works(), st.integers(0, 40), st.integers(0, 20))
def test_boxes_hold_every_result_once_and_fit(work: Work, data: int, constants: int) -> None:
    room, found = roomy(work, data, constants)
    group, bound = work.step.group, [*work.step.lane, *work.step.reduce]
    results = [index for box in found.boxes for index in product(*(box[axis] for axis in group.y_axes))]
    assert len(results) == len(set(results)) == np.prod([work.size[axis] for axis in group.y_axes])
    for box in found.boxes:
        extents = {**work.size, **{axis: len(indices) for axis, indices in box.items()}}
        assert packed_length(group.weight_axes, bound, "w", extents) <= room.weights
        assert packed_length(group.init_axes, bound, "init", extents) <= room.inits
        assert all(box[axis] == range(work.size[axis]) for axis in ("n", *(axis for axis in group.read_axes if axis not in group.y_axes)))
    assert set(found.buffers) == set(work.outside)
    spans = sorted((buffer.address, buffer.address + buffer.length) for buffer in found.buffers.values())
    assert all(one[1] <= other[0] for one, other in zip(spans, spans[1:], strict=False))
    assert all(0 <= low < high <= room.data for low, high in spans)


@settings(max_examples=50)
@given(works())
def test_a_buffer_holds_what_a_box_needs(work: Work) -> None:
    _, found = roomy(work, 7, 7)
    for box in found.boxes:
        needs = operand_box(work.step, box, work.size)
        for window in work.step.group.window:
            assert needs[window.axis] == seen(window, box[window.out], work.size)
        for name, buffer in found.buffers.items():
            part = needs if name in work.step.group.x else {axis: box[axis] for axis in work.step.group.y_axes}
            assert sum((len(indices) - 1) * buffer.strides[axis] for axis, indices in part.items()) < buffer.length


@settings(max_examples=50)
@given(works())
def test_what_has_room_is_not_cut(work: Work) -> None:
    found = cut(work, Room(), [])
    assert len(found.boxes) == 1
    assert set(constant_axes(work.step)) <= set(found.boxes[0])
