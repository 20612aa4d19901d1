"""From an integer graph to the nests of a machine, given what the machine does at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from bayestt.algebra.einsum import Axes
from bayestt.algebra.fixed import wrap
from bayestt.ir.graph import Graph, Op, verify
from bayestt.ir.group import Group, copy_of, groups
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.pack import Bound, pack
from bayestt.ir.place import Strides, allocate, arrange, length
from bayestt.ir.schedule import Layout, Schedule


def lower(graph: Graph, tile: Nest) -> Schedule:
    """The schedule of an integer graph on the machine whose `tile` it is; `execute(lower(g, tile), x) == interpret(g, x)`, bit for bit.

    `tile` has the `lane` and `reduce` loops that the machine runs at once, with the strides it needs in every stream (`y` None: any). A
    loop over `n` takes the images of a batch; each other one takes, per operation, the axis that fills it best and moves the same
    operands. Tensors are laid out for their writer and first reader; where another reader needs other strides, a copy nest comes between.
    No legal graph is refused.
    """
    if not verify(graph).integer:
        raise ValueError("only an integer graph can be lowered: quantize it first")
    if wide := [op.name for op in graph.ops if op.kind == "CONTRACT" and op.format.bits != tile.acc_bits]:
        raise ValueError(f"ops {wide} sum in {graph[wide[0]].format.bits} bits and the machine in {tile.acc_bits}: make them equal")
    images = next((loop.extent for loop in tile.lane if loop.axis == "n"), 1)
    steps, tensors = _laid_out(graph, tile, {**graph.size, "n": images})
    return _emitted(graph, tile, images, steps, tensors)


@dataclass(frozen=True)
class _Step:
    """A group, and the axes that the tile's lane and reduce loops run over in it."""

    group: Group
    lane: Bound
    reduce: Bound


@dataclass(frozen=True)
class _Tensor:
    """A stored tensor: its axes and strides, and the tensor in whose place it lies (a VIEW lies in its operand's)."""

    axes: Axes
    strides: Strides
    place: str


def _laid_out(graph: Graph, tile: Nest, size: Mapping[str, int]) -> tuple[list[_Step], dict[str, _Tensor]]:
    """The steps in order, copies included, and every stored tensor with its strides."""
    width = {op.name: op.format.bits for op in graph.ops}
    batch = {loop.axis: loop.x for loop in tile.lane if loop.axis == "n"}
    items = _ended(groups(graph), graph)
    bound = {item.y: _bind(item, tile, size) for item in items if isinstance(item, Group)}
    steps: list[_Step] = []
    tensors: dict[str, _Tensor] = {}

    def first_reader_wants(name: str, axes: Axes) -> Strides:
        for item in items:
            if isinstance(item, Group) and name in item.x:
                return _wants(bound[item.y], "x")
            if isinstance(item, Op) and name in item.args:
                return arrange(axes, size, batch)
        return {}

    def store(name: str, axes: Axes, needs: Strides, likes: Strides) -> None:
        strides = arrange(axes, size, {**likes, **needs}) or arrange(axes, size, needs)
        tensors[name] = _Tensor(axes, strides, name)

    def readable(name: str, wants: Strides) -> str:
        """The tensor, or a copy of it, with the strides that a reader wants."""
        alike = [other for other in tensors if other == name or other.startswith(f"{name}.copy")]
        for other in alike:
            if all(tensors[other].strides[axis] == stride or size[axis] == 1 for axis, stride in wants.items()):
                return other
        made = copy_of(name, f"{name}.copy{len(alike)}", tensors[name].axes, width[name])
        store(made.y, made.y_axes, wants, batch)
        lane = _bind_copy(tile, tensors[name].strides, tensors[made.y].strides)
        steps.append(_Step(made, lane, [(loop, None) for loop in tile.reduce]))
        return made.y

    store(graph.input.name, graph.input.axes, batch, first_reader_wants(graph.input.name, graph.input.axes))
    for item in items:
        if isinstance(item, Op):
            axes = graph[item.args[0]].axes
            source = readable(item.args[0], arrange(axes, size, batch))
            tensors[item.name] = _Tensor(item.axes, arrange(item.axes, size, batch), tensors[source].place)
            continue
        x = [readable(item.x[0], _wants(bound[item.y], "x"))]
        x += [readable(other, tensors[x[0]].strides) for other in item.x[1:]]
        store(item.y, item.y_axes, _wants(bound[item.y], "y"), first_reader_wants(item.y, item.y_axes))
        steps.append(_Step(replace(item, x=tuple(x)), *bound[item.y]))
    return steps, tensors


def _ended(items: list[Group | Op], graph: Graph) -> list[Group | Op]:
    """The items with a copy at the end where a VIEW is the output: scores are written by a nest."""
    if isinstance(items[-1], Group):
        return items
    view = graph.output
    return [*items, copy_of(view.name, f"{view.name}.scores", view.axes, view.format.bits)]


def _bind(group: Group, tile: Nest, size: Mapping[str, int]) -> tuple[Bound, Bound]:
    """For each lane and each reduce loop of the tile the axis of the group that fills it best, None where none may."""
    free = list(dict.fromkeys(group.x_axes + group.weight_axes + group.y_axes))
    bound: dict[str, list[tuple[Loop, str | None]]] = {"lane": [], "reduce": []}
    for part, loops in (("lane", tile.lane), ("reduce", tile.reduce)):
        for loop in loops:
            ready = (bound["lane"], bound["reduce"])
            fitting = [axis for axis in free if _fits(loop, part, axis, group) and _feasible(loop, part, axis, group, ready, size)]
            best = max(fitting, key=lambda axis, most=loop.extent: (_filled(size[axis], most), size[axis]), default=None)
            bound[part].append((loop, best))
            if best:
                free.remove(best)
    return bound["lane"], bound["reduce"]


def _bind_copy(tile: Nest, source: Strides, target: Strides) -> Bound:
    """The lane loops of a copy: over the images where both tensors have the strides for it, else once."""
    return [(loop, "n" if loop.axis == "n" and (source["n"], target["n"]) == (loop.x, loop.y) else None) for loop in tile.lane]


def _fits(loop: Loop, part: str, axis: str, group: Group) -> bool:
    """Whether an axis moves the streams that the loop moves: exactly so in x, at most so in the packed constants."""
    if (loop.axis == "n") != (axis == "n") or (axis in group.y_axes) != (part == "lane"):
        return False
    in_x, in_w, in_init = (axis in axes for axes in (group.x_axes, group.weight_axes, group.init_axes))
    return axis != "+" and in_x == bool(loop.x) and in_w <= bool(loop.w) and in_init <= bool(loop.init)


def _feasible(loop: Loop, part: str, axis: str, group: Group, ready: tuple[Bound, Bound], size: Mapping[str, int]) -> bool:
    """Whether x and y can still be laid out if the loop takes the axis."""
    lane, reduce = ready
    tried = ([*lane, (loop, axis)], reduce) if part == "lane" else (lane, [*reduce, (loop, axis)])
    x_axes = tuple(name for name in group.x_axes if name != "+")
    return None not in (arrange(x_axes, size, _wants(tried, "x")), arrange(group.y_axes, size, _wants(tried, "y")))


def _filled(extent: int, most: int) -> float:
    """The part of a loop's places that an axis fills."""
    return extent / (-(-extent // most) * most)


def _wants(bound: tuple[Bound, Bound], stream: str) -> Strides:
    """The strides that a tile's loops need in x or y."""
    lane, reduce = bound
    pairs = [(axis, getattr(loop, stream)) for loop, axis in [*lane, *(reduce if stream == "x" else ())] if axis]
    return {axis: stride for axis, stride in pairs if stride}


def _emitted(graph: Graph, tile: Nest, images: int, steps: list[_Step], tensors: Mapping[str, _Tensor]) -> Schedule:
    """The schedule: addresses, packed constants and nests of all steps."""
    size = {**graph.size, "n": images, "+": 2}
    last = steps[-1].group.y
    addresses, data_size = allocate(*_demands(tile, steps, tensors, size, last))
    at = {name: 0 if name == last else addresses[tensor.place] for name, tensor in tensors.items()}
    weights, inits, nests = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], []
    for step in steps:
        group, bound = step.group, [*step.lane, *step.reduce]
        packed_w, w = pack(group.weights, group.weight_axes, bound, "w", size)
        packed_init, init = pack(wrap(group.init, tile.acc_bits), group.init_axes, bound, "init", size)
        x = {**tensors[group.x[0]].strides, "+": at[group.x[-1]] - at[group.x[0]]}
        first = (at[group.x[0]], sum(map(len, weights)), sum(map(len, inits)), at[group.y])
        target = "scores" if group.y == last else "data"
        nests += _nests(step, tile, size, {"x": x, "w": w, "init": init, "y": tensors[group.y].strides}, first, target)
        weights.append(packed_w)
        inits.append(packed_init)
    layout = {
        name: Layout(
            at[name],
            tensor.axes,
            tuple(size[axis] for axis in tensor.axes),
            tuple(tensor.strides.values()),
            "scores" if name == last else "data",
        )
        for name, tensor in tensors.items()
    }
    score_size = length(tensors[last].strides, size)
    return Schedule(
        tuple(nests), layout, images, graph.input.name, last, np.concatenate(weights), np.concatenate(inits), data_size, score_size
    )


def _demands(
    tile: Nest, steps: list[_Step], tensors: Mapping[str, _Tensor], size: Mapping[str, int], last: str
) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """The length and the life of every place in the data memory; the input lives before the first step, scores lie elsewhere."""
    # A reduction that its tile overshoots reads on behind its operand, times zero weights: that must still be memory.
    overshoot = sum((loop.extent - 1) * loop.x for loop in tile.reduce)
    lives: dict[str, tuple[int, int]] = {}
    for number, step in enumerate(steps):
        for name in step.group.x:
            place = tensors[name].place
            lives[place] = lives.get(place, (-1, 0))[0], number
        if step.group.y != last:
            lives[step.group.y] = number, number
    return {place: length(tensors[place].strides, size) + overshoot for place in lives}, lives


def _nests(
    step: _Step, tile: Nest, size: Mapping[str, int], strides: Mapping[str, Strides], first: tuple[int, ...], target: str
) -> Iterator[Nest]:
    """A step as nests: one, or more where an axis does not fill a whole number of lanes (the rest runs in fewer of them)."""
    group = step.group
    streams = ("x", "w", "init", "y")
    taken = [axis for _, axis in [*step.lane, *step.reduce]]
    axes = list(dict.fromkeys(group.y_axes + group.x_axes + group.weight_axes))

    def loop_over(axis: str, extent: int, tiled: int = 1) -> Loop:
        """A loop over an axis, or over its tiles: packed constants have a tile's stride already."""
        moves = {stream: strides[stream].get(axis, 0) * (tiled if stream in "xy" else 1) for stream in streams}
        return Loop(axis, extent, **moves)

    outer = [loop_over(axis, size[axis]) for axis in axes if axis in group.y_axes and axis not in taken and size[axis] > 1]
    reduce = [loop_over(axis, size[axis]) for axis in axes if axis not in group.y_axes and axis not in taken]
    for loop, axis in step.reduce:
        reduce += [loop_over(axis, -(-size[axis] // loop.extent), loop.extent)] if axis else []
        reduce.append(replace(loop, axis=axis or loop.axis))
    for parts in product(*(_parts(loop, axis, size) for loop, axis in step.lane)):
        lane, tiles, start = [], [], dict(zip(streams, first, strict=True))
        for (loop, axis), (skipped, count, extent) in zip(step.lane, parts, strict=True):
            lane.append(replace(loop, axis=axis or loop.axis, extent=extent, y=strides["y"].get(axis, 0)))
            over = loop_over(axis, count, loop.extent) if axis else Loop(loop.axis, 1)
            tiles += [over] if count > 1 else []
            start = {stream: at + skipped * getattr(over, stream) for stream, at in start.items()}
        loops = (tuple(outer + tiles), tuple(reduce), tuple(lane))
        yield Nest(*loops, *start.values(), group.shift, group.relu, group.bits, tile.acc_bits, target=target, name=group.y)


def _parts(loop: Loop, axis: str | None, size: Mapping[str, int]) -> list[tuple[int, int, int]]:
    """How an axis fills a lane loop: (tiles before, tiles, lanes in each) of the full tiles and of the rest."""
    if axis is None:
        return [(0, 1, 1)]
    full, rest = divmod(size[axis], loop.extent)
    return ([(0, full, loop.extent)] if full else []) + ([(full, 1, rest)] if rest else [])
