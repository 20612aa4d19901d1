"""The walker against plain counting."""

from itertools import repeat

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import cases, steps

from bayestt.ir.schedule import Schedule
from hw.arch import STREAMS, Arch
from hw.assemble import instructions
from hw.gateware.walker import Walker
from hw.simulate import put, take


@settings(max_examples=25, deadline=None)
@given(cases(), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_walker_counts_as_itertools_does(case: tuple[Arch, Schedule, np.ndarray], stalls: bool, seed: int) -> None:
    arch, schedule, _ = case
    pauses = iter(np.random.default_rng(seed).integers(0, 3, 100_000).tolist()) if stalls else repeat(0)
    words = [word for nest in schedule.nests for word in instructions(nest, arch)]
    expected = [step for nest in schedule.nests for step in steps(nest, arch)]
    walked, _ = _walked(arch, words, len(expected), pauses)
    assert walked == expected


@pytest.mark.parametrize("nest_steps", [1, 5])
@pytest.mark.parametrize("wait", [0, 1, 4])
def test_one_step_a_cycle_from_one_instruction_to_the_next_unless_that_waits(nest_steps: int, wait: int) -> None:
    arch = Arch(loops=2, rows=1, lanes=1)
    fields = {"loops": [{"steps": nest_steps - 1, "x": 1}], "reduce": 1}
    words = [arch.instruction.const({**fields, "wait": number * wait}).as_bits() for number in range(3)]
    walked, cycles = _walked(arch, words, 3 * nest_steps, repeat(0))
    assert [step[0] for step in walked] == 3 * list(range(nest_steps))
    assert cycles == 2 + 3 * nest_steps + wait + 2 * wait


def _walked(arch: Arch, words: list[int], count: int, pauses) -> tuple[list[tuple[int, ...]], int]:
    """What the walker gives for instruction words, and in how many cycles."""
    walker, found, cycles = Walker(arch), [], 0

    async def giver(context: SimulatorContext) -> None:
        await put(context, walker.i, map(arch.instruction.from_bits, words))

    async def taker(context: SimulatorContext) -> None:
        for step in await take(context, walker.o, count, pauses):
            found.append(tuple(step[name] for name in (*STREAMS, "first", "last")))

    async def counter(context: SimulatorContext) -> None:
        nonlocal cycles
        async for _ in context.tick():
            cycles += len(found) < count

    simulator = Simulator(walker)
    simulator.add_clock(1e-6)
    simulator.add_testbench(giver)
    simulator.add_testbench(taker)
    simulator.add_process(counter)
    simulator.run()
    return found, cycles
