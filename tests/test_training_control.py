"""The circuit that moves shifts against the definition of a step: words after many steps, and when it must give up."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext
from learnable import small_chain

from bayestt.algebra.fixed import MAX_BITS
from bayestt.ir.descend import IMPATIENT_STEPS, PATIENT, Rule, State, moved
from bayestt.ir.start import start
from bayestt.ir.training import Training
from hw.training.arch import Kind, TrainingArch
from hw.training.assemble import assemble
from hw.training.gateware.control import Control
from hw.training.program import memories_of

ARCH = TrainingArch(contractions=16)
STEPS = 40
Word = Mapping[str, int]


@pytest.mark.parametrize("seed", range(4))
def test_words_are_those_after_a_step(seed: int) -> None:
    """Of a training's own program, results around where a shift is asked for, many steps; until scores would be shifted to the left."""
    training, images, labels = small_chain()
    program, random, circuit = assemble(training, ARCH), np.random.default_rng(seed), Control(ARCH)
    state = _random_shifts(training, start(training, images, labels, seed), random)
    modes = [step for step in program.batch_part if step.kind == Kind.CONTROL]
    totals = {name: np.zeros(training.shape(parameter.axes), np.int64) for name, parameter in training.parameters.items()}
    asked = dict.fromkeys((each.name for each in training.contractions), 0)

    def words(state: State) -> list[Word]:
        memories = memories_of(program, state)
        named = {"shift": memories.shifts, "bias_shift": memories.bias_shifts, "count": memories.counts}
        return [{name: int(column[number]) for name, column in named.items()} for number in range(len(modes))]

    async def bench(context: SimulatorContext) -> None:
        nonlocal state
        for number, word in enumerate(words(state)):
            await _write(context, circuit, number, word)
        for _ in range(STEPS):
            largest = {}
            for each in training.contractions:
                asked[each.name] = int(random.choice([asked[each.name], random.integers(-1, 2)], p=[0.9, 0.1]))
                largest[each.name] = _largest(each.bits, asked[each.name], random)
            for burst in _bursts([*largest.values()], random):
                await _track(context, circuit, *burst)
            context.set(circuit.patient, state.steps >= IMPATIENT_STEPS)
            await _control(context, circuit, [{name: step[name] for name in ARCH.mode.members} for step in modes])
            state = moved(training, state, totals, largest, Rule(15))
            try:
                expected = words(state)
            except ValueError:
                assert context.get(circuit.fault)
                return
            assert not context.get(circuit.fault)
            for number, each in enumerate(training.contractions):
                found = await _word(context, circuit, number)
                # Where there is no bias, nobody reads its shift.
                assert found == (expected[number] if each.bias else {**expected[number], "bias_shift": found["bias_shift"]})

    _run(circuit, bench)
    assert state.steps > IMPATIENT_STEPS


def test_a_peak_is_of_all_results_until_the_step_or_until_a_host_writes() -> None:
    """Results of another contraction come in between; the word's count says what the peak was."""
    circuit, word = Control(ARCH), {"shift": 9, "bias_shift": -3, "count": 0}
    up, down, kept = ({**word, "count": count} for count in (1, -1, 0))
    mode = {"kind": Kind.CONTROL, "number": 5, "wide": 1}

    async def after(context: SimulatorContext) -> Word:
        await _control(context, circuit, [mode])
        return await _word(context, circuit, 5)

    async def bench(context: SimulatorContext) -> None:
        await _write(context, circuit, 5, word)
        for magnitudes, expected in (([3, 28673, 0], up), ([], {**down, "count": -1}), ([10240, 0], kept), ([10239] * 3, down)):
            await _track(context, circuit, 5, magnitudes)
            assert await after(context) == expected
            await _track(context, circuit, 4, [30000])
        await _track(context, circuit, 5, [30000])
        await _write(context, circuit, 5, word)
        assert await after(context) == down
        await _track(context, circuit, 5, [30000])
        await _write(context, circuit, 6, word)
        assert await after(context) == up

    _run(circuit, bench)


@pytest.mark.parametrize(("shift", "bias_shift", "peak", "leaves"), [
    (1, 0, 128, False), (0, 0, 128, True), (30, 0, 0, False), (31, 0, 0, True),
    (9, 126, 128, False), (9, 127, 128, True), (9, -127, 0, False), (9, -128, 0, True),
])  # fmt: skip
def test_a_shift_that_leaves_its_word_is_a_fault_for_good(shift: int, bias_shift: int, peak: int, leaves: bool) -> None:
    """Of a contraction of a given fraction, behind two that move, one of them on the forward chain; alone it stays, and so does a fault."""
    circuit = Control(ARCH)
    count = 1 if peak else -1
    modes = [{"number": 0, "forward": 1}, {"number": 1}, {"number": 2, "forward": 1, "given": 1}]
    first, second, given = ({"kind": Kind.CONTROL, **mode} for mode in modes)
    word = {"shift": 9, "bias_shift": 0, "count": count}

    async def bench(context: SimulatorContext) -> None:
        for number, here in enumerate((word, word, {"shift": shift, "bias_shift": bias_shift, "count": count})):
            await _write(context, circuit, number, here)
            await _track(context, circuit, number, [peak])
        await _control(context, circuit, [first, second, given])
        assert context.get(circuit.fault) == leaves
        if not leaves:
            assert await _word(context, circuit, 2) == {"shift": shift - count, "bias_shift": bias_shift + count, "count": count}
        await _write(context, circuit, 2, word)
        await _track(context, circuit, 2, [peak])
        await _control(context, circuit, [given, given])
        assert await _word(context, circuit, 2) == word
        assert context.get(circuit.fault) == leaves

    _run(circuit, bench)


def _random_shifts(training: Training, state: State, random: np.random.Generator) -> State:
    """A state with any counts and, where scores do not depend on them, with shifts at the ends of their range."""
    ends = {each.name: int(random.choice([0, 1, MAX_BITS - 2, MAX_BITS - 1])) for each in training.backward}
    counts = {name: int(random.integers(-PATIENT - 1, PATIENT + 2)) for name in state.counts}
    return replace(state, shifts={**state.shifts, **ends}, counts=counts)


def _largest(bits: int, asked: int, random: np.random.Generator) -> int:
    """A peak that asks for a larger shift, a smaller one, or none: at the ends of where it does."""
    low, high, end = (5 << bits) >> 5, (7 << bits) >> 4, 1 << (bits - 1)
    return int(random.choice({1: [high + 1, end], 0: [low, high], -1: [0, low - 1]}[asked]))


def _bursts(largest: list[int], random: np.random.Generator) -> Iterator[tuple[int, list[int]]]:
    """Three times results of every contraction, in any order: numbers and magnitudes of which the largest are given."""
    order, there = random.permutation([*range(len(largest))] * 3).tolist(), set()
    for number in order:
        magnitudes = random.integers(0, largest[number] + 1, random.integers(0, 6)).tolist()
        if number not in there and (random.integers(2) or number not in order[order.index(number) + 1 :]):
            magnitudes.append(largest[number])
            there.add(number)
        yield number, random.permutation(magnitudes).astype(int).tolist()
    for number in set(order) - there:
        yield number, [largest[number]]


async def _write(context: SimulatorContext, circuit: Control, number: int, word: Word) -> None:
    """A word from a host."""
    context.set(circuit.host.address, number)
    context.set(circuit.host.written, word)
    context.set(circuit.host.en, 1)
    await context.tick()
    context.set(circuit.host.en, 0)


async def _word(context: SimulatorContext, circuit: Control, number: int) -> Word:
    """A word to a host: two cycles after its address."""
    context.set(circuit.host.address, number)
    await context.tick()
    context.set(circuit.host.address, number + 1)
    await context.tick()
    word = context.get(circuit.host.word)
    return {name: word[name] for name in ARCH.control.members}


async def _track(context: SimulatorContext, circuit: Control, number: int, magnitudes: list[int]) -> None:
    """Results of a contraction, one a cycle, and then none until those of another may come."""
    for magnitude in magnitudes:
        context.set(circuit.peaks.payload, {"number": number, "magnitude": magnitude})
        context.set(circuit.peaks.valid, 1)
        await context.tick()
    context.set(circuit.peaks.valid, 0)
    context.set(circuit.peaks.payload, {"number": number + 1, "magnitude": 32768})
    await context.tick().repeat(3)


async def _control(context: SimulatorContext, circuit: Control, modes: list[dict]) -> None:
    """CONTROL steps from a beginning on, each as near as they come, each with its contraction's word, looked up before."""
    context.set(circuit.begin, 1)
    context.set(circuit.running, 1)
    await context.tick()
    context.set(circuit.begin, 0)
    for mode in modes:
        context.set(circuit.number, mode["number"])
        await context.tick().repeat(2)
        step = {"mode": mode, "control": context.get(circuit.word), "complete": 1}
        context.set(circuit.number, mode["number"] + 1)
        context.set(circuit.i.payload, step)
        context.set(circuit.i.valid, 1)
        await context.tick()
        context.set(circuit.i.valid, 0)
        context.set(circuit.i.payload, {"mode": {"kind": Kind.CONTROL, "number": mode["number"] + 1}})
        await context.tick().repeat(circuit.latency - 1)
    context.set(circuit.running, 0)


def _run(circuit: Control, bench) -> None:
    """Simulate under a testbench."""
    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
