"""The circuit of scales against the definition of a step: walks as near to each other as they may come, squares where something turns."""

from collections.abc import Callable, Coroutine, Sequence

import numpy as np
import pytest
from amaranth.lib.wiring import PureInterface
from amaranth.sim import Simulator, SimulatorContext

from bayestt.ir.descend import Rule
from bayestt.ir.rank_scale import DAMPING, SCALE_BITS, SCALE_FRAC, THRESHOLD
from bayestt.ir.training import MOST_SCALED
from hw.training.arch import SPACING, Kind, TrainingArch
from hw.training.emulate import _Machine
from hw.training.gateware.ranks import READ_CYCLES, Ranks
from hw.training.program import Memories

Bench = Callable[[SimulatorContext], Coroutine]
ARCH = TrainingArch(ranks=24)
AXES = ([1], [2, 3, 4, 5, 6], [*range(7, 16)], [*range(16, 24)])
SETTLED = {Kind.STRENGTH: 11, Kind.SCALE: 17, Kind.SURVIVE: 4}
"""Cycles from a walk's last step until the next walk, or who asks, may come."""
SUM_SETTLED = 4
LARGEST, LOW = 1 << 14, THRESHOLD << SCALE_FRAC
"""The square of the largest latent, and the least square that stays."""
JUST = (LOW << DAMPING) // ((1 << DAMPING) - 1)
"""The least square that is `LOW` after a step towards 0."""


@pytest.mark.parametrize("seed", range(3))
def test_scales_and_strengths_are_those_of_the_definition(seed: int) -> None:
    """Rounds of strengths, sums and walks; behind some sums a host writes scales anew."""
    random = np.random.default_rng(seed)
    squares = random.choice([0, 1, 700, LOW, JUST - 1, JUST, JUST + 1, 3 * LOW, LARGEST << SCALE_FRAC], ARCH.ranks)
    circuit, machine = Ranks(ARCH), machine_of(ARCH, squares, random.random(ARCH.ranks) < 0.8)

    async def bench(context: SimulatorContext) -> None:
        await write_scales(context, circuit, machine, range(ARCH.ranks))
        for rule in (Rule(6, 4), Rule(6, None), Rule(6, -3), Rule(6, 8)):
            await _strengths(context, circuit, machine, rule, int(random.integers(0, 4)))
            for own, other in random.integers(0, ARCH.ranks, (12, 2)).tolist():
                await _ask(context, circuit, machine, own, other)
            for written in random.choice(ARCH.ranks, (2, 2), replace=False).tolist():
                for index in random.choice(random.choice(ARCH.ranks, 4), 80).tolist():
                    square = random.choice([0, LARGEST, random.integers(0, 128) ** 2])
                    await _add(context, circuit, machine, index, int(square), int(random.choice([1, 1, 1, 2, 3])))
                await context.tick().repeat(SUM_SETTLED)
                machine.memories.squares[written], machine.energy[written], machine.entries[written] = random.integers(0, 3 * LOW), 0, 0
                await write_scales(context, circuit, machine, written)
            await _add(context, circuit, machine, AXES[0][0], LARGEST - 1, SUM_SETTLED)
            for axis in AXES:
                await _walk(context, circuit, machine, Kind.SCALE, axis, random)
                await _walk(context, circuit, machine, Kind.SURVIVE, axis, random)
                await _ask(context, circuit, machine, axis[-1], axis[0])
            await hold_scales(context, circuit, machine)

    simulate(circuit, bench)


@pytest.mark.parametrize(("squares", "alive", "stays"), [
    ([JUST, JUST - 1, 9 * LOW], [1, 1, 1], [1, 0, 1]),
    ([100, 300, 299, 300], [1, 1, 1, 1], [0, 1, 0, 0]),
    ([300, 100, 300], [0, 1, 1], [0, 0, 1]),
    ([0, 0, 0], [1, 1, 1], [1, 0, 0]),
    ([0, 0, 0], [0, 1, 1], [0, 0, 0]),
    ([9 * LOW, 5], [0, 0], [0, 0]),
    ([3], [1], [1]),
])  # fmt: skip
def test_indices_below_the_threshold_go_but_the_first_of_the_largest(squares: list[int], alive: list[int], stays: list[int]) -> None:
    """Behind the walk over another axis, whose scales are larger; one that is gone is of square 0, and may be the first of these."""
    random, axis = np.random.default_rng(0), [*range(5, 5 + len(squares))]
    before, there = np.full(ARCH.ranks, 20 * LOW), np.ones(ARCH.ranks, bool)
    before[axis], there[axis] = squares, alive
    circuit, machine = Ranks(ARCH), machine_of(ARCH, before, there)

    async def bench(context: SimulatorContext) -> None:
        await write_scales(context, circuit, machine, range(ARCH.ranks))
        for walked in ([1, 2, 3], axis):
            await _walk(context, circuit, machine, Kind.SCALE, walked, random)
            await _walk(context, circuit, machine, Kind.SURVIVE, walked, random)
        await hold_scales(context, circuit, machine)

    simulate(circuit, bench)
    assert machine.memories.alive[axis].tolist() == stays


def test_an_index_scales_as_many_of_the_largest_latents_as_it_may() -> None:
    """And its square hardly moves from the mean of theirs: by what the reciprocal is off, a sixteenth of less than a hundredth."""
    circuit, axis = Ranks(ARCH), [3, 4]
    machine = machine_of(ARCH, np.full(ARCH.ranks, LARGEST << SCALE_FRAC), np.ones(ARCH.ranks, bool))

    async def bench(context: SimulatorContext) -> None:
        await write_scales(context, circuit, machine, range(ARCH.ranks))
        for _ in range(MOST_SCALED):
            await _add(context, circuit, machine, axis[0], LARGEST)
        await context.tick().repeat(SUM_SETTLED)
        await _walk(context, circuit, machine, Kind.SCALE, axis)
        await hold_scales(context, circuit, machine)

    simulate(circuit, bench)
    assert abs(machine.memories.squares[axis[0]] - (LARGEST << SCALE_FRAC)) < (LARGEST << SCALE_FRAC) // 1600


@pytest.mark.parametrize("pull", [-15, -6, 0, 5, 15])
def test_strengths_of_every_size_of_square(pull: int) -> None:
    """From those that are rounded to 0 to those that are beyond their 16 bits; a square of 0 is taken for 1."""
    squares = np.concatenate([[7, 0, 1], (1 << np.arange(1, ARCH.ranks - 3)) + 1, [(1 << SCALE_BITS) - 1]])
    circuit, machine = Ranks(ARCH), machine_of(ARCH, squares, np.ones(ARCH.ranks, bool))

    async def bench(context: SimulatorContext) -> None:
        await write_scales(context, circuit, machine, range(ARCH.ranks))
        for ease in (0, 1, 15):
            await _strengths(context, circuit, machine, Rule(6, pull), ease)
            for index in range(1, ARCH.ranks):
                await _ask(context, circuit, machine, index, 0)

    simulate(circuit, bench)


def machine_of(arch: TrainingArch, squares: np.ndarray, alive: np.ndarray, latents: np.ndarray | None = None) -> _Machine:
    """The machine in software with these scales, of which the first is there; without latents it has zeros. Its rule is yet to come."""
    latents = np.zeros(arch.latent_depth * arch.lanes, np.int64) if latents is None else latents
    shifts, bias_shifts, counts = np.zeros((3, arch.contractions), np.int64)
    alive = np.concatenate([[True], alive[1:]])
    velocities = np.zeros_like(latents)
    return _Machine(arch, Memories(latents, velocities, shifts, bias_shifts, counts, squares.astype(np.int64), alive, 1, 0), Rule(1))


async def step(context: SimulatorContext, port: PureInterface, fields: dict, cycles: int) -> None:
    """A step, and so many cycles later there may be the next; what the port holds in between means nothing."""
    context.set(port.payload, fields)
    context.set(port.valid, 1)
    await context.tick()
    between = {name: fields.get(name, 0) ^ 1 for name in ("x", "total", "w", "init", "y", "complete")}
    context.set(port.payload, {**between, "mode": {"kind": fields["mode"]["kind"], "ease": 3, "number": 1, "pulled": 1, "brake": 1}})
    context.set(port.valid, 0)
    for _ in range(cycles - 1):
        await context.tick()


async def write_scales(context: SimulatorContext, circuit: Ranks, machine: _Machine, indices: Sequence[int]) -> None:
    """A host writes scales as the machine in software has them, one a cycle."""
    context.set(circuit.running, 0)
    context.set(circuit.host.en, 1)
    for index in indices:
        context.set(circuit.host.address, index)
        context.set(circuit.host.written, {"square": int(machine.memories.squares[index]), "alive": int(machine.memories.alive[index])})
        await context.tick()
    context.set(circuit.host.en, 0)
    context.set(circuit.host.written, {"square": 77, "alive": 1})


async def hold_scales(context: SimulatorContext, circuit: Ranks, machine: _Machine) -> None:
    """Assert that a host reads the scales that the machine in software has, each two cycles after its address."""
    context.set(circuit.running, 0)
    found = []
    for index in [*range(machine.arch.ranks), 0, 0]:
        word = context.get(circuit.host.word)
        found.append((word.square, bool(word.alive)))
        context.set(circuit.host.address, index)
        await context.tick()
    assert found[2:] == [*zip(machine.memories.squares.tolist(), machine.memories.alive.tolist(), strict=True)]


def simulate(circuit: object, *benches: Bench) -> None:
    """Simulate under a testbench, until which is done others look on."""
    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    for number, bench in enumerate(benches):
        simulator.add_testbench(bench, background=number > 0)
    simulator.run()


async def _strengths(context: SimulatorContext, circuit: Ranks, machine: _Machine, rule: Rule, ease: int) -> None:
    """Walks over all axes, steps as near as they come; without a prior the port for its pull means nothing."""
    machine.rule = rule
    context.set(circuit.pull, 15 if rule.pull is None else rule.pull)
    context.set(circuit.pulls, rule.pull is not None)
    for axis in AXES:
        await _walk(context, circuit, machine, Kind.STRENGTH, axis, ease=ease)


async def _walk(
    context: SimulatorContext,
    circuit: Ranks,
    machine: _Machine,
    kind: Kind,
    axis: Sequence[int],
    random: np.random.Generator | None = None,
    ease: int = 0,
) -> None:
    """A walk over an axis, by the circuit and by the machine in software; some steps come later than they may, where that is `random`."""
    instruction = ARCH.instruction.const({"kind": kind, "ease": ease})
    {Kind.STRENGTH: machine.strength, Kind.SCALE: machine.scale, Kind.SURVIVE: machine.survive}[kind](instruction, {"w": np.array(axis)})
    context.set(circuit.running, 1)
    context.set(circuit.host.address, axis[0] ^ 2)
    for index in axis:
        last = index == axis[-1]
        more = int(random.choice([0, 0, 1, 9])) if random else 0
        fields = {"w": index, "complete": last, "mode": {"kind": kind, "ease": ease}}
        await step(context, circuit.i, fields, SETTLED[kind] if last else SPACING + more)


async def _ask(context: SimulatorContext, circuit: Ranks, machine: _Machine, own: int, other: int) -> None:
    """Assert that an entry finds its strength and whether it is there two cycles later."""
    entry, expected = circuit.entry, (machine.memories.alive[[own, other]].all(), machine.strengths[own])
    for port, index in ((entry.own, own), (entry.other, other)):
        context.set(port, index)
    await context.tick()
    for port, index in ((entry.own, own), (entry.other, other)):
        context.set(port, index ^ 1)
    await context.tick().repeat(READ_CYCLES - 1)
    assert (context.get(entry.there), context.get(entry.strength)) == expected


async def _add(context: SimulatorContext, circuit: Ranks, machine: _Machine, index: int, square: int, cycles: int = 1) -> None:
    """A latent's square for an index, and so many cycles; the next one may be for the same."""
    machine.energy[index] += square
    machine.entries[index] += 1
    entry = circuit.entry
    context.set(circuit.running, 1)
    context.set(entry.to, index)
    context.set(entry.square, square)
    context.set(entry.adds, 1)
    await context.tick()
    context.set(entry.to, index ^ 1)
    context.set(entry.square, square ^ 5)
    context.set(entry.adds, 0)
    for _ in range(cycles - 1):
        await context.tick()
