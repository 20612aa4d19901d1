"""The circuit of the table of reciprocals against the table: every value of few bits, turning points of many."""

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from bayestt.algebra.reciprocal import reciprocal
from hw.training.gateware.reciprocal import Reciprocal


@pytest.mark.parametrize("value_bits", [1, 5, 8, 9, 11, 17, 24])
def test_the_circuit_gives_the_table_s_reciprocals(value_bits: int) -> None:
    values = np.arange(1, 1 << value_bits) if value_bits <= 11 else _turning_points(value_bits)
    circuit, found = Reciprocal(value_bits), []

    async def bench(context: SimulatorContext) -> None:
        for cycle in range(len(values) + circuit.latency):
            context.set(circuit.value, int(values[min(cycle, len(values) - 1)]))
            if cycle >= circuit.latency:
                found.append((context.get(circuit.mantissa), context.get(circuit.exponent)))
            await context.tick()

    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert np.array_equal(found, np.transpose(reciprocal(values)))


def _turning_points(bits: int) -> np.ndarray:
    """Values whose eight leading bits change or lack bits below them, at every power of two, and random ones of every size."""
    random = np.random.default_rng(bits)
    powers = 1 << np.arange(bits)
    near = (powers[:, None] * random.integers(128, 257, (bits, 20)) // 128)[..., None] + np.arange(-1, 2)
    values = np.concatenate([near.ravel(), random.integers(1, 2 * powers, (40, bits)).ravel()])
    return random.permutation(values[(values > 0) & (values < 1 << bits)])
