"""How many cycles a program takes, exactly: the gateware is held to it."""

from dataclasses import replace

from amaranth.lib import data

from bayestt.ir.nest import Nest
from hw.arch import Arch
from hw.assemble import instructions
from hw.gateware.datapath import LATENCY
from hw.gateware.external import External
from hw.program import Program


def cycles(program: Program, batches: int = 1) -> int:
    """Cycles of so many batches, from the first element or program word to the last score, when no stream ever waits.

    A resident program is there already; the next batch comes in while the scores of the one before go out, and runs when both are done.
    Every other program comes in again for each batch, segment by segment. External memory answers after `External.latency` cycles.
    """
    fill = 0 if program.source == "external" else int(program.image.max() - program.image.min()) + 1
    send = int(program.score.max() - program.score.min()) + 1
    run = sum(map(instruction_cycles, program.instructions))
    if program.resident:
        return fill + run + (batches - 1) * (max(fill, send) + run) + send + 1
    load = sum(len(words) + 1 for words in program.loads)
    return batches * (load + fill + run + send + 1)


def nest_cycles(nest: Nest, arch: Arch) -> int:
    """Cycles of all instructions of a nest, wherever its constants lie."""
    words = instructions(replace(nest, w=0, init=0), arch)
    return sum(instruction_cycles(arch.instruction.from_bits(word)) for word in words)


def instruction_cycles(instruction: data.Const) -> int:
    """Cycles of one instruction: fetch, start, one for each step, or for each lane to drain where those are more, until all is written."""
    reduction = tiles = 1
    for number, loop in enumerate(instruction.loops):
        if number < instruction.reduce:
            reduction *= loop.steps + 1
        else:
            tiles *= loop.steps + 1
    if instruction.load or instruction.store:
        return 2 + tiles + 1 + instruction.load * External.latency
    return 2 + reduction + (tiles - 1) * max(reduction, instruction.lanes) + instruction.lanes + LATENCY
