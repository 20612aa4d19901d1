"""Which of the steps that compute a network's groups cost least together, copies between them included."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from math import prod

from bayestt.ir.bind import Cost, bind, kind, spent
from bayestt.ir.graph import Op
from bayestt.ir.group import Group
from bayestt.ir.nest import Nest
from bayestt.ir.room import Room
from bayestt.ir.step import Step
from bayestt.ir.steps import steps


def choose(items: Sequence[Group | Op], image: Op, tile: Nest, size: Mapping[str, int], room: Room, cost: Cost) -> list[Step | Op]:
    """The bound groups (and VIEWs) in order: each as it costs least alone, or, beside a copy, as it costs least with all others.

    As if all had room in the data memory: what `lower` must cut or bring in from outside is not counted. Steps beside copies change, one
    after another, for as long as that makes the whole cheaper; that a layout without copies suits some other step better is not looked for.
    """
    options = _options(items, tile, size, room, cost)
    chosen = [each[0] for each in options]
    costs: dict[Hashable, float] = {}

    def judged(chosen: list[Step | Op]) -> tuple[float, list[int]]:
        """What all steps cost together, and the numbers of the items that write or read what is copied."""
        made, tensors = steps(chosen, image, tile, size, frozenset())
        whole = 0.0
        for step in made:
            x, y = (tensors[name].strides for name in (step.group.x[0], step.group.y))
            which = (step.group.y, *(axes for _, axes in [*step.lane, *step.reduce]), *x.items(), *y.items())
            if which not in costs:
                costs[which] = spent(step, tile, size, cost, x, y)
            whole += costs[which]
        copied = {tensor.origin for tensor in tensors.values() if tensor.origin != tensor.place}
        touched = [{tensors[name].origin for name in (*item.group.x, item.group.y)} if isinstance(item, Step) else () for item in chosen]
        return whole, [number for number, origins in enumerate(touched) if copied.intersection(origins)]

    least, beside = judged(chosen)
    better = bool(beside)
    while better:
        better = False
        for number in beside:
            for option in options[number]:
                changed = [*chosen[:number], option, *chosen[number + 1 :]]
                whole, copied = judged(changed)
                if whole < least:
                    least, chosen, better = whole, changed, bool(copied)
        beside = judged(chosen)[1]
    return chosen


def _options(
    items: Sequence[Group | Op], tile: Nest, size: Mapping[str, int], room: Room, cost: Cost
) -> list[tuple[Step, ...] | tuple[Op]]:
    """All ways to bind each group, the cheapest first: found once for all groups that differ in nothing but names."""
    known: dict[Hashable, tuple[tuple[Step, ...], list[str]]] = {}
    options: list[tuple[Step, ...] | tuple[Op]] = []
    for number, item in enumerate(items):
        if isinstance(item, Op):
            options.append((item,))
            continue
        if number == len(items) - 1:
            # Scores have a memory of their own.
            room = replace(room, data=room.data + prod(size[axis] for axis in item.y_axes))
        shape, names = kind(item, size)
        shape = shape, room
        if shape not in known:
            known[shape] = bind(item, tile, size, room, cost), names
        alike, theirs = known[shape]
        own = dict(zip(theirs, names, strict=True))
        options.append(tuple(Step(item, *(_renamed(bound, own) for bound in (step.lane, step.reduce))) for step in alike))
    return options


def _renamed(bound: Sequence[tuple], own: Mapping[str, str]) -> list[tuple]:
    """Loops bound to the axes of another group."""
    return [(loop, tuple(own[axis] for axis in axes)) for loop, axes in bound]
