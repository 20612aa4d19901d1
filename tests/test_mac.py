"""The multiplier array against integer sums, and its drain."""

import numpy as np
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.algebra.fixed import wrap
from hw.arch import Arch
from hw.gateware.mac import Mac


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 3),
    lanes=st.integers(1, 4),
    acc_bits=st.integers(12, 32),
    used=st.integers(1, 4),
    maximum=st.booleans(),
    extreme=st.booleans(),
    bubbles=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_wrap_and_leave_lane_by_lane(
    rows: int, lanes: int, acc_bits: int, used: int, maximum: bool, extreme: bool, bubbles: bool, seed: int
) -> None:
    """And where the largest is asked for, it leaves on the first lane."""
    arch = Arch(rows=rows, lanes=lanes, acc_bits=max(acc_bits, 16 * maximum))
    random, used, mac = np.random.default_rng(seed), 1 if maximum else min(used, lanes), Mac(arch)

    def numbers(bits: int, count: int) -> list[int]:
        low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return (random.choice([low, high], count) if extreme else random.integers(low, high + 1, count)).tolist()

    steps, sums, lasts = [], [], []
    for _ in range(6):
        # As close together as the contract allows, now and then: `used` cycles from one last step to the next.
        length = used + int(random.integers(0, 3))
        acc = np.array(numbers(arch.acc_bits, lanes))
        start, acc = acc.tolist(), np.tile(acc[:, None], rows)
        for number in range(length):
            x, w = numbers(8, rows), numbers(8, lanes)
            acc = np.maximum(acc, np.outer(w, x)) if maximum else acc + np.outer(w, x)
            y = 40 * len(lasts) if number == length - 1 else 9
            mode = {"lanes": used, "lane_y": 3, "maximum": maximum, "shift": len(lasts)}
            steps.append({"x": x, "w": w, "init": start, "first": number == 0, "last": number == length - 1, "y": y, "mode": mode})
            steps += [None] * int(bubbles and random.integers(0, 2))
        lasts.append(max(cycle for cycle, step in enumerate(steps) if step))
        sums += wrap(acc, arch.acc_bits)[:used].tolist()
    found, when, where = [], [], []

    async def bench(context: SimulatorContext) -> None:
        for cycle, step in enumerate([*steps, *[None] * (mac.latency + used)]):
            if context.get(mac.o.valid):
                found.append(list(context.get(mac.o.payload.numbers)))
                where.append((context.get(mac.o.payload.y), context.get(mac.o.payload.mode.shift)))
                when.append(cycle)
            context.set(mac.i.valid, step is not None)
            context.set(mac.i.payload, step or {"x": numbers(8, rows), "first": 1, "last": 1})
            await context.tick()

    simulator = Simulator(mac)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == sums
    assert where == [(40 * number + 3 * lane, number) for number in range(len(lasts)) for lane in range(used)]
    assert when == [last + mac.latency + lane for last in lasts for lane in range(used)]
