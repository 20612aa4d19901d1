"""Which axes of a group a machine's loops run over."""

from collections.abc import Mapping
from dataclasses import dataclass

from bayestt.ir.group import Group
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.pack import Bound
from bayestt.ir.place import Strides, arrange


@dataclass(frozen=True)
class Step:
    """A group, and the axes that the tile's lane and reduce loops run over in it."""

    group: Group
    lane: Bound
    reduce: Bound

    def wants(self, stream: str) -> Strides:
        """The strides that the tile's loops need in the tensor x or y."""
        bound = [*self.lane, *(self.reduce if stream == "x" else ())]
        under = {window.out: window for window in self.group.window if stream == "x"}
        wants: Strides = {}
        for loop, axis in bound:
            if axis and (stride := getattr(loop, stream)):
                window = under.get(axis)
                wants |= {window.axis: stride // window.stride} if window else {axis: stride}
        return wants


def bind(group: Group, tile: Nest, size: Mapping[str, int]) -> Step:
    """The step in which each lane and each reduce loop of the tile takes the axis of the group that fills it best, None where none may.

    The largest is never taken in the tile's reduce loops: what does not fill them counts as 0 there.
    """
    free = list(dict.fromkeys(group.read_axes + group.weight_axes + group.y_axes))
    step = Step(group, [], [])
    for part, loops in (("lane", tile.lane), ("reduce", tile.reduce)):
        for loop in loops:
            fitting = [axis for axis in free if _fits(loop, part, axis, group) and _feasible(_taking(step, part, loop, axis), size)]
            best = max(fitting, key=lambda axis, most=loop.extent: (_filled(size[axis], most), size[axis]), default=None)
            step = _taking(step, part, loop, best)
            free = [axis for axis in free if axis != best]
    return step


def bind_copy(group: Group, tile: Nest, source: Strides, target: Strides) -> Step:
    """The step of a copy: over the images at once where both tensors have the strides for it."""
    lane = [(loop, "n" if loop.axis == "n" and (source["n"], target["n"]) == (loop.x, loop.y) else None) for loop in tile.lane]
    return Step(group, lane, [(loop, None) for loop in tile.reduce])


def _taking(step: Step, part: str, loop: Loop, axis: str | None) -> Step:
    """The step with one more loop bound."""
    lane, reduce = [*step.lane], [*step.reduce]
    (lane if part == "lane" else reduce).append((loop, axis))
    return Step(step.group, lane, reduce)


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


def _feasible(step: Step, size: Mapping[str, int]) -> bool:
    """Whether x and y can be laid out for what is bound."""
    x_axes = tuple(axis for axis in step.group.x_axes if axis != "+")
    return None not in (arrange(x_axes, size, step.wants("x")), arrange(step.group.y_axes, size, step.wants("y")))


def _filled(extent: int, most: int) -> float:
    """The part of a loop's places that an axis fills."""
    return extent / (-(-extent // most) * most)
