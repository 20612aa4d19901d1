"""The fetcher: the code memory's instructions in turn, over and over, and none that was there before."""

from itertools import cycle, pairwise

import pytest
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.arch import Arch
from hw.gateware.fetcher import Fetcher

ARCH = Arch(rows=1, lanes=1, loops=1, extent_bits=2, code_depth=5)


@settings(max_examples=30, deadline=None)
@given(
    programs=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    counts=st.lists(st.integers(1, 12), min_size=3, max_size=3),
    pauses=st.lists(st.integers(0, 5), min_size=1, max_size=9),
)
def test_instructions_come_in_turn_and_after_a_stop_those_of_the_next_program(
    programs: list[int], counts: list[int], pauses: list[int]
) -> None:
    found = _fetched([list(range(10 * number, 10 * number + size)) for number, size in enumerate(programs)], counts, pauses)
    for number, (size, count) in enumerate(zip(programs, counts, strict=False)):
        given = [(x, first) for _, x, first in found[number]]
        assert given == [(10 * number + place % size, place % size == 0) for place in range(count)]


@pytest.mark.parametrize(("size", "cycles"), [(1, 4), (2, 7), (5, 16)])
def test_an_instruction_every_three_cycles_and_one_more_at_the_end(size: int, cycles: int) -> None:
    (found,) = _fetched([list(range(size))], [3 * size], [0])
    firsts = [cycle for cycle, _, first in found if first]
    assert [after - before for before, after in pairwise(firsts)] == [cycles, cycles]


def test_the_last_instruction_that_there_is_room_for_must_end() -> None:
    fetcher = Fetcher(ARCH)
    seen = []

    async def bench(context: SimulatorContext) -> None:
        await _write(context, fetcher, [0] * ARCH.code_depth, ends=False)
        context.set(fetcher.o.ready, 1)
        for _ in range(4 * ARCH.code_depth + 4):
            seen.append((context.get(fetcher.o.valid), context.get(fetcher.beyond)))
            await context.tick()

    _run(fetcher, bench)
    assert [beyond for valid, beyond in seen if valid].index(1) == ARCH.code_depth - 1


def _fetched(programs: list[list[int]], counts: list[int], pauses: list[int]) -> list[list[tuple[int, int, bool]]]:
    """What comes of each program, each after another was there: in which cycle, an instruction's `x`, and whether it is the first one."""
    fetcher, found = Fetcher(ARCH), []

    async def bench(context: SimulatorContext) -> None:
        for code, count in zip(programs, counts, strict=False):
            await _write(context, fetcher, code)
            of_program, pause, now = [], cycle(pauses), 0
            wait = next(pause)
            while len(of_program) < count:
                context.set(fetcher.o.ready, wait == 0)
                if context.get(fetcher.o.valid) and wait == 0:
                    of_program.append((now, context.get(fetcher.o.payload).x, bool(context.get(fetcher.first))))
                    wait = next(pause) + 1
                wait, now = max(wait - 1, 0), now + 1
                await context.tick()
            context.set(fetcher.o.ready, 0)
            found.append(of_program)

    _run(fetcher, bench)
    return found


async def _write(context: SimulatorContext, fetcher: Fetcher, code: list[int], ends: bool = True) -> None:
    """Write a program while nothing is fetched."""
    context.set(fetcher.stop, 1)
    for place, x in enumerate(code):
        context.set(fetcher.write.addr, place)
        context.set(fetcher.write.data, {"x": x, "end": ends and place == len(code) - 1})
        context.set(fetcher.write.en, 1)
        await context.tick()
    context.set(fetcher.write.en, 0)
    await context.tick().repeat(2)
    context.set(fetcher.stop, 0)


def _run(fetcher: Fetcher, bench) -> None:
    """Simulate a fetcher under a testbench."""
    simulator = Simulator(fetcher)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
