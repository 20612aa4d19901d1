"""What folding and lowering for our machine are judged by: cycles, by the formula that the gateware is held to."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import cache
from math import inf, prod

from bayestt.ir.bind import bind, kind, spent
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph
from bayestt.ir.group import Group, shape_of
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.pack import packed_length
from hw.arch import Arch, Target
from hw.cycles import nest_cycles

PRICES = (1, 4, 16, 64)
"""What a batch of `rows` images may take longer for each weight word less, in cycles an image: dearer where they have no room else."""


def cost(arch: Arch) -> Callable[[Nest], float]:
    """The cycles of any nest that was lowered for `arch.tile`: those of `nest_cycles`, computed once for all nests of one shape.

    Infinite for a nest that no instruction can run.
    """
    images, _ = arch.tile.lane

    @cache
    def shaped(tiles: int, steps: int, lanes: int, source: str, target: str) -> int:
        lane = (images, Loop("lane", lanes, w=1, init=1))
        loops = (Loop("tiles", tiles, y=arch.rows),), (Loop("steps", steps, x=arch.rows),)
        return nest_cycles(Nest(*loops, lane, 0, 0, 0, 0, bits=arch.data_bits, acc_bits=arch.acc_bits, source=source, target=target), arch)

    def cycles(nest: Nest) -> float:
        deep = sum(loop.extent > 1 for loop in nest.outer + nest.reduce) > arch.loops
        tiles, steps = (prod(loop.extent for loop in loops) for loops in (nest.outer, nest.reduce))
        if not deep and max(tiles, steps) <= 1 << arch.extent_bits:
            return shaped(tiles, steps, prod(loop.extent for loop in nest.lane[1:]), nest.source, nest.target)
        try:
            return nest_cycles(replace(nest, bits=arch.data_bits), arch)
        except ValueError:
            return inf

    return cycles


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

    return min((fold(graph, priced(price)) for price in PRICES), key=batch_cycles)
