"""How long an instruction must wait for the results that it reads: found when a program is assembled, so that no circuit has to look."""

from collections.abc import Sequence

import numpy as np
from amaranth.lib import data

from hw.arch import Arch
from hw.emulate import copies, shape, steps_at
from hw.gateware.tile import LATENCY

FETCH_CYCLES = 4
"""Cycles from when an instruction begins until the next one can."""


def waits(instructions: Sequence[data.Const], arch: Arch) -> list[int]:
    """For every instruction of a segment how many cycles between the step before its first and that one suffice, so that it reads no
    result before it is written; as few as do.

    A step may read a word of the data memory in the cycle after the one in which it is written; only what the latest steps compute is not
    written yet. Nor may its first reduction end before the lanes of the reduction before it have left. Copies wait for everything before
    them by themselves, as what follows them does. And from one instruction to the next pass `FETCH_CYCLES`.
    """
    found: list[int] = []
    late: dict[int, int] = {}  # by address, how many cycles after the latest step a word is written
    before = instructions[-1]
    for instruction in instructions:
        reductions, steps = shape(instruction)
        head = np.arange(min(reductions * steps, max(late.values(), default=0)))
        at = (head // steps * max(steps, instruction.lanes) + head % steps).tolist()
        addresses = steps_at(instruction, arch, head)["x"].tolist()
        read = {} if copies(instruction) else dict(zip(reversed(addresses), reversed(at), strict=True))
        leaving = 0 if copies(before) or copies(instruction) else before.lanes - steps
        needed = (late[address] - read[address] for address in late.keys() & read.keys())
        found.append(max([0, FETCH_CYCLES - duration(before), leaving, *needed]))
        passed = found[-1] + duration(instruction)
        late = {} if copies(instruction) else {address: after - passed for address, after in late.items() if after > passed}
        late |= _writes(instruction, arch)
        before = instruction
    return found


def duration(instruction: data.Const) -> int:
    """Cycles from an instruction's first step to its last one, that included."""
    reductions, steps = shape(instruction)
    return steps + (reductions - 1) * max(steps, instruction.lanes)


def _writes(instruction: data.Const, arch: Arch) -> dict[int, int]:
    """How many cycles after an instruction's last step those words of the data memory are written that are not by then, by address."""
    if instruction.final or copies(instruction):
        return {}
    reductions, steps = shape(instruction)
    period = max(steps, instruction.lanes)
    last = np.arange(max(0, reductions - -(-(LATENCY + instruction.lanes) // period)), reductions)
    y = steps_at(instruction, arch, (last + 1) * steps - 1)["y"].tolist()
    return {
        (first + lane * instruction.lane_y) % (1 << arch.address_bits): after
        for number, first in zip(last.tolist(), y, strict=True)
        for lane in range(instruction.lanes)
        if (after := LATENCY + lane - (reductions - 1 - number) * period) > 0
    }
