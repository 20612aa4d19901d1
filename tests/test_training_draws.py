"""The circuit of the shift register against the register: many draws, and any number before them."""

import numpy as np
from amaranth.sim import Simulator, SimulatorContext

from bayestt.algebra.lfsr import PERIOD, draw, draws
from hw.training.gateware.draws import Draws


def test_draws_come_one_after_the_other_and_only_when_taken() -> None:
    random, circuit = np.random.default_rng(0), Draws()
    takes, found = random.integers(0, 2, 600), []

    async def bench(context: SimulatorContext) -> None:
        for take in takes.tolist():
            found.append((context.get(circuit.register), context.get(circuit.draw)))
            context.set(circuit.advance, take)
            await context.tick()

    _run(circuit, bench)
    cycle = np.concatenate([[1], draws(1, len(takes))])
    taken = np.cumsum(takes) - takes
    assert np.array_equal(found, np.transpose([cycle[taken], cycle[taken + 1]]))


def test_a_register_that_was_written_has_its_own_next_draw() -> None:
    """Whether or not a draw is taken in that cycle."""
    random, circuit = np.random.default_rng(1), Draws()
    registers, found = [*(1 << bit for bit in range(16)), *random.integers(1, PERIOD + 1, 300).tolist(), PERIOD], []

    async def bench(context: SimulatorContext) -> None:
        context.set(circuit.en, 1)
        for number, register in enumerate(registers):
            context.set(circuit.written, register)
            context.set(circuit.advance, number % 2)
            await context.tick()
            found.append((context.get(circuit.register), context.get(circuit.draw)))

    _run(circuit, bench)
    assert found == [(register, draw(register)) for register in registers]


def _run(circuit: Draws, bench) -> None:
    """Simulate a shift register under a testbench."""
    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
