"""Waits: no word is read before it is written, and a cycle less would be too few."""

from collections.abc import Sequence

import numpy as np
import pytest
from amaranth.lib import data
from hypothesis import given, settings
from schedules import cases

from bayestt.ir.schedule import Schedule
from hw.arch import Arch
from hw.assemble import assemble
from hw.emulate import shape, walk
from hw.gateware.tile import LATENCY
from hw.waits import waits

ARCH = Arch(rows=1, lanes=4, loops=2)
STRETCHED = [{"steps": 0}, {"steps": 7, "x": 1, "y": 4}]
"""Loops of eight reductions of one step."""


def early(code: Sequence[data.Const], gaps: Sequence[int], arch: Arch) -> list[int]:
    """The instructions that read a word before it is written, or end a reduction before the lanes of the one before have left.

    Steps are counted one by one; a reduction begins when the lanes of the one before, of the same instruction, can leave.
    """
    now, free, written, found = 0, 0, {}, []
    for number, (instruction, gap) in enumerate(zip(code, gaps, strict=True)):
        if instruction.load or instruction.store:
            now, free, written = now + 1000, 0, {}
            continue
        at = walk(instruction, arch)
        now += gap
        for x, y in zip(at["x"].tolist(), at["y"][:, -1].tolist(), strict=True):
            begins = now + 1
            for now, address in enumerate(x, start=begins):
                found += [number] if written.get(address, -1) >= now else []
            found += [number] if now < free else []
            free = now + instruction.lanes
            if not instruction.final:
                lanes = range(instruction.lanes)
                written |= {(y + lane * instruction.lane_y) % (1 << arch.address_bits): now + LATENCY + lane for lane in lanes}
            now = max(now, begins + instruction.lanes - 1)
        now = begins + len(x) - 1
    return found


def instruction(steps: int, x: int, y: int, **fields: int) -> data.Const:
    """One that sums so many words from `x` on in each of four lanes, which go to `y` and behind it."""
    loops = [{"steps": steps - 1, "x": 1}]
    return ARCH.instruction.const({"x": x, "y": y, "loops": loops, "reduce": 1, "lanes": 4, "lane_y": 1, **fields})


@settings(max_examples=200, deadline=None)
@given(cases(most_nests=5))
def test_nothing_is_read_before_it_is_written(case: tuple[Arch, Schedule, np.ndarray]) -> None:
    arch, schedule, _ = case
    program = assemble(schedule, arch)
    for segment in program.segments:
        code = [*map(arch.instruction.from_bits, segment.code)]
        assert early(code, [each.wait for each in code], arch) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        # The fourth lane lands 3 cycles after the first one's last stage; it is read in the fourth step, the first in the first.
        ([instruction(5, 100, 0), instruction(4, 0, 50)], [0, LATENCY]),
        ([instruction(5, 100, 0), instruction(1, 3, 50)], [3, LATENCY + 3]),
        ([instruction(5, 100, 0), instruction(5, 200, 10), instruction(4, 0, 50)], [0, 0, LATENCY - 5]),
        ([instruction(5, 100, 0), instruction(20, 200, 10), instruction(4, 0, 50)], [0, 0, 0]),
        ([instruction(5, 100, 0), instruction(5, 300, 400, store=1), instruction(4, 0, 50)], [0, 0, 0]),
        ([instruction(5, 100, 0, final=1), instruction(4, 0, 50)], [0, 0]),
        # Eight reductions of a step take as long as their four lanes to leave: the first instruction's results are there by then.
        ([instruction(5, 100, 0), instruction(1, 200, 10, loops=STRETCHED), instruction(5, 0, 50)], [0, 3, 0]),
        # Behind a single step the next instruction is not there yet; and four lanes leave before a single step.
        ([instruction(1, 100, 0), instruction(4, 200, 50)], [3, 3]),
    ],
)
def test_waits_by_hand(code: list[data.Const], expected: list[int]) -> None:
    assert waits(code, ARCH) == expected


def test_a_cycle_less_is_too_few() -> None:
    code = [instruction(5, 100, 0), instruction(6, 2, 10), instruction(7, 9, 20), instruction(8, 22, 30)]
    needed = waits(code, ARCH)
    assert needed[1:] > [0, 0, 0]
    assert early(code, needed, ARCH) == []
    for number in range(1, len(code)):
        less = [wait - (k == number) for k, wait in enumerate(needed)]
        assert number in early(code, less, ARCH)


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 7, 8, 16, 33, 64])
def test_an_instruction_holds_the_longest_wait(lanes: int) -> None:
    assert LATENCY + lanes - 1 < 1 << Arch(lanes=lanes).wait_bits


def test_shapes_are_those_of_the_walk() -> None:
    assert shape(instruction(5, 0, 0)) == (1, 5)
