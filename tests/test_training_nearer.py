"""The circuit of a scale's step against the rule of the prior: every size of energy, and the ends of what an index may scale."""

import numpy as np
from amaranth.sim import Simulator, SimulatorContext

from bayestt.algebra.fixed import requantize
from bayestt.algebra.reciprocal import reciprocal
from bayestt.ir.rank_scale import DAMPING, SCALE_BITS, SCALE_FRAC
from bayestt.ir.training import MOST_SCALED
from hw.training.gateware.nearer import Nearer

LARGEST = 1 << 14
"""The square of the largest latent."""


def test_squares_move_as_the_prior_says() -> None:
    random = np.random.default_rng(0)
    entries = np.concatenate([[0, 0, 1, 1, MOST_SCALED, MOST_SCALED], random.integers(0, MOST_SCALED + 1, 300)])
    part = np.concatenate([[0, 0, 1, 0, 1, 0], random.random(300) ** 3])
    energy = (part * entries * LARGEST).astype(np.int64)
    squares = np.concatenate([[0, (1 << SCALE_BITS) - 1] * 3, random.integers(0, LARGEST << SCALE_FRAC, 300)])
    circuit, found = Nearer(), []

    async def bench(context: SimulatorContext) -> None:
        for cycle in range(len(squares) + Nearer.latency):
            at = min(cycle, len(squares) - 1)
            for port, value in ((circuit.square, squares), (circuit.energy, energy), (circuit.entries, entries)):
                context.set(port, int(value[at]))
            if cycle >= Nearer.latency:
                found.append(context.get(circuit.nearer))
            await context.tick()

    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    mantissa, exponent = reciprocal(entries + 1)
    best = np.array([requantize(e * m, int(x) - SCALE_FRAC, 32) for e, m, x in zip(energy, mantissa, exponent, strict=True)])
    assert found == (squares + requantize(best - squares, DAMPING, 32)).tolist()
