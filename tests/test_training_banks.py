"""The memories of the training machine against numpy arrays that are read and written by the same steps and results."""

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from bayestt.algebra.fixed import requantize, saturate
from bayestt.ir.training import FACTOR_BITS, GRADIENT_BITS, LATENT_BITS
from hw.training.arch import Bank, Kind, TrainingArch
from hw.training.gateware.banks import BITS, Banks


@pytest.mark.parametrize("lanes", [1, 4])
def test_steps_read_what_results_have_written(lanes: int) -> None:
    arch = TrainingArch(lanes=lanes, activation_depth=8, error_depth=8, latent_depth=8, init_depth=8)
    random, elements = np.random.default_rng(lanes), 8 * lanes
    memory = {bank: np.zeros(elements, np.int64) for bank in Bank}
    memory[Bank.ACTIVATION][0] = 1
    begins = np.zeros(elements, np.int64)
    banks = Banks(arch)

    async def bench(context: SimulatorContext) -> None:
        for _ in range(150):
            for target in random.permutation([*Bank, None]):
                number, y = (
                    int(random.choice([-(1 << 15), (1 << 15) - 1, random.integers(-(1 << 15), 1 << 15)])),
                    int(random.integers(elements)),
                )
                if target is None:
                    begins[y] = number << 15
                    context.set(banks.begin.payload, {"number": number << 15, "y": y})
                    context.set(banks.begin.valid, 1)
                elif target is Bank.GRADIENT:
                    memory[target][y] = saturate(memory[target][y] + number, GRADIENT_BITS)
                else:
                    number >>= GRADIENT_BITS - BITS[target]
                    memory[target][y] = number
                    if target is Bank.LATENT:
                        memory[Bank.GRADIENT][y] = velocity = int(random.integers(-(1 << 15), 1 << 15))
                        context.set(banks.velocity, velocity)
                if target is not None:
                    context.set(banks.result.payload, {"number": number, "target": target, "y": y})
                    context.set(banks.result.valid, 1)
                await context.tick()
                context.set(banks.begin.valid, 0)
                context.set(banks.result.valid, 0)
                await context.tick().repeat(6)
            x_from, w_from = random.permutation([Bank.ACTIVATION, Bank.ERROR, Bank.LATENT])[:2]
            kind = Kind(random.choice([Kind.MULTIPLY, Kind.MOVE, Kind.MASK]))
            if kind is Kind.MASK:
                x_from = Bank.ACTIVATION
            x, y, w, init = (int(random.integers(end)) for end in (elements, elements, 8, 8))
            step = {"x": x, "w": w, "init": init, "y": y, "last": 1, "mode": {"kind": kind, "x_from": x_from, "w_from": w_from}}
            context.set(banks.i.payload, step)
            context.set(banks.i.valid, 1)
            await context.tick()
            context.set(banks.i.valid, 0)
            context.set(banks.i.payload.mode.kind, Kind.MULTIPLY)
            await context.tick().repeat(Banks.latency - 1)
            found = context.get(banks.o.payload)
            assert context.get(banks.o.valid) and (found.last, found.first, found.w_at, found.init_at, found.y) == (1, 0, w, init, y)
            read = {bank: array for bank, array in memory.items()}
            if kind is Kind.MULTIPLY:
                read[Bank.LATENT] = requantize(memory[Bank.LATENT], LATENT_BITS - FACTOR_BITS, FACTOR_BITS)
            assert found.x == read[x_from][x]
            lane = np.arange(lanes)
            if kind is Kind.MULTIPLY:
                assert list(found.w) == read[w_from][w * lanes + lane].tolist()
                assert list(found.init) == begins[init * lanes + lane].tolist()
            if kind is Kind.MASK:
                assert found.error == memory[Bank.ERROR][y]
            if kind is Kind.MOVE:
                assert found.total == memory[Bank.GRADIENT][x]

    simulator = Simulator(banks)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_a_result_a_cycle_is_taken_and_a_step_a_cycle_answered() -> None:
    arch = TrainingArch(lanes=4, activation_depth=8, error_depth=8, latent_depth=8, init_depth=8)
    numbers = np.random.default_rng(0).integers(-(1 << 14), 1 << 14, (2, 32))
    banks, found = Banks(arch), []

    async def bench(context: SimulatorContext) -> None:
        for number in (*numbers[0], *numbers[1]):
            y = (len(found) * 5) % 32
            found.append(y)
            context.set(banks.result.payload, {"number": int(number), "target": Bank.GRADIENT, "y": y})
            context.set(banks.result.valid, 1)
            await context.tick()
        context.set(banks.result.valid, 0)
        await context.tick().repeat(6)
        found.clear()
        context.set(banks.i.valid, 1)
        for x in range(32 + Banks.latency):
            context.set(banks.i.payload, {"x": x % 32, "mode": {"kind": Kind.MOVE, "x_from": Bank.LATENT}})
            if x >= Banks.latency:
                found.append(context.get(banks.o.payload.total))
            await context.tick()

    simulator = Simulator(banks)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    totals = np.zeros(32, np.int64)
    totals[np.arange(32) * 5 % 32] = numbers.sum(0)
    assert found == totals.tolist()
