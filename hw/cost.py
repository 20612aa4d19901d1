"""What folding and lowering for our machine are judged by: cycles, by the formula that the gateware is held to."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import cache
from math import inf, prod

from tqdm import tqdm

from bayestt.ir.bind import bind, kind, spent
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph
from bayestt.ir.group import Group, shape_of
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.pack import packed_length
from hw.arch import STREAMS, Arch, Target
from hw.cycles import nest_cycles

PRICES = (1, 4, 16, 64)
"""What a batch of `rows` images may take longer for each weight word less, in cycles an image: dearer where they have no room else."""


def cost(arch: Arch) -> Callable[[Nest], float]:
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
        outer, reduce = _merged(nest.outer, STREAMS, most), _merged(nest.reduce, ("x", "w"), most)
        if len(reduce) > arch.loops or max((*outer, *reduce), default=1) > most:
            return inf
        levels = arch.loops - len(reduce)
        repeated, outer = outer[: max(len(outer) - levels, 0)], outer[max(len(outer) - levels, 0) :]
        outer, reduce = (extents if prod(extents) > most else (prod(extents),) for extents in (outer, reduce))
        return prod(repeated) * once(outer, reduce, prod(loop.extent for loop in nest.lane[1:]), nest.source, nest.target)

    return cycles


def _merged(loops: tuple[Loop, ...], streams: tuple[str, ...], most: int) -> tuple[int, ...]:
    """The extents of loops when those that go on where the inner one ends become one, as `hw.assemble` has it."""
    merged: list[Loop] = []
    for loop in (loop for loop in loops if loop.extent > 1):
        around = merged[-1] if merged else None
        if (
            around
            and around.extent * loop.extent <= most
            and all(getattr(around, stream) == loop.extent * getattr(loop, stream) for stream in streams)
        ):
            merged[-1] = replace(loop, extent=around.extent * loop.extent)
        else:
            merged.append(loop)
    return tuple(loop.extent for loop in merged)


def folded(graph: Graph, arch: Arch) -> Graph:
    """`fold` in the order that takes our machine the fewest cycles, cores multiplied with each other where that pays.

    More weights must be worth their place: a word of them has to save a cycle for each image. Where they leave a program no room in the
    weight memory, so that it would come in anew for every batch, it has to save more, until they have room or nothing helps.
    """
    known: dict[Hashable, tuple[float, int]] = {}
    nest_cost = cost(arch)

    def cycles_and_words(group: Group, size: Mapping[str, int]) -> tuple[float, int]:
        """What a batch takes for a group, bound as suits it best, and what its weights take in the weight memory."""
        size = {**size, "n": arch.rows, "+": 2}
        shape, _ = kind(group, size)
        if shape not in known:
            step = bind(group, arch.tile, size, arch.room, nest_cost)[0]
            weights = packed_length(group.weight_axes, [*step.lane, *step.reduce], "w", size)
            known[shape] = spent(step, arch.tile, size, nest_cost), weights // arch.lanes
        return known[shape]

    def priced(price: int) -> Callable[[Group, Mapping[str, int]], float]:
        def spent_and_priced(group: Group, size: Mapping[str, int]) -> float:
            cycles, words = cycles_and_words(group, size)
            return cycles + price * arch.rows * words

        return spent_and_priced

    def batch_cycles(choice: Graph) -> float:
        """All contractions, and the loading of weights for which there is no room."""
        contractions = [op for op in choice.ops if op.kind == "CONTRACT"]
        found = [
            cycles_and_words(shape_of(op.args[0], op.name, *(choice[name].axes for name in (*op.args, op.name)), op.window), choice.size)
            for op in contractions
            if len(op.args) == 2
        ]
        words = sum(words for _, words in found)
        return sum(cycles for cycles, _ in found) + (words * arch.chunks(Target.WEIGHTS) if words > arch.weight_depth else 0)

    prices = tqdm(PRICES, desc="fold", unit="price", delay=3, leave=False)
    return min((fold(graph, priced(price)) for price in prices), key=batch_cycles)
