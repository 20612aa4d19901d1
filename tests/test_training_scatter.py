"""Where the circuit sends lanes' results against where the emulator does."""

import numpy as np
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.algebra.fixed import saturate
from hw.training.arch import Bank, TrainingArch
from hw.training.emulate import lane_offsets
from hw.training.gateware.scatter import Scatter

ARCH = TrainingArch(lanes=16, activation_depth=64, error_depth=64, latent_depth=64)


@settings(max_examples=30, deadline=None)
@given(
    lanes=st.integers(1, 16),
    turns=st.tuples(st.integers(0, 4), st.integers(0, 3)),
    moves=st.tuples(*[st.integers(0, (1 << ARCH.address_bits) - 1)] * 3),
    target=st.sampled_from([Bank.ACTIVATION, Bank.ERROR, Bank.GRADIENT]),
    seed=st.integers(0, 99),
)
def test_every_lane_s_result_goes_to_its_element(
    lanes: int, turns: tuple[int, int], moves: tuple[int, int, int], target: Bank, seed: int
) -> None:
    random = np.random.default_rng(seed)
    mode = {"lanes": lanes, "lane_y": moves[0], "turns": turns, "jumps": moves[1:], "target": target}
    tracked, number_of = random.integers(0, 2, 4).tolist(), random.integers(0, ARCH.contractions, 4).tolist()
    numbers, starts = random.integers(-(1 << 15), 1 << 15, (4, lanes)), random.integers(0, 1 << ARCH.address_bits, 4)
    numbers[random.random(numbers.shape) < 0.3] = -(1 << 15)
    scatter, found, peaks = Scatter(ARCH), [], []

    async def bench(context: SimulatorContext) -> None:
        for k, (reduction, start) in enumerate(zip(numbers, starts, strict=True)):
            named = {**mode, "tracked": tracked[k], "number": number_of[k]}
            for lane, number in enumerate(reduction):
                y = int(start + lane * moves[0]) % (1 << ARCH.address_bits)
                context.set(scatter.i.payload, {"numbers": [int(number)], "y": y, "mode": named})
                context.set(scatter.i.valid, 1)
                await context.tick()
            context.set(scatter.i.valid, 0)
            context.set(scatter.i.payload, {"mode": {**mode, "tracked": 1 - tracked[k], "number": number_of[k] ^ 1}})
            await context.tick().repeat(int(random.integers(1, 3)))
        await context.tick().repeat(3)

    async def reader(context: SimulatorContext) -> None:
        ports = (scatter.o.valid, scatter.o.payload, scatter.peak.valid, scatter.peak.payload)
        async for _, _, valid, made, told, peak in context.tick().sample(*ports):
            if valid:
                found.append((made.y, made.number, Bank(made.target)))
            if told:
                peaks.append((peak.number, peak.magnitude))

    simulator = Simulator(scatter)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(reader, background=True)
    simulator.run()
    y = (starts[:, None] + lane_offsets(ARCH.mode.const(mode))) % (1 << ARCH.address_bits)
    made = saturate(numbers, 8) if target is Bank.ACTIVATION else numbers
    assert found == [(int(at), int(number), target) for at, number in zip(y.ravel(), made.ravel(), strict=True)]
    assert peaks == [(number_of[k], abs(int(number))) for k, reduction in enumerate(made) for number in reduction if tracked[k]]
