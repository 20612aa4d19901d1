"""The datapath at its ports: streams that keep their promises, programs one after another, a count of its cycles."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from amaranth import Elaboratable, ResetInserter, Signal
from amaranth.sim import Simulator, SimulatorContext

from bayestt.ir.nest import Loop, Nest
from bayestt.ir.schedule import Layout, Schedule
from hw.arch import Arch, Target
from hw.assemble import assemble
from hw.cycles import cycles, instruction_cycles
from hw.emulate import emulate
from hw.gateware.datapath import Datapath
from hw.program import Program
from hw.simulate import put, simulate, take

ARCH = Arch(rows=2, lanes=2, loops=3, image_depth=8, data_depth=64, weight_depth=32, init_depth=8, score_depth=16, code_depth=4)
FEATURES, HIDDEN, SCORES = 5, 4, 6


def two_layers(seed: int, final_shift: int = 0, arch: Arch = ARCH) -> Program:
    """A dense layer with a rectifier, and a dense layer that gives scores."""
    random = np.random.default_rng(seed)
    x, hidden, y = arch.room.image.start, 0, 0
    images = Loop("n", 2, x=1, y=1)
    lane = Loop("lane", 2, w=1, init=1, y=2)
    first = Nest(
        (Loop("i", HIDDEN // 2, w=2 * FEATURES, init=2, y=4),), (Loop("j", FEATURES, x=2, w=2),), (images, lane), x, 0, 0, hidden, 7, True
    )
    second = Nest(
        (Loop("i", SCORES // 2, w=2 * HIDDEN, init=2, y=4),),
        (Loop("j", HIDDEN, x=2, w=2),),
        (images, lane),
        hidden,
        FEATURES * HIDDEN,
        HIDDEN,
        y,
        final_shift,
        bits=32,
        target="scores",
    )
    layout = {"x": Layout(x, ("n", "j"), (2, FEATURES), (1, 2)), "y": Layout(0, ("n", "i"), (2, SCORES), (1, 2))}
    weights = random.integers(-128, 128, FEATURES * HIDDEN + HIDDEN * SCORES)
    inits = random.integers(-2000, 2000, HIDDEN + SCORES)
    return assemble(Schedule((first, second), layout, 2, "x", "y", weights, inits, 2 * HIDDEN, 2 * SCORES), arch)


def test_cycles_by_hand() -> None:
    program = two_layers(0)
    first, second = program.instructions
    # The last word of the first layer is written 13 stages and a lane after its last step, and read in the fourth step of the second.
    assert (first.wait, second.wait) == (0, 13 + 1 - 3)
    assert instruction_cycles(first) == 2 * FEATURES
    assert instruction_cycles(second) == 11 + 3 * HIDDEN
    # An instruction begins six cycles before its first step; scores leave when the lanes of the last tile are written, by way of
    # another register.
    one = FEATURES + 6 + 10 + 23 + 13 + 2 + SCORES + 1
    assert cycles(program) == one
    # The scores of the batch before are still on their way when the second layer might begin: it does when they have left.
    further = 13 + 2 + SCORES + 6 + 3 * HIDDEN - 1
    assert cycles(program, 3) == one + 2 * further
    assert simulate(program, np.zeros((5, FEATURES), np.int64)).cycles == (one, further, further)


def test_a_reduction_shorter_than_the_lanes_waits_for_them() -> None:
    arch = Arch(rows=1, lanes=4, loops=1)
    tiles = 10
    lane = Loop("n", 1, x=1, y=1), Loop("lane", 4, w=1, init=1, y=1)
    nest = Nest((Loop("i", tiles, y=4),), (), lane, arch.image_address, 0, 0, 0, bits=32, target="scores")
    layout = {"x": Layout(arch.image_address, ("n", "j"), (1, 1), (1, 1)), "y": Layout(0, ("n", "i"), (1, 40), (1, 1))}
    program = assemble(Schedule((nest,), layout, 1, "x", "y", np.arange(4), np.zeros(4, np.int64), 0, 40), arch)
    assert instruction_cycles(program.instructions[0]) == 3 + 1 + (tiles - 1) * 4
    simulation = simulate(program, np.array([[3]]))
    assert simulation.y.tolist() == [[0, 3, 6, 9] * tiles]
    assert simulation.cycles == (cycles(program),)


def test_a_score_stays_until_it_is_taken_and_the_next_batches_come_in_meanwhile() -> None:
    program = two_layers(1)
    x = np.random.default_rng(1).integers(-128, 128, (8, FEATURES))
    machine = Datapath(ARCH)
    seen = []

    async def host(context: SimulatorContext) -> None:
        await put(context, machine.load, program.encode().tolist())
        for batch in x.reshape(4, 2, FEATURES):
            await put(context, machine.image, batch.T.tolist())

    async def reader(context: SimulatorContext) -> None:
        await context.tick().until(machine.score.valid)
        held = [list(context.get(machine.score.payload))]
        for _ in range(100):
            await context.tick()
            assert context.get(machine.score.valid)
            held.append(list(context.get(machine.score.payload)))
        assert held == held[:1] * 101
        # The second batch is in, but may not end before these scores have left, and the third: nothing more is taken.
        assert not context.get(machine.image.ready)
        seen.extend(list(payload) for payload in await take(context, machine.score, 4 * SCORES))
        await context.tick().repeat(3)
        assert not context.get(machine.busy)
        assert not context.get(machine.score.valid)

    _run(machine, host, reader)
    assert np.reshape(seen, (4, SCORES, 2)).transpose(0, 2, 1).reshape(8, SCORES).tolist() == emulate(program, x).tolist()


def test_a_machine_takes_images_only_with_a_program_and_programs_one_after_another() -> None:
    programs = [two_layers(2), two_layers(3)]
    x = np.random.default_rng(2).integers(-128, 128, (2, FEATURES))
    machine = Datapath(ARCH)

    async def bench(context: SimulatorContext) -> None:
        context.set(machine.image.valid, 1)
        for _ in range(10):
            await context.tick()
            assert not context.get(machine.image.ready)
            assert not context.get(machine.busy)
        context.set(machine.image.valid, 0)
        for program in programs:
            before = context.get(machine.cycles)
            words = program.encode().tolist()
            await put(context, machine.load, words)
            await context.tick()
            # One more for the setup, and one for the last note.
            assert context.get(machine.cycles) == before + len(words) + 2
            assert not context.get(machine.busy)
            before = context.get(machine.cycles)
            await put(context, machine.image, x.T.tolist())
            assert context.get(machine.busy)
            taken = [list(payload) for payload in await take(context, machine.score, SCORES)]
            assert np.transpose(taken).tolist() == emulate(program, x).tolist()
            assert context.get(machine.cycles) == before + cycles(program)

    _run(machine, bench)


def test_half_a_program_is_no_program() -> None:
    old, new = two_layers(4), two_layers(5)
    machine = Datapath(ARCH)

    async def bench(context: SimulatorContext) -> None:
        await put(context, machine.load, old.encode().tolist())
        await context.tick().repeat(2)
        assert context.get(machine.image.ready)
        await put(context, machine.load, new.encode().tolist()[:-5])
        assert not context.get(machine.image.ready)

    _run(machine, bench)


def test_a_program_that_waits_while_the_machine_runs_comes_before_the_next_batch() -> None:
    old, new = two_layers(6), two_layers(7)
    x = np.random.default_rng(3).integers(-128, 128, (4, FEATURES))
    machine = Datapath(ARCH)
    seen = []

    async def loads(context: SimulatorContext) -> None:
        await put(context, machine.load, old.encode().tolist())
        await context.tick().until(machine.image.valid & machine.image.ready)
        await put(context, machine.load, new.encode().tolist()[:1])
        assert len(seen) == SCORES
        await put(context, machine.load, new.encode().tolist()[1:])

    async def images(context: SimulatorContext) -> None:
        await put(context, machine.image, x[:2].T.tolist())
        await put(context, machine.image, x[2:].T.tolist())

    async def scores(context: SimulatorContext) -> None:
        for _ in range(2 * SCORES):
            seen.extend(list(payload) for payload in await take(context, machine.score, 1))

    _run(machine, loads, images, scores)
    taken = np.reshape(seen, (2, SCORES, 2)).transpose(0, 2, 1)
    assert taken.tolist() == [emulate(old, x[:2]).tolist(), emulate(new, x[2:]).tolist()]


def test_cycles_of_segments_and_of_copies_by_hand() -> None:
    """An image comes in, goes out to external memory, and back; the code memory holds one instruction at a time."""
    arch = replace(ARCH, code_depth=1, external_depth=64)
    images, ones, zeros = (Loop("n", 2, x=1, y=1),), np.ones(2, np.int64), np.zeros(2, np.int64)
    walk = (Loop("f", FEATURES, x=2, y=2),)
    x = arch.room.image.start
    out = Nest(walk, (), images, x, 0, 0, 20, target="external")
    back = Nest(walk, (), images, 20, 0, 0, 30, source="external")
    last = Nest(walk, (), images, 30, 0, 0, 0, bits=32, target="scores")
    layout = Layout(0, ("n", "f"), (2, FEATURES), (1, 2))
    sizes = (30 + 2 * FEATURES, 2 * FEATURES, 20 + 2 * FEATURES)
    schedule = Schedule((out, back, last), {"x": replace(layout, address=x), "y": layout}, 2, "x", "y", ones, zeros, *sizes)
    program = assemble(schedule, arch)
    # six cycles to its first step, one a word, and until the last is there
    assert [instruction_cycles(instruction) for instruction in program.instructions[:2]] == [6 + FEATURES + 3, 6 + FEATURES + 1 + 16]
    assert [len(segment.code) for segment in program.segments] == [1, 1, 1]
    assert [len(segment.weights) for segment in program.segments] == [0, 0, 1]
    # Behind a segment's words come its setup, and three cycles later its first instruction, images meanwhile; the next segment comes when
    # all is done. The last instruction copies nothing: 6 cycles to its first step, 13 stages and a lane from its last to the result.
    store, load = map(instruction_cycles, program.instructions[:2])
    one_batch = sum(map(len, program.loads)) + (2 + FEATURES + store + 1) + (4 + load + 1) + (4 + 6 + FEATURES - 1 + 13 + 1) + FEATURES + 2
    x = np.arange(3 * FEATURES).reshape(3, FEATURES)
    simulation = simulate(program, x)
    assert simulation.y.tolist() == x.tolist()
    assert simulation.cycles == (one_batch, one_batch)
    assert simulate(program, x, [0, 2, 1]).y.tolist() == x.tolist()


def test_a_segment_takes_its_image_though_the_next_one_waits() -> None:
    """Program and images come from hosts that know nothing of each other."""
    arch = replace(ARCH, code_depth=1)
    program = two_layers(10, arch=arch)
    x = np.random.default_rng(6).integers(-128, 128, (4, FEATURES))
    assert len(program.segments) == 2
    machine = Datapath(arch)
    seen = []

    async def loads(context: SimulatorContext) -> None:
        for _ in range(2):
            await put(context, machine.load, np.concatenate(program.loads).tolist())

    async def images(context: SimulatorContext) -> None:
        await put(context, machine.image, x[:2].T.tolist())
        await put(context, machine.image, x[2:].T.tolist())

    async def scores(context: SimulatorContext) -> None:
        seen.extend(list(payload) for payload in await take(context, machine.score, 2 * SCORES))

    _run(machine, loads, images, scores)
    taken = np.reshape(seen, (2, SCORES, 2)).transpose(0, 2, 1).reshape(4, SCORES)
    assert taken.tolist() == emulate(program, x).tolist()


BAD = {
    "truncated, and then another": lambda words: [*words[:-9], *words],
    "a heading of nothing": lambda words: [*words, 9, 1, 0],
    "a word beyond the code memory": lambda words: [*words, Target.CODE.value | ARCH.code_depth << 8, 1, *[0] * ARCH.chunks(Target.CODE)],
    "one bit altered": lambda words: [*words[:30], words[30] ^ 4, *words[31:]],
    "no end": lambda words: _endless(),
}
"""What is no program, made of the words of one."""


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_what_is_no_program_is_an_error_until_reset(spoil: Callable[[list[int]], list[int]]) -> None:
    program = two_layers(8)
    x = np.random.default_rng(4).integers(-128, 128, (2, FEATURES))
    reset = Signal()
    machine = Datapath(ARCH)

    async def bench(context: SimulatorContext) -> None:
        words = np.concatenate(program.loads).tolist()
        await put(context, machine.load, spoil(words))
        await put(context, machine.image, x.T.tolist())
        await context.tick().repeat(ARCH.code_depth * 30)
        assert context.get(machine.error)
        assert not context.get(machine.busy)
        # Nobody waits: whatever comes is taken.
        await put(context, machine.load, words)
        await put(context, machine.image, x.T.tolist())
        context.set(reset, 1)
        await context.tick()
        context.set(reset, 0)
        await put(context, machine.load, words)
        await put(context, machine.image, x.T.tolist())
        taken = [list(payload) for payload in await take(context, machine.score, SCORES)]
        assert np.transpose(taken).tolist() == emulate(program, x).tolist()
        assert not context.get(machine.error)

    _run(ResetInserter(reset)(machine), bench)


@pytest.mark.parametrize("when", [3, FEATURES + 4, FEATURES + 20, FEATURES + 50])
def test_a_reset_at_any_time_leaves_a_machine_that_works(when: int) -> None:
    program = two_layers(9)
    x = np.random.default_rng(5).integers(-128, 128, (4, FEATURES))
    reset = Signal()
    machine = Datapath(ARCH)

    async def bench(context: SimulatorContext) -> None:
        words = np.concatenate(program.loads).tolist()
        await put(context, machine.load, words)
        context.set(machine.image.valid, 1)
        context.set(machine.score.ready, when % 2)
        await context.tick().repeat(when)
        context.set(machine.image.valid, 0)
        context.set(reset, 1)
        await context.tick()
        context.set(reset, 0)
        assert not context.get(machine.busy)
        assert not context.get(machine.score.valid)
        await put(context, machine.load, words)
        await put(context, machine.image, x[:2].T.tolist())
        await put(context, machine.image, x[2:].T.tolist())
        taken = [list(payload) for payload in await take(context, machine.score, 2 * SCORES)]
        found = np.reshape(taken, (2, SCORES, 2)).transpose(0, 2, 1).reshape(4, SCORES)
        assert found.tolist() == emulate(program, x).tolist()

    _run(ResetInserter(reset)(machine), bench)


def _endless() -> list[int]:
    """A program whose code memory is full of instructions of which none is the last, its checks in order."""
    chunks = ARCH.chunks(Target.CODE)
    code = [Target.CODE.value, ARCH.code_depth, *[0] * chunks * ARCH.code_depth]
    fields = {"check": sum(code), "takes_image": 1, "gives_scores": 1, "image_last": FEATURES - 1}
    word = ARCH.setup.const(fields).as_bits()
    return [*code, Target.SETUP.value, 1, *(word >> 32 * chunk & 0xFFFFFFFF for chunk in range(ARCH.chunks(Target.SETUP)))]


def _run(machine: Elaboratable, *benches) -> None:
    """Simulate a machine under testbenches."""
    simulator = Simulator(machine)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()
