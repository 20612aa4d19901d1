"""The rounding circuit against the rounding rule: every shift, both switches, all the numbers where something turns."""

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from bayestt.algebra.fixed import requantize, wrap
from hw.arch import Arch
from hw.gateware.requantize import Requantize


@pytest.mark.parametrize(("acc_bits", "data_bits"), [(32, 8), (20, 4), (16, 16)])
def test_the_circuit_keeps_the_rounding_rule(acc_bits: int, data_bits: int) -> None:
    arch = Arch(rows=64, acc_bits=acc_bits, data_bits=data_bits)
    numbers = _turning_points(acc_bits, data_bits).reshape(-1, arch.rows)
    settings = [(shift, relu, saturate) for shift in range(32) for relu in (0, 1) for saturate in (0, 1)]
    circuit, found = Requantize(arch), []

    async def bench(context: SimulatorContext) -> None:
        for setting in settings:
            mode = dict(zip(("shift", "relu", "saturate"), setting, strict=True))
            for cycle in range(len(numbers) + circuit.latency):
                context.set(circuit.i.valid, cycle < len(numbers))
                here = min(cycle, len(numbers) - 1)
                context.set(circuit.i.payload, {"numbers": numbers[here].tolist(), "y": here, "mode": mode})
                assert context.get(circuit.o.valid) == (cycle >= circuit.latency)
                if cycle >= circuit.latency:
                    found.append(list(context.get(circuit.o.payload.numbers)))
                    assert context.get(circuit.o.payload.y) == cycle - circuit.latency
                await context.tick()

    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    expected = [requantize(numbers, shift, data_bits if saturate else acc_bits, bool(relu)) for shift, relu, saturate in settings]
    assert np.array_equal(np.reshape(found, np.shape(expected)), expected)


def _turning_points(acc_bits: int, data_bits: int) -> np.ndarray:
    """Numbers next to every power of two, half, end of range; and random ones: a multiple of 64 in all."""
    near = np.arange(-2, 3)
    powers = 1 << np.arange(acc_bits)
    ends = (((1 << (data_bits - 1)) - 1) << np.arange(max(acc_bits - data_bits, 1))) + powers[: max(acc_bits - data_bits, 1)] // 2
    edges = np.concatenate([(side * points[:, None] + near).ravel() for side in (1, -1) for points in (powers, 3 * powers // 2, ends)])
    random = np.random.default_rng(0).integers(-(1 << (acc_bits - 1)), 1 << (acc_bits - 1), -len(edges) % 64 + 64)
    return wrap(np.concatenate([edges, random]), acc_bits)
