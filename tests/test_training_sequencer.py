"""The reader of instructions: in what order they come, with which shifts, and that each waits for all before it."""

from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest
from amaranth.sim import Simulator, SimulatorContext

from hw.training.arch import Kind, TrainingArch
from hw.training.gateware.sequencer import FETCH_CYCLES, MULTIPLY_CYCLES, UNIT_CYCLES, Sequencer

ARCH = TrainingArch(lanes=4, activation_depth=8, error_depth=8, latent_depth=8, code_depth=4, contractions=4)
Bench = Callable[[SimulatorContext], Coroutine]


def test_parts_come_in_turn_with_the_shifts_of_their_contractions() -> None:
    code = [
        {"kind": Kind.MULTIPLY, "number": 2, "lanes": 3, "shift": 0},
        {"kind": Kind.PEAK, "number": 1, "lanes": 1, "end": 1},
        {"kind": Kind.CONTROL, "number": 3, "lanes": 1, "end": 1},
    ]
    # The last one, two that make the first part, the first part again, and the last one.
    assert _given(code, [True, True, False]) == [
        [(Kind.MULTIPLY, 12, 0), (Kind.PEAK, 0, MULTIPLY_CYCLES + 3)],
        [(Kind.MULTIPLY, 12, 0), (Kind.PEAK, 0, MULTIPLY_CYCLES + 3)],
        [(Kind.CONTROL, 0, 0)],
    ]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize(("ends", "restarts"), [("", [True]), ("last", [True, False]), ("last", [True, False, False])])
def test_no_instruction_is_given_twice_where_there_is_none_left(depth: int, ends: str, restarts: list[bool]) -> None:
    """Code that ends nothing, or a part behind one that takes all the room, whatever that is; also when asked again."""
    code = [{"kind": Kind.PEAK, "lanes": 1, "end": bool(ends) and k + 1 == depth} for k in range(depth)]
    first, *others = _given(code, restarts, replace(ARCH, code_depth=depth))
    assert [kind for kind, *_ in first] == [Kind.PEAK] * depth + [None] * (not ends)
    assert others == [[(None, 0, 0)]] * (len(restarts) - 1)


def test_a_part_that_begins_anew_behind_one_that_was_not_there_is_given() -> None:
    code = [{"kind": Kind.PEAK, "lanes": 1}] * 3 + [{"kind": Kind.ODDS, "lanes": 1, "end": 1}]
    whole = [(Kind.PEAK, 0, 0), *[(Kind.PEAK, 0, UNIT_CYCLES)] * 2, (Kind.ODDS, 0, UNIT_CYCLES)]
    assert _given(code, [True, False, True]) == [whole, [(None, 0, 0)], whole]


def test_an_instruction_is_never_done_while_it_has_to_stop() -> None:
    """Nor does another one begin; when it no longer has to, all goes on."""
    sequencer, found = Sequencer(ARCH), []

    async def bench(context: SimulatorContext) -> None:
        context.set(sequencer.idle, 1)
        context.set(sequencer.o.ready, 1)
        await _write(context, sequencer, [{"kind": Kind.PEAK}, {"kind": Kind.ODDS, "end": 1}])
        for stops in (0, 1):
            context.set(sequencer.begin, 1)
            context.set(sequencer.restart, 1)
            for cycle in range(6 * UNIT_CYCLES):
                context.set(sequencer.stop, stops and UNIT_CYCLES <= cycle < 4 * UNIT_CYCLES)
                if context.get(sequencer.o.valid):
                    found.append((cycle, Kind(context.get(sequencer.o.payload.kind))))
                if context.get(sequencer.done):
                    found.append((cycle, None))
                await context.tick()
                context.set(sequencer.begin, 0)

    _run(sequencer, bench)
    (_, first), (second, _), (done, _), *stopped = found
    assert len(stopped) == 3 and stopped[0] == (found[0][0], first)
    assert stopped[1][0] - second == stopped[2][0] - done > 2 * UNIT_CYCLES


def _given(code: list[dict], restarts: list[bool], arch: TrainingArch = ARCH) -> list[list[tuple[Kind | None, int, int]]]:
    """The instructions of every part: their kind, their shift, and how long after the last step of the one before they were fetched.

    Of one beyond the memory, none.
    """
    sequencer, parts = Sequencer(arch), []

    async def bench(context: SimulatorContext) -> None:
        context.set(sequencer.idle, 1)
        await _write(context, sequencer, code)
        for restart in restarts:
            parts.append([])
            context.set(sequencer.begin, 1)
            context.set(sequencer.restart, restart)
            await context.tick()
            context.set(sequencer.begin, 0)
            waited = FETCH_CYCLES
            while len(parts[-1]) <= len(code):
                cycles, done, beyond = 0, False, False
                while not context.get(sequencer.o.valid) and not done and not beyond:
                    done, beyond = bool(context.get(sequencer.done)), bool(context.get(sequencer.beyond))
                    await context.tick()
                    cycles += 1
                if beyond:
                    parts[-1].append((None, 0, cycles - waited))
                    await context.tick().repeat(UNIT_CYCLES)
                    assert not context.get(sequencer.o.valid)
                    break
                if done:
                    assert cycles == UNIT_CYCLES
                    break
                given = context.get(sequencer.o.payload)
                parts[-1].append((Kind(given.kind), given.shift, cycles - waited))
                context.set(sequencer.o.ready, 1)
                await context.tick()
                context.set(sequencer.o.ready, 0)
                context.set(sequencer.idle, 0)
                await context.tick().repeat(7)
                context.set(sequencer.idle, 1)
                waited = FETCH_CYCLES

    async def control(context: SimulatorContext) -> None:
        numbers = [0, 0]
        while True:
            numbers = [context.get(sequencer.number), *numbers[:1]]
            await context.tick()
            context.set(sequencer.control, {"shift": 10 + numbers[1]})

    _run(sequencer, bench, control)
    return parts


async def _write(context: SimulatorContext, sequencer: Sequencer, code: list[dict]) -> None:
    """Code from a host."""
    context.set(sequencer.write.en, 1)
    for address, fields in enumerate(code):
        context.set(sequencer.write.addr, address)
        context.set(sequencer.write.data, fields)
        await context.tick()
    context.set(sequencer.write.en, 0)


def _run(sequencer: Sequencer, bench: Bench, *others: Bench) -> None:
    """Simulate under a testbench, while others look on."""
    simulator = Simulator(sequencer)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    for other in others:
        simulator.add_testbench(other, background=True)
    simulator.run()
