"""How many cycles a program takes, exactly: the gateware is held to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from amaranth.lib import data

from bayestt.ir.nest import Nest
from hw.arch import Arch
from hw.assemble import instructions
from hw.emulate import shape
from hw.gateware.datapath import LATENCY
from hw.gateware.external import External
from hw.program import Program

STAGES = 2
"""Cycles from when an instruction begins to its first step."""


@dataclass(frozen=True)
class _Moment:
    """The cycle of the latest step, the one from which it waited for lanes to leave, and the first in which all it does is done."""

    step: int
    ready: int
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
    """Cycles from the last step before an instruction to its own last one: its wait, one for each step, or for each lane where those are
    more (then at most so many); those of a copy until all its words are there.
    """
    tiles, steps = shape(instruction)
    if instruction.load or instruction.store:
        return STAGES + tiles + 1 + instruction.load * External.latency
    return instruction.wait + tiles * max(steps, instruction.lanes)


def _resident(program: Program, batches: int) -> int:
    """Cycles of batches of a program that stays loaded."""
    code, fill, send = program.instructions, _words(program.image), _words(program.score)
    filled, ends, sent = -1, [-1, -1], 0
    moment = _Moment(-STAGES, -STAGES, 0)
    for _ in range(batches):
        filled = max(filled, ends[-2]) + fill
        moment = _issued(code, moment, filled + 1, sent)
        ends.append(moment.step)
        sent = moment.done + send
    return sent + 1


def _anew(program: Program) -> int:
    """Cycles of one batch of a program that comes in for every batch."""
    now, send = 0, _words(program.score)
    for number, (load, segment) in enumerate(zip(program.loads, program.segments, strict=True)):
        loaded = now + len(load)
        begins = loaded + 2
        if number == 0 and program.source == "image":
            begins = max(begins, loaded + _words(program.image) + 1)
        code = tuple(map(program.arch.instruction.from_bits, segment.code))
        moment = _issued(code, _Moment(now, now, now), begins, 0)
        now = moment.done + 1
    return moment.done + send + 1


def _issued(code: Sequence[data.Const], moment: _Moment, begins: int, sent: int) -> _Moment:
    """The last step of instructions of which the first may begin in a cycle, and those that give scores when others have been `sent`."""
    for number, instruction in enumerate(code):
        tiles, steps = shape(instruction)
        copies = bool(instruction.load or instruction.store)
        gate = max(begins if number == 0 else 0, sent if instruction.final else 0, moment.done if copies or moment.copied else 0)
        follows = instruction.wait == 0 and gate < moment.ready
        first = moment.step + 1 if follows else max(moment.step + max(instruction.wait - 1, 0), gate) + STAGES
        if copies:
            last = first + tiles - 1
            moment = _Moment(last, last, last + 1 + instruction.load * External.latency, True)
            continue
        lanes = instruction.lanes
        ready = first + steps - 1
        last = max(ready, moment.done - LATENCY)
        if tiles > 1:
            last += (tiles - 1) * max(steps, lanes)
            ready = last - max(lanes - steps, 0)
        moment = _Moment(last, ready, last + LATENCY + lanes)
    return moment


def _words(addresses: np.ndarray) -> int:
    """How many words lie from the first address to the last."""
    return int(addresses.max() - addresses.min()) + 1
