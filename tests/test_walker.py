"""The walker against plain counting."""

from collections.abc import Iterable
from itertools import chain, repeat

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import cases, steps

from bayestt.ir.schedule import Schedule
from hw.arch import STREAMS, Arch
from hw.assemble import instructions
from hw.gateware.external import External
from hw.gateware.walker import Walker
from hw.simulate import put


@settings(max_examples=25, deadline=None)
@given(cases(), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_walker_counts_as_itertools_does(case: tuple[Arch, Schedule, np.ndarray], stalls: bool, seed: int) -> None:
    arch, schedule, _ = case
    random = np.random.default_rng(seed)
    holds, pauses = (random.integers(0, most, 100_000 * stalls).tolist() for most in (2, 4))
    words = [word for nest in schedule.nests for word in instructions(nest, arch)]
    expected = [step for nest in schedule.nests for step in steps(nest, arch)]
    assert [step for _, step in _walked(arch, words, len(expected), holds, pauses)] == expected


@pytest.mark.parametrize("nest_steps", [3, 5])
@pytest.mark.parametrize("wait", [0, 1, 4])
def test_one_step_a_cycle_from_one_instruction_to_the_next_unless_that_waits(nest_steps: int, wait: int) -> None:
    arch = Arch(loops=2, rows=1, lanes=1)
    fields = {"loops": [{"steps": nest_steps - 1, "x": 1}], "reduce": 1, "lanes": 1}
    words = [arch.instruction.const({**fields, "wait": number * wait}).as_bits() for number in range(3)]
    walked = _walked(arch, words, 3 * nest_steps)
    assert [step[0] for _, step in walked] == 3 * list(range(nest_steps))
    lengths = np.diff([0, *(cycle for cycle, step in walked if step[-1])])
    assert lengths.tolist() == [5 + nest_steps - 1, nest_steps + wait, nest_steps + 2 * wait]


@pytest.mark.parametrize("nest_steps", [1, 2, 5])
@pytest.mark.parametrize("lanes", [1, 3, 4])
def test_reductions_begin_when_their_lanes_can_leave(nest_steps: int, lanes: int) -> None:
    arch = Arch(loops=2, rows=1, lanes=4)
    fields = {"loops": [{"steps": nest_steps - 1, "x": 1}, {"steps": 3, "x": 1}], "reduce": 1, "lanes": lanes}
    walked = _walked(arch, [arch.instruction.const(fields).as_bits()], 4 * nest_steps)
    begins = [cycle for cycle, step in walked if step[-2]]
    assert np.diff(begins).tolist() == 3 * [max(nest_steps, lanes)]
    assert [step[0] for _, step in walked] == list(range(4 * nest_steps))


def test_no_more_steps_come_when_held_than_an_external_memory_has_room_for() -> None:
    arch = Arch(loops=1, rows=1, lanes=1)
    words = [arch.instruction.const({"loops": [{"steps": 39, "x": 1}], "lanes": 1}).as_bits()]
    held = _walked(arch, words, 40, holds=[0] * 20 + [1] * 30)
    cycles = np.array([cycle for cycle, _ in held])
    assert ((cycles >= 20) & (cycles < 50)).sum() == External.on_way
    assert np.diff(cycles).max() == 31


def _walked(
    arch: Arch, words: list[int], count: int, holds: Iterable[int] = (), pauses: Iterable[int] = ()
) -> list[tuple[int, tuple[int, ...]]]:
    """What the walker gives for instruction words that come after pauses, and in which cycles."""
    walker, found = Walker(arch), []
    held, paused = chain(holds, repeat(0)), chain(pauses, repeat(0))

    async def giver(context: SimulatorContext) -> None:
        await put(context, walker.i, map(arch.instruction.from_bits, words), paused)

    async def taker(context: SimulatorContext) -> None:
        cycle = 0
        while len(found) < count:
            context.set(walker.hold, next(held))
            if context.get(walker.o.valid):
                step = context.get(walker.o.payload)
                found.append((cycle, tuple(step[name] for name in (*STREAMS, "first", "last"))))
            await context.tick()
            cycle += 1

    simulator = Simulator(walker)
    simulator.add_clock(1e-6)
    simulator.add_testbench(giver)
    simulator.add_testbench(taker)
    simulator.run()
    return found
