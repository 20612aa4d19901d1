"""Which axes of a group a machine's loops run over."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import combinations
from math import prod
from operator import attrgetter

from bayestt.algebra.einsum import Axes
from bayestt.ir.cover import Place, cover
from bayestt.ir.group import Group
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.pack import packed_length, packed_strides
from bayestt.ir.place import Strides, arrange, length
from bayestt.ir.room import Room
from bayestt.ir.step import Step

Cost = Callable[[Nest], float]
"""What a machine takes for a nest."""
turns: Cost = attrgetter("turns")
"""The cost of a nest on a machine of which no more is known: how often it multiplies."""

MOST_AXES = 3
"""How many axes one loop runs over at most."""
KEPT = 12
"""How many bindings of a tile's first loops are gone on with: those in which the machine multiplies least often."""


def bind(group: Group, tile: Nest, size: Mapping[str, int], room: Room | None = None, cost: Cost = turns) -> tuple[Step, ...]:
    """The steps in which the tile's lane and reduce loops take axes of the group, none where none may, the cheapest first.

    Of equal ones the first has the fewest axes in a loop, and the largest. A loop takes several axes only where nothing must be cut. The
    largest is never taken in the tile's reduce loops: what does not fill them counts as 0 there.
    """
    steps = [Step(group, [], [])]
    for part, loops in (("lane", tile.lane), ("reduce", tile.reduce)):
        for loop in loops:
            longer = [_taking(step, part, loop, axes) for step in steps for axes in _choices(step, part, loop, size)]
            fitting = (step for step in longer if _feasible(step, size, room or Room()))
            steps = sorted(fitting, key=lambda step: _preference(step, size))[:KEPT]
    return tuple(sorted(steps, key=lambda step: (spent(step, tile, size, cost), *_preference(step, size)[1:])))


def spent(step: Step, tile: Nest, size: Mapping[str, int], cost: Cost, x: Strides | None = None, y: Strides | None = None) -> float:
    """What the nests of a step cost where its operand and its result have these strides: if None, those that suit it."""
    group = step.group
    x_axes = tuple(axis for axis in group.x_axes if axis != "+")
    x = x or arrange(x_axes, size, step.wants("x", size)) or {}
    y = y or arrange(group.y_axes, size, step.wants("y", size)) or {}
    bound = [*step.lane, *step.reduce]
    streams = {
        "x": Place(0, {**x, "+": length(x, size)} if "+" in group.x_axes else x),
        "w": Place(0, packed_strides(group.weight_axes, bound, "w", size)),
        "init": Place(0, packed_strides(group.init_axes, bound, "init", size)),
        "y": Place(0, y),
    }
    box = {axis: range(size[axis]) for axis in (*group.y_axes, *group.x_axes, *group.read_axes, *group.weight_axes, *group.init_axes)}
    return sum(map(cost, cover(step, box, tile, streams, size)))


def kind(group: Group, size: Mapping[str, int]) -> tuple[Hashable, list[str]]:
    """All that binding asks of a group, with numbers for axes, and the axes with these numbers."""
    all_axes = (group.x_axes, group.weight_axes, group.init_axes, group.y_axes, group.read_axes)
    names = list(dict.fromkeys(axis for axes in all_axes for axis in axes))
    number = {axis: k for k, axis in enumerate(names)}
    windows = [(number[each.axis], number[each.out], number[each.tap], each.stride, each.dilation, each.padding) for each in group.window]
    numbered = tuple(tuple(number[axis] for axis in axes) for axes in all_axes)
    extents = tuple(size[axis] for axis in names)
    return (numbered, extents, tuple(windows), len({*group.x}), group.maximum, "+" in names), names


def bind_copy(group: Group, tile: Nest, source: Strides, target: Strides) -> Step:
    """The step of a copy: over the images at once where both tensors have the strides for it."""
    lane = [(loop, ("n",) if loop.axis == "n" and (source["n"], target["n"]) == (loop.x, loop.y) else ()) for loop in tile.lane]
    return Step(group, lane, [(loop, ()) for loop in tile.reduce])


def _taking(step: Step, part: str, loop: Loop, axes: Axes) -> Step:
    """The step with one more loop bound."""
    lane, reduce = [*step.lane], [*step.reduce]
    (lane if part == "lane" else reduce).append((loop, axes))
    return Step(step.group, lane, reduce)


def _choices(step: Step, part: str, loop: Loop, size: Mapping[str, int]) -> Iterator[Axes]:
    """What a loop may run over beside those that are bound: none, one axis, or the fewest that fill it together."""
    group = step.group
    taken = {axis for _, axes in [*step.lane, *step.reduce] for axis in axes}
    free = [axis for axis in dict.fromkeys(group.y_axes + group.read_axes + group.weight_axes) if axis not in taken]
    if loop.axis == "n":
        yield ("n",) if "n" in free and _fits(loop, part, "n", group) else ()
        return
    fitting = [axis for axis in free if size[axis] > 1 and _fits(loop, part, axis, group)]
    windowed = {window.out for window in group.window}
    full: list[set[str]] = []
    yield ()
    for count in range(1, MOST_AXES + 1):
        for axes in combinations(fitting, count):
            if (count == 1 or not windowed & {*axes}) and not any(less <= {*axes} for less in full):
                full += [{*axes}] if prod(size[axis] for axis in axes) % loop.extent == 0 else []
                yield axes


def _fits(loop: Loop, part: str, axis: str, group: Group) -> bool:
    """Whether an axis moves the streams that the loop moves: exactly so in x, at most so in the packed constants."""
    if axis == "+" or (loop.axis == "n") != (axis == "n") or (axis in group.y_axes) != (part == "lane"):
        return False
    if group.maximum and part == "reduce":
        return False
    window = next((window for window in group.window if axis in (window.out, window.tap)), None)
    # Stretches of places or taps begin anywhere, packed words don't.
    if window and (axis == window.tap or loop.w or loop.init or loop.x % window.stride):
        return False
    in_x, in_w, in_init = (axis in axes for axes in (group.read_axes, group.weight_axes, group.init_axes))
    return in_x == bool(loop.x) and in_w <= bool(loop.w) and in_init <= bool(loop.init)


def _feasible(step: Step, size: Mapping[str, int], room: Room) -> bool:
    """Whether x and y can be laid out for what is bound, and nothing must be cut where a loop runs over several axes."""
    group = step.group
    x_axes = tuple(axis for axis in group.x_axes if axis != "+")
    laid = [arrange(axes, size, step.wants(stream, size)) for stream, axes in (("x", x_axes), ("y", group.y_axes))]
    if None in laid:
        return False
    if not step.inner_axes:
        return True
    overshoot = sum((loop.extent - 1) * loop.x for loop, _ in step.reduce)
    elements = len({*group.x}) * (length(laid[0], size) + overshoot) + length(laid[1], size)
    needs = ((group.weight_axes, "w", room.weights), (group.init_axes, "init", room.inits))
    bound = [*step.lane, *step.reduce]
    return elements <= room.data and all(packed_length(axes, bound, stream, size) <= most for axes, stream, most in needs)


def _preference(step: Step, size: Mapping[str, int]) -> tuple:
    """How often the machine multiplies; then how many axes share a loop, and how large they are."""
    group, bound = step.group, [*step.lane, *step.reduce]
    inside = [axis for _, axes in bound for axis in axes]
    outside = {*group.y_axes, *group.read_axes, *group.weight_axes} - {*inside}
    extents = [(prod(size[axis] for axis in axes), loop.extent) for loop, axes in bound]
    turns = prod(size[axis] for axis in outside) * prod(-(-extent // most) for extent, most in extents)
    return turns, len(inside), tuple(-extent for extent, _ in extents)
