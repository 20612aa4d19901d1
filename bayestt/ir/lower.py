"""From an integer graph to the nests of a machine, given what the machine does at once and what its memories hold."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bayestt.ir.bind import Cost, bind_copy, turns
from bayestt.ir.choose import choose
from bayestt.ir.constants import COPY, Constants, constants, part_of
from bayestt.ir.cover import Box, Place, cover, part_at
from bayestt.ir.cut import operand_box
from bayestt.ir.graph import Graph, Op, inferring
from bayestt.ir.group import Group, copy_of, groups
from bayestt.ir.nest import Nest
from bayestt.ir.place import length
from bayestt.ir.plan import Plan, plan
from bayestt.ir.room import Room
from bayestt.ir.schedule import Layout, Schedule
from bayestt.ir.step import Step


def lower(graph: Graph, tile: Nest, room: Room | None = None, cost: Cost = turns) -> Schedule:
    """The schedule of an integer graph on the machine whose `tile` it is; `execute(lower(g, tile), x) == interpret(g, x)`, bit for bit.

    `tile` has the `lane` and `reduce` loops that the machine runs at once, with the strides it needs in every stream (`y` None: any). A
    loop over `n` takes the images of a batch; each other one takes, per operation, axes that move the same operands, several as one where
    that fills it better: those with which the nests, copies included, have the least `cost` together. Tensors are laid out for their
    writer and first reader; where another reader needs other strides, a copy nest comes between.
    An operation that reads through windows is a nest for each stretch of places that find the same taps: borders cost nothing.

    What does not fit the machine's `room` (None: everything does) lies in external memory: nests load strips of it, compute on them and
    store the results. No legal graph is refused, but one with an operation whose smallest strip, or part of constants, has no room.
    """
    if not inferring(graph, "lower").integer:
        raise ValueError("only an integer graph can be lowered: quantize it first")
    if wide := [op.name for op in graph.ops if op.kind == "CONTRACT" and op.format.bits != tile.acc_bits]:
        raise ValueError(f"ops {wide} sum in {graph[wide[0]].format.bits} bits and the machine in {tile.acc_bits}: make them equal")
    images = next((loop.extent for loop in tile.lane if loop.axis == "n"), 1)
    size = {**graph.size, "n": images, "+": 2}
    items = choose(_ended(groups(graph), graph), graph.input, tile, size, room or Room(), cost)
    planned = plan(items, graph.input, tile, size, room or Room())
    packed = constants(planned, tile, size)
    return Schedule(
        tuple(_nests(planned, packed, tile, size)),
        {name: _layout(name, planned, size) for name in planned.tensors},
        images,
        graph.input.name,
        planned.output,
        packed.weights,
        packed.inits,
        planned.data_size,
        length(planned.tensors[planned.output].strides, size),
        planned.external_size,
    )


def _ended(items: list[Group | Op], graph: Graph) -> list[Group | Op]:
    """The items with a copy at the end where a VIEW is the output: scores are written by a nest."""
    if isinstance(items[-1], Group):
        return items
    view = graph.output
    return [*items, copy_of(view.name, f"{view.name}.scores", view.axes, view.format.bits)]


def _layout(name: str, planned: Plan, size: Mapping[str, int]) -> Layout:
    """Where a tensor lies, element by element."""
    tensor, place = planned.tensors[name], _whole(name, planned)
    return Layout(place.address, tensor.axes, tuple(size[axis] for axis in tensor.axes), tuple(tensor.strides.values()), place.memory)


def _whole(name: str, planned: Plan) -> Place:
    """Where a tensor lies."""
    tensor = planned.tensors[name]
    if name == planned.output:
        return Place(0, tensor.strides, "scores")
    return Place(planned.addresses[tensor.place], tensor.strides, "external" if tensor.place in planned.external else "data")


def _nests(planned: Plan, packed: Constants, tile: Nest, size: Mapping[str, int]) -> Iterator[Nest]:
    """All nests in order: for every box of every step its loads, unless the strip is there already, its own nests, and its store."""

    def copied(name: str, step: Step, source: Place, target: Place, box: Box) -> Iterator[Nest]:
        tensor = planned.tensors[name]
        return _copied(copy_of(name, step.group.y, tensor.axes, tensor.bits), source, target, packed.places[COPY], box, tile, size)

    for number, (step, found) in enumerate(zip(planned.steps, planned.cuts, strict=True)):
        group, held = step.group, {}
        for box in found.boxes:
            part = {name: operand_box(step, box, size) for name in group.x} | {group.y: {axis: box[axis] for axis in group.y_axes}}
            at = {name: _whole(name, planned) for name in part}
            for name, buffer in found.buffers.items():
                at[name] = part_at(buffer.address, buffer.strides, part[name])
                if name in group.x and held.get(name) != part[name]:
                    held[name] = part[name]
                    yield from copied(name, step, _whole(name, planned), at[name], part[name])
            x = at[group.x[0]]
            if len(group.x) == 2:
                x = replace(x, strides={**x.strides, "+": at[group.x[1]].address - x.address})
            if group.blank is not None:
                fill = replace(copy_of(group.x[0], group.y, group.y_axes, group.bits), x_axes=("n",))
                anywhere = Place(x.at(part[group.x[0]]), {"n": x.strides["n"]})
                yield from _copied(fill, anywhere, at[group.y], packed.places[number, "blank"], part[group.y], tile, size)
            yield from cover(step, box, tile, {"x": x, **packed.places[part_of(number, step, box)], "y": at[group.y]}, size)
            if group.y in found.buffers:
                yield from copied(group.y, step, at[group.y], _whole(group.y, planned), part[group.y])


def _copied(
    group: Group, source: Place, target: Place, words: Mapping[str, Place], box: Box, tile: Nest, size: Mapping[str, int]
) -> Iterator[Nest]:
    """The nest that copies a box of a tensor: without reduce loops, as it sums nothing."""
    step = replace(bind_copy(group, tile, source.strides, target.strides), reduce=[])
    return cover(step, box, tile, {"x": source, **words, "y": target}, size)
