"""From groups to the steps of a machine, copies included, and how every tensor between them is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bayestt.algebra.einsum import Axes
from bayestt.ir.bind import bind_copy
from bayestt.ir.graph import Op
from bayestt.ir.group import copy_of
from bayestt.ir.nest import Nest
from bayestt.ir.place import Strides, arrange
from bayestt.ir.step import Step


@dataclass(frozen=True)
class Tensor:
    """A stored tensor: its axes, strides and bits, and the tensor in whose place it lies (a VIEW lies in its operand's).

    `origin` is the place it was copied from to suit a reader, its own where it is no copy.
    """

    axes: Axes
    strides: Strides
    bits: int
    place: str
    origin: str


def steps(
    items: Sequence[Step | Op], image: Op, tile: Nest, size: Mapping[str, int], external: frozenset[str]
) -> tuple[list[Step], dict[str, Tensor]]:
    """The bound groups (and VIEWs) in order, with the copies between them, and every stored tensor from the image on.

    Tensors are laid out for their writer and first reader; where another reader needs other strides, a copy comes between. Those whose
    places are `external` lie there row by row, as whoever reads them brings them in as it needs them.
    """
    batch = {loop.axis: loop.x for loop in tile.lane if loop.axis == "n"}
    made: list[Step] = []
    tensors: dict[str, Tensor] = {}
    copies: dict[str, list[str]] = {}

    def first_reader_wants(name: str, axes: Axes) -> Strides:
        for item in items:
            if isinstance(item, Step) and name in item.group.x:
                return item.wants("x", size)
            if isinstance(item, Op) and name in item.args:
                return arrange(axes, size, batch)
        return {}

    def store(name: str, axes: Axes, bits: int, needs: Strides) -> None:
        likes = first_reader_wants(name, axes)
        strides = arrange(axes, size, {**likes, **needs}) or arrange(axes, size, needs)
        tensors[name] = Tensor(axes, arrange(axes, size, batch) if name in external else strides, bits, name, name)

    def readable(name: str, wants: Strides) -> str:
        """The tensor, or a copy of it, with the strides that a reader wants."""
        tensor, alike = tensors[name], [name, *copies.get(name, [])]
        for other in alike:
            if tensor.place in external or all(tensors[other].strides[a] == stride or size[a] == 1 for a, stride in wants.items()):
                return other
        copy = copy_of(name, f"{name}.copy{len(alike)}", tensor.axes, tensor.bits)
        strides = arrange(tensor.axes, size, {**batch, **wants}) or arrange(tensor.axes, size, wants)
        tensors[copy.y] = Tensor(tensor.axes, strides, tensor.bits, copy.y, tensor.origin)
        copies.setdefault(name, []).append(copy.y)
        made.append(bind_copy(copy, tile, tensor.strides, strides))
        return copy.y

    store(image.name, image.axes, image.format.bits, batch)
    for item in items:
        if isinstance(item, Op):
            source = tensors[readable(item.args[0], arrange(tensors[item.args[0]].axes, size, batch))]
            tensors[item.name] = replace(source, axes=item.axes, strides=arrange(item.axes, size, batch))
            continue
        group, wants = item.group, item.wants("x", size)
        # Two operands are read by one stream, those in the same memory with the same strides.
        here: dict[str, str] = {}
        for name in group.x:
            if tensors[name].place not in external:
                here[name] = readable(name, wants)
                wants = tensors[here[name]].strides
        store(group.y, group.y_axes, group.bits, item.wants("y", size))
        made.append(replace(item, group=replace(group, x=tuple(here.get(name, name) for name in group.x))))
    return made, tensors
