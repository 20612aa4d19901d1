"""Copies between the data memory and an external one: every word where it belongs, in order, one a cycle, whatever waits."""

from collections import deque
from itertools import cycle

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.arch import Arch
from hw.gateware.external import READ_CYCLES, External

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
    # The last step sets out in the 64th cycle; its word leaves three cycles after it has come, or a load asks for it one cycle after.
    assert cycles == 64 + External.on_way + (1 + late if load else 3)


def test_a_memory_that_is_later_slows_a_load_down() -> None:
    inside, outside = np.zeros((64, 2), np.int64), np.ones((64, 2), np.int64)
    assert _copied([(True, word, word) for word in range(64)], inside, outside, [External.latency + 9], [True]) > 64 + External.latency + 10


@pytest.mark.parametrize("load", [True, False])
def test_steps_set_out_again_when_a_stream_moves_again(load: bool) -> None:
    inside, outside = np.zeros((64, 2), np.int64), np.ones((64, 2), np.int64)
    blocked = [False] * 60 + [True] * 200
    cycles = _copied([(load, word, word) for word in range(64)], inside, outside, [0], blocked)
    assert 60 + 64 <= cycles <= 60 + 64 + 12
    assert (inside == outside).all()


def _copied(steps: list[Step], inside: np.ndarray, outside: np.ndarray, late: list[int], ready: list[bool]) -> int:
    """Run copies on two memories; answers are `late` by so many cycles more than one, over and over; in how many cycles."""
    copier, now = External(ARCH), 0
    waiting: deque[tuple[int, list[int]]] = deque()
    delays, read_ready, write_ready = cycle(late), cycle(ready), cycle(ready)
    left = deque(steps)
    on_way: deque[Step | None] = deque([None] * External.on_way)
    words = deque([[0, 0]] * READ_CYCLES)
    kind = False

    async def bench(context: SimulatorContext) -> None:
        nonlocal now, kind
        while left or any(on_way) or not context.get(copier.idle):
            # One sets out, unless it is held, and one that did comes.
            done = not any(on_way) and context.get(copier.idle)
            sets_out = bool(left) and not context.get(copier.hold) and (done or kind == left[0][0])
            kind = left[0][0] if sets_out else kind
            on_way.append(left.popleft() if sets_out else None)
            step = on_way.popleft()
            context.set(copier.i.valid, step is not None)
            if step:
                context.set(copier.i.payload, dict(zip(("load", "x", "y"), step, strict=True)))
            words.append(inside[step[1]].tolist() if step else [0, 0])
            context.set(copier.word, words.popleft())
            answering = bool(waiting) and waiting[0][0] <= now
            reads, writes = next(read_ready), next(write_ready)
            context.set(copier.read.ready, reads)
            context.set(copier.write.ready, writes)
            context.set(copier.answer.valid, answering)
            if answering:
                context.set(copier.answer.payload, waiting[0][1])
            if context.get(copier.o.valid):
                inside[context.get(copier.o.payload.address)] = list(context.get(copier.o.payload.word))
            if context.get(copier.read.valid) and reads:
                waiting.append((now + 1 + next(delays), outside[context.get(copier.read.payload)].tolist()))
            if context.get(copier.write.valid) and writes:
                outside[context.get(copier.write.payload.address)] = list(context.get(copier.write.payload.word))
            if answering and context.get(copier.answer.ready):
                waiting.popleft()
            await context.tick()
            now += 1

    simulator = Simulator(copier)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return now
