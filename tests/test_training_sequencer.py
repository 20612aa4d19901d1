"""The reader of instructions: in what order they come, with which shifts, and that each waits for all before it."""

import pytest
from amaranth.sim import Simulator, SimulatorContext

from hw.training.arch import Kind, TrainingArch
from hw.training.gateware.sequencer import FETCH_CYCLES, MULTIPLY_CYCLES, UNIT_CYCLES, Sequencer

ARCH = TrainingArch(lanes=4, activation_depth=8, error_depth=8, latent_depth=8, code_depth=4, contractions=4)


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


def test_code_that_ends_nothing_is_told() -> None:
    with pytest.raises(EOFError):
        _given([{"kind": Kind.MULTIPLY, "lanes": 1}] * 4, [True])


def _given(code: list[dict], restarts: list[bool]) -> list[list[tuple[Kind, int, int]]]:
    """The instructions of every part: their kind, their shift, and how long after the last step of the one before they were fetched."""
    sequencer, parts = Sequencer(ARCH), []

    async def bench(context: SimulatorContext) -> None:
        context.set(sequencer.idle, 1)
        for address, fields in enumerate(code):
            context.set(sequencer.write.addr, address)
            context.set(sequencer.write.data, fields)
            context.set(sequencer.write.en, 1)
            await context.tick()
        context.set(sequencer.write.en, 0)
        for restart in restarts:
            parts.append([])
            context.set(sequencer.begin, 1)
            context.set(sequencer.restart, restart)
            await context.tick()
            context.set(sequencer.begin, 0)
            waited = FETCH_CYCLES
            while True:
                cycles, done = 0, False
                while not context.get(sequencer.o.valid) and not done:
                    if context.get(sequencer.beyond):
                        raise EOFError
                    done = bool(context.get(sequencer.done))
                    await context.tick()
                    cycles += 1
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

    simulator = Simulator(sequencer)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(control, background=True)
    simulator.run()
    return parts
