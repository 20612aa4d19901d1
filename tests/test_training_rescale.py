"""The rounding circuit for shifts to either side against its rule: every shift, all the numbers where something turns."""

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from bayestt.algebra.fixed import rescale, wrap
from hw.training.gateware.rescale import Rescale


@pytest.mark.parametrize(("bits", "shift_bits", "to_bits"), [(9, 6, 16), (25, 8, 16), (32, 7, 31), (16, 4, 8)])
def test_the_circuit_keeps_the_rounding_rule(bits: int, shift_bits: int, to_bits: int) -> None:
    last = 1 << (shift_bits - 1)
    shifts = [shift for shift in range(-last, last) if abs(shift) < 36] + [-last, last - 1]
    numbers = _turning_points(bits, to_bits)
    steps = np.random.default_rng(0).permutation([(number, shift) for number in numbers.tolist() for shift in shifts]).tolist()
    circuit, found = Rescale(bits, shift_bits, to_bits), []

    async def bench(context: SimulatorContext) -> None:
        for cycle in range(len(steps) + circuit.latency):
            value, shift = steps[min(cycle, len(steps) - 1)]
            context.set(circuit.value, value)
            context.set(circuit.shift, shift)
            if cycle >= circuit.latency:
                found.append(context.get(circuit.number))
            await context.tick()

    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == [int(rescale(np.array(value), shift, to_bits)) for value, shift in steps]


def _turning_points(bits: int, to_bits: int) -> np.ndarray:
    """Numbers next to every power of two, half of one, and what a shift to either side makes the end of the range; and random ones."""
    near, powers, top = np.arange(-2, 3), 1 << np.arange(bits), (1 << (to_bits - 1)) - 1
    up = np.arange(max(bits - to_bits, 0) + 1)
    ends = np.concatenate([(top << up) + ((1 << up) >> 1), top >> np.arange(to_bits)])
    edges = np.concatenate([(side * points[:, None] + near).ravel() for side in (1, -1) for points in (powers, 3 * powers // 2, ends)])
    random = np.random.default_rng(bits).integers(-(1 << (bits - 1)), 1 << (bits - 1), 40)
    return np.unique(wrap(np.concatenate([edges, random]), bits))
