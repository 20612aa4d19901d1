"""What folding and lowering for our machine are judged by: cycles, by the formula that the gateware is held to."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import cache
from math import inf, prod

from bayestt.ir.bind import bind, kind, spent
from bayestt.ir.group import Group
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.pack import packed_length
from hw.arch import Arch
from hw.assemble import merged
from hw.cycles import nest_cycles


def nest_cost(arch: Arch) -> Callable[[Nest], float]:
    """The cycles of any nest that was lowered for `arch.tile`: those of `nest_cycles`, computed once for all nests of one shape.

    Infinite for a nest that no instruction can run.
    """
    images, _ = arch.tile.lane
    most = 1 << arch.extent_bits

    @cache
    def once(outer: tuple[int, ...], reduce: tuple[int, ...], lanes: int, source: str, target: str) -> int:
        """The cycles of one instruction with loops of these extents."""
        lane = (images, Loop("lane", lanes, w=1, init=1))
        loops = (tuple(Loop("", extent, x=arch.rows, y=arch.rows) for extent in extents) for extents in (outer, reduce))
        return nest_cycles(Nest(*loops, lane, 0, 0, 0, 0, bits=arch.data_bits, acc_bits=arch.acc_bits, source=source, target=target), arch)

    def cycles(nest: Nest) -> float:
        walked = nest.outer, [replace(loop, init=0, y=0) for loop in nest.reduce]
        outer, reduce = (tuple(loop.extent for loop in merged(loops, arch)) for loops in walked)
        if len(reduce) > arch.loops or max((*outer, *reduce), default=1) > most:
            return inf
        levels = arch.loops - len(reduce)
        repeated, outer = outer[: max(len(outer) - levels, 0)], outer[max(len(outer) - levels, 0) :]
        outer, reduce = (extents if prod(extents) > most else (prod(extents),) for extents in (outer, reduce))
        return prod(repeated) * once(outer, reduce, prod(loop.extent for loop in nest.lane[1:]), nest.source, nest.target)

    return cycles


def group_cost(arch: Arch) -> Callable[[Group, Mapping[str, int]], float]:
    """What a group is charged for in `fold`: its cycles for a batch, bound as suits it best, and the place that its weights take.

    A word of weights must save a cycle for every image of a batch, or be done without: at 16 x 4 sixteen times what it takes to load it,
    so that products of cores pay even where they leave a program no room in the weight memory, and it comes in anew for every batch.
    """
    known: dict[Hashable, float] = {}
    cycles = nest_cost(arch)

    def charged(group: Group, size: Mapping[str, int]) -> float:
        size = {**size, "n": arch.rows, "+": 2}
        shape, _ = kind(group, size)
        if shape not in known:
            step = bind(group, arch.tile, size, arch.room, cycles)[0]
            words = packed_length(group.weight_axes, [*step.lane, *step.reduce], "w", size) // arch.lanes
            known[shape] = spent(step, arch.tile, size, cycles) + arch.rows * words
        return known[shape]

    return charged
