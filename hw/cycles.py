"""How many cycles a program takes, exactly: the gateware is held to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from amaranth.lib import data

from bayestt.ir.nest import Nest
from hw.arch import Arch
from hw.assemble import instructions
from hw.emulate import copies, shape
from hw.gateware.external import External
from hw.gateware.tile import LATENCY
from hw.program import Program
from hw.waits import duration

STAGES = 6
"""Cycles from when an instruction may begin to its first step: found, offered, taken, and through the stages of the walker."""
STORE_STAGES = 3
"""Cycles from a store's last step to when its word leaves."""
LOAD_STAGES = 1
"""Cycles from a load's last step to when it asks for its word."""


_LONG_AGO = -(1 << 10)
"""A cycle so early that no instruction waits for what was then."""


@dataclass(frozen=True)
class _Moment:
    """The cycle of the latest step, and the first in which all that it does is done; was it a copy's."""

    step: int
    done: int
    copied: bool = False


def cycles(program: Program, batches: int = 1) -> int:
    """Cycles of so many batches, from the first element or program word to the last score, when no stream ever waits.

    A resident program is there already, and the next batch comes in while one is computed. Every other program comes in again for each
    batch, segment by segment. External memory answers after `External.latency` cycles.
    """
    if batches == 0:
        return 0
    if program.resident:
        return _resident(program, batches)
    return batches * _anew(program)


def nest_cycles(nest: Nest, arch: Arch) -> int:
    """Cycles of all instructions of a nest, wherever its constants lie, when nothing waits for results."""
    words = instructions(replace(nest, w=0, init=0), arch)
    return sum(instruction_cycles(arch.instruction.from_bits(word)) for word in words)


def instruction_cycles(instruction: data.Const) -> int:
    """Cycles from the last step before an instruction to its own last one: its wait, then those of its reductions, each of which begins
    when its steps are over and the lanes of the one before have left; those of a copy until all its words are there.
    """
    if copies(instruction):
        return STAGES + shape(instruction)[0] + _copy_stages(instruction)
    return instruction.wait + duration(instruction)


def _resident(program: Program, batches: int) -> int:
    """Cycles of batches of a program that stays loaded."""
    code, fill, send = program.instructions, _words(program.image), _words(program.score)
    filled, ends, sent = -1, [-1, -1], 0
    moment = _Moment(_LONG_AGO, 0)
    for _ in range(batches):
        filled = max(filled, ends[-2]) + fill
        moment = _issued(code, moment, filled + 1, sent, program.arch)
        ends.append(moment.step)
        sent = moment.done + send
    return sent + 2


def _anew(program: Program) -> int:
    """Cycles of one batch of a program that comes in for every batch."""
    now, send = 0, _words(program.score)
    for number, (load, segment) in enumerate(zip(program.loads, program.segments, strict=True)):
        loaded = now + len(load)
        begins = loaded + 4
        if number == 0 and program.source == "image":
            begins = max(begins, loaded + 2 + _words(program.image))
        code = tuple(map(program.arch.instruction.from_bits, segment.code))
        moment = _issued(code, _Moment(_LONG_AGO, now), begins, 0, program.arch)
        now = moment.done + 1
    return moment.done + send + 2


def _issued(code: Sequence[data.Const], moment: _Moment, begins: int, sent: int, arch: Arch) -> _Moment:
    """The last step of instructions of which the first may begin in a cycle, and those that give scores when others have been `sent`."""
    for number, instruction in enumerate(code):
        alone = copies(instruction) or moment.copied
        gate = max(begins if number == 0 else 0, sent if instruction.final else 0, moment.done if alone else 0)
        first = max(moment.step + 1 + instruction.wait, gate + STAGES)
        if copies(instruction):
            last = first + shape(instruction)[0] - 1
            moment = _Moment(last, last + 1 + _copy_stages(instruction), True)
        else:
            last = first + duration(instruction) - 1
            moment = _Moment(last, last + LATENCY + instruction.lanes + arch.tiles - 1)
    return moment


def _copy_stages(instruction: data.Const) -> int:
    """Cycles from a copy's last step to when its word is there."""
    return LOAD_STAGES + External.latency if instruction.load else STORE_STAGES


def _words(addresses: np.ndarray) -> int:
    """How many words lie from the first address to the last."""
    return int(addresses.max() - addresses.min()) + 1
