"""The loader: the words of every memory come out of the stream that a program is."""

import numpy as np
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import cases

from bayestt.ir.schedule import Schedule
from hw.arch import Arch, Target
from hw.assemble import assemble
from hw.gateware.loader import Loader
from hw.simulate import put


@settings(max_examples=15, deadline=None)
@given(cases(), st.booleans())
def test_every_word_of_a_program_comes_out_where_it_belongs(case: tuple[Arch, Schedule, np.ndarray], stalls: bool) -> None:
    arch, schedule, _ = case
    program = assemble(schedule, arch)
    pauses = iter(np.random.default_rng(0).integers(0, 3, 100_000).tolist()) if stalls else iter(lambda: 0, 1)
    expected = []
    for segment, setup in zip(program.segments, program.setups, strict=True):
        expected += [(Target.CODE, address, word) for address, word in enumerate(segment.code)]
        for target, words in ((Target.WEIGHTS, segment.weights), (Target.INITS, segment.inits)):
            expected += [(target, address, arch.words[target].const(word.tolist()).as_bits()) for address, word in enumerate(words)]
        expected.append((Target.SETUP, 0, setup.as_bits()))
    assert _loaded(arch, program.encode().tolist(), pauses) == expected


def test_a_section_begins_where_it_says_and_may_be_empty() -> None:
    arch = Arch(rows=1, lanes=1, weight_bits=8)
    words = [Target.WEIGHTS.value | 5 << 8, 0, Target.WEIGHTS.value | 7 << 8, 2, 0xFFFFFF80, 3, Target.NOTE.value, 1, 9]
    assert _loaded(arch, words, iter(lambda: 0, 1)) == [(Target.WEIGHTS, 7, 0x80), (Target.WEIGHTS, 8, 3)]


def _loaded(arch: Arch, words: list[int], pauses) -> list[tuple[Target, int, int]]:
    """The (target, address, word) that the loader gives, notes left out."""
    loader, found = Loader(arch), []
    memory_words = {target: loader.word(target) for target in arch.words}

    async def giver(context: SimulatorContext) -> None:
        await put(context, loader.i, words, pauses)
        await context.tick()

    async def taker(context: SimulatorContext) -> None:
        sampled = (loader.o.valid, loader.o.payload.target, loader.o.payload.address, *memory_words.values())
        async for _, _, valid, target, address, *words_in in context.tick().sample(*sampled):
            if valid and target != Target.NOTE:
                word = dict(zip(memory_words, words_in, strict=True))[target]
                found.append((target, address, word & ((1 << arch.words[target].size) - 1)))

    simulator = Simulator(loader)
    simulator.add_clock(1e-6)
    simulator.add_testbench(giver)
    simulator.add_testbench(taker, background=True)
    simulator.run()
    return found
