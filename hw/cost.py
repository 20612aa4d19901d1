"""What lowering for our machine is judged by: the cycles of a nest, by the formula that the gateware is held to."""

from collections.abc import Callable
from functools import cache
from math import prod

from bayestt.ir.nest import Loop, Nest
from hw.arch import Arch
from hw.cycles import nest_cycles


def cost(arch: Arch) -> Callable[[Nest], int]:
    """The cycles of any nest that was lowered for `arch.tile`: those of `nest_cycles`, computed once for all nests of one shape.

    A nest with more loops than an instruction has counts as if its loops could not be merged.
    """
    images, lanes = arch.tile.lane

    @cache
    def shaped(tiles: int, steps: int, lanes_used: int, source: str, target: str) -> int:
        lane = (images, Loop("lane", lanes_used, w=1, init=1))
        loops = (Loop("tiles", tiles, y=arch.rows),), (Loop("steps", steps, x=arch.rows),)
        return nest_cycles(Nest(*loops, lane, 0, 0, 0, 0, bits=arch.data_bits, acc_bits=arch.acc_bits, source=source, target=target), arch)

    def cycles(nest: Nest) -> int:
        deep = sum(loop.extent > 1 for loop in nest.outer + nest.reduce) > arch.loops
        tiles, steps = (prod(loop.extent for loop in loops) for loops in (nest.outer, nest.reduce))
        if deep or max(tiles, steps) > 1 << arch.extent_bits:
            return nest_cycles(nest, arch)
        return shaped(tiles, steps, nest.lane[1].extent if len(nest.lane) > 1 else 1, nest.source, nest.target)

    return cycles
