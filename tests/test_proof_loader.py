"""The loader, proved: the words that come out are the chunks that came in, whatever sections they are, for 12 cycles."""

import pytest
from amaranth import Cat, Module, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from claims import mistaken

from hw.arch import Arch, Target
from hw.gateware import loader
from hw.gateware.loader import Loader
from hw.prove import prove

DEPTHS = dict.fromkeys(("image_depth", "data_depth", "weight_depth", "init_depth", "score_depth", "code_depth"), 2)
ARCH = Arch(rows=1, lanes=5, acc_bits=16, loops=1, extent_bits=2, **DEPTHS)
CYCLES = 12


class Loaded(wiring.Component):
    """Claim: the chunk that completes a section's k-th word is followed by that word, for the k-th address; nothing else comes out.

    Chunks are counted from the section's begin: here are no words, and no chunks of a word, to be counted down.
    """

    def __init__(self, circuit: Loader) -> None:
        self.circuit = circuit
        self.chunks = {target: circuit.arch.chunks(target) for target in Target}
        super().__init__({"valid": In(1), "chunk": In(32), "leaves": Out(1), "target": Out(8), "address": Out(24)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        out = circuit.o.payload
        m.d.comb += [circuit.i.valid.eq(self.valid), circuit.i.payload.eq(self.chunk), self.leaves.eq(circuit.o.valid)]
        m.d.comb += [self.target.eq(out.target), self.address.eq(out.address)]

        # Where in its section a chunk is, after two of the header; which word it completes, a cycle later.
        place, target, address, count = Signal(range(CYCLES + 1)), Signal(8), Signal(24), Signal(32)
        latest = Signal(32 * circuit.widest)
        whole = Signal()
        m.d.sync += [whole.eq(0), address.eq(address + whole)]
        with m.If(self.valid):
            m.d.sync += [place.eq(place + 1), latest.eq(Cat(latest[32:], self.chunk))]
        with m.If(self.valid & (place == 0)):
            m.d.comb += Assume(self.chunk[:8] < len(Target))
            m.d.sync += Cat(target, address).eq(self.chunk)
        with m.If(self.valid & (place == 1)):
            m.d.sync += count.eq(self.chunk)
            with m.If(self.chunk == 0):
                m.d.sync += place.eq(0)
        for each, chunks in self.chunks.items():
            for word in range(CYCLES // chunks):
                with m.If(self.valid & (target == each.value) & (place == 1 + (word + 1) * chunks)):
                    m.d.sync += whole.eq(1)
                    with m.If(count == word + 1):
                        m.d.sync += place.eq(0)
            found = circuit.word(each)
            m.d.comb += Assert(~whole | (target != each.value) | (found == latest[-len(found) :]))
        m.d.comb += [Assert(self.leaves == whole), Assert(~whole | ((self.target == target) & (self.address == address)))]
        return m


def test_words_are_the_chunks_that_came_in() -> None:
    assert sorted({ARCH.chunks(target) for target in Target}) == [1, 2, 3]
    verdict = prove(Loaded(Loader(ARCH)), CYCLES)
    assert verdict.proved, verdict


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("word.address.eq(word.address + 1)", "word.address.eq(word.address)"),
        ("Cat(word.target, word.address).eq(self.i.payload)", "Cat(word.target, word.address).eq(self.i.payload & 0x7FFFFFFF)"),
        ("m.If(self.i.payload == 0)", "m.If(0)"),
        ("Cat(word.chunks.as_value()[32:], self.i.payload)", "Cat(self.i.payload, word.chunks.as_value()[:-32])"),
        ("m.If(chunks_left == 1)", "m.If(chunks_left == 2)"),
        ("chunks_left.eq(chunks), ", ""),
        ("words_left.eq(words_left - 1)", "words_left.eq(words_left - 2)"),
        ("m.If(words_left == 1)", "m.If(words_left <= 2)"),
        ("m.If(self.i.valid), m.FSM()", "m.If(1), m.FSM()"),
        ("self.widest - self.arch.chunks(target), self.widest", "self.arch.chunks(target)"),
    ],
)
def test_a_mistake_is_found(right: str, wrong: str) -> None:
    assert not prove(Loaded(mistaken(loader, right, wrong).Loader(ARCH)), CYCLES).proved
