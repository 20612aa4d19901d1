"""How many cycles a program takes, exactly: the gateware is held to it."""

from amaranth.lib import data

from hw.gateware.datapath import LATENCY
from hw.program import Program


def cycles(program: Program, batches: int = 1) -> int:
    """Cycles from the first element of the first batch to the last score of the last, when neither stream ever waits.

    The next batch comes in while the scores of the one before go out, and runs when both are done.
    """
    setup = program.setup
    fill = setup.image_last - setup.image_first + 1
    send = setup.score_last - setup.score_first + 1
    run = sum(map(instruction_cycles, program.instructions))
    return fill + run + (batches - 1) * (max(fill, send) + run) + send + 1


def instruction_cycles(instruction: data.Const) -> int:
    """Cycles of one instruction: fetch, start, one for each step, or for each lane to drain where those are more, until all is written."""
    reduction = tiles = 1
    for number, loop in enumerate(instruction.loops):
        if number < instruction.reduce:
            reduction *= loop.steps + 1
        else:
            tiles *= loop.steps + 1
    return 2 + reduction + (tiles - 1) * max(reduction, instruction.lanes) + instruction.lanes + LATENCY
