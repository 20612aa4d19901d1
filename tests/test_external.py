"""Copies between the data memory and an external one: every word where it belongs, in order, one a cycle, whatever waits."""

from collections import deque
from itertools import cycle

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.arch import Arch
from hw.gateware.external import External

ARCH = Arch(rows=2, lanes=1, data_depth=64, external_depth=64)
Step = tuple[bool, int, int]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 63), st.integers(0, 63)), max_size=80),
    late=st.lists(st.integers(0, 40), min_size=1, max_size=20),
    ready=st.lists(st.booleans(), max_size=20),
    seed=st.integers(0, 99),
)
def test_words_arrive_where_their_steps_say(steps: list[Step], late: list[int], ready: list[bool], seed: int) -> None:
    inside, outside = (np.random.default_rng(seed + k).integers(-128, 128, (64, 2)) for k in (0, 1))
    # Here, as in the datapath, a load comes after stores, and a store after loads, only when all of these are done.
    expected = inside.copy(), outside.copy()
    for load, x, y in steps:
        source, target = expected[::-1] if load else expected
        target[y] = source[x]
    _copied(steps, inside, outside, late, [*ready, True])
    assert (inside == expected[0]).all()
    assert (outside == expected[1]).all()


@pytest.mark.parametrize("load", [True, False])
@pytest.mark.parametrize("late", [1, 5, External.latency])
def test_one_word_a_cycle(load: bool, late: int) -> None:
    inside, outside = np.zeros((64, 2), np.int64), np.ones((64, 2), np.int64)
    cycles = _copied([(load, word, word) for word in range(64)], inside, outside, [late - 1], [True])
    # The last word arrives with its answer, and is known to be there a cycle later.
    assert cycles == 64 + (late + 1 if load else 1)


def test_a_memory_that_is_later_slows_a_load_down() -> None:
    inside, outside = np.zeros((64, 2), np.int64), np.ones((64, 2), np.int64)
    assert _copied([(True, word, word) for word in range(64)], inside, outside, [External.latency + 9], [True]) > 64 + External.latency + 10


def _copied(steps: list[Step], inside: np.ndarray, outside: np.ndarray, late: list[int], ready: list[bool]) -> int:
    """Run copies on two memories; answers are `late` by so many cycles more than one, over and over; in how many cycles."""
    copier, now = External(ARCH), 0
    waiting: deque[tuple[int, list[int]]] = deque()
    delays, read_ready, write_ready = cycle(late), cycle(ready), cycle(ready)
    word, left = [0, 0], deque(steps)
    kind, done = False, True

    async def bench(context: SimulatorContext) -> None:
        nonlocal now, word, kind, done
        while left or not done:
            begins = bool(left) and (done or kind == left[0][0])
            if begins:
                kind = left[0][0]
                context.set(copier.i.payload, dict(zip(("load", "x", "y"), left[0], strict=True)))
            answering = bool(waiting) and waiting[0][0] <= now
            reads, writes = next(read_ready), next(write_ready)
            context.set(copier.i.valid, begins)
            context.set(copier.word, word)
            context.set(copier.read.ready, reads)
            context.set(copier.write.ready, writes)
            context.set(copier.answer.valid, answering)
            if answering:
                context.set(copier.answer.payload, waiting[0][1])
            reading, taken, passed = (context.get(signal) for signal in (copier.reading, copier.answer.ready, copier.i.ready))
            if context.get(copier.o.valid):
                inside[context.get(copier.o.payload.address)] = list(context.get(copier.o.payload.word))
            if context.get(copier.read.valid) and reads:
                waiting.append((now + 1 + next(delays), outside[context.get(copier.read.payload)].tolist()))
            if context.get(copier.write.valid) and writes:
                outside[context.get(copier.write.payload.address)] = list(context.get(copier.write.payload.word))
            done = bool(context.get(copier.idle)) and not begins
            if reading and begins:
                word = inside[left[0][1]].tolist()
            if answering and taken:
                waiting.popleft()
            if begins and passed:
                left.popleft()
            await context.tick()
            now += 1

    simulator = Simulator(copier)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return now
