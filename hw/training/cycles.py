"""How many cycles a step of training takes, exactly: the gateware is held to it."""

from amaranth.lib import data

from hw.emulate import shape
from hw.training.arch import Kind
from hw.training.gateware.sequencer import FETCH_CYCLES, MULTIPLY_CYCLES, UNIT_CYCLES
from hw.training.program import TrainingProgram
from hw.training.script import pixels

WALK_CYCLES = 5
"""Cycles from when an instruction is there to its first step."""
TELL_CYCLES = 1
"""Cycles of an image for its loss, and for the instructions behind it to begin."""


def cycles(program: TrainingProgram, images: int) -> int:
    """Cycles of a step on so many images, from the first label to when the machine waits for the next one, when no stream ever waits."""
    places = pixels(program)
    fill = int(places.max() - places.min()) + 1
    image = fill + TELL_CYCLES + sum(map(instruction_cycles, program.image_part))
    return images * image + sum(map(instruction_cycles, program.batch_part))


def instruction_cycles(instruction: data.Const) -> int:
    """Cycles of an instruction from when the one before is done: fetched, walked, until all is written."""
    reductions, steps = shape(instruction)
    multiplies = instruction.kind == Kind.MULTIPLY
    apart = max(steps, instruction.lanes)
    walked = (reductions - 1) * apart + steps
    return FETCH_CYCLES + WALK_CYCLES + walked + (MULTIPLY_CYCLES + instruction.lanes if multiplies else UNIT_CYCLES)
