"""The door through which a program comes in: sections of 32-bit words become words of the machine's memories."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch, Target


class Loader(wiring.Component):
    """Collect the sections of a program stream into memory words; `hw.program.Program.encode` writes such a stream.

    A section is `target` (8 bits) and `start` address (24 bits) in a first word, `count` in a second, then `count` memory words of as
    many 32-bit chunks as the target needs, the least significant first. Notes come out as words of one chunk, for nobody to take.
    `fault` when something is no program: a heading that names no target, a word that comes out beyond the end of its memory, or a setup
    whose `check` is not the sum of all words of code, weights and inits, with their headings, since the setup before. `closes` when the
    next chunk will be a setup's last one.

    Latency: 1 cycle from a word's last chunk, 3 to `fault`. Throughput: 1 chunk a cycle.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.widest = max(map(arch.chunks, Target))
        word = data.StructLayout({"target": Target, "address": 24, "chunks": data.ArrayLayout(32, self.widest)})
        o = stream.Signature(word, always_ready=True)
        super().__init__({"i": In(stream.Signature(32)), "o": Out(o), "fault": Out(1), "closes": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chunks = Signal(range(self.widest + 1))
        chunks_left = Signal.like(chunks)
        words_left = Signal(32)
        word = self.o.payload

        m.d.comb += self.i.ready.eq(1)
        m.d.sync += self.o.valid.eq(0)
        with m.If(self.o.valid):
            m.d.sync += word.address.eq(word.address + 1)

        check = Signal(32)
        heading = data.View(data.StructLayout({"target": 8, "address": 24}), self.i.payload)
        unknown = Signal()
        with m.If(self.i.valid), m.FSM() as reading:
            with m.State("Begin"):
                m.d.comb += unknown.eq(heading.target > max(target.value for target in Target))
                m.d.sync += Cat(word.target, word.address).eq(self.i.payload)
                m.next = "Count"
            with m.State("Count"):
                with m.Switch(word.target):
                    for target in Target:
                        with m.Case(target):
                            m.d.sync += [chunks.eq(self.arch.chunks(target)), chunks_left.eq(self.arch.chunks(target))]
                m.d.sync += words_left.eq(self.i.payload)
                m.next = "Chunk"
                with m.If(self.i.payload == 0):
                    m.next = "Begin"
            with m.State("Chunk"):
                m.d.sync += word.chunks.eq(Cat(word.chunks.as_value()[32:], self.i.payload))
                m.d.sync += chunks_left.eq(chunks_left - 1)
                with m.If(chunks_left == 1):
                    m.d.sync += [self.o.valid.eq(1), chunks_left.eq(chunks), words_left.eq(words_left - 1)]
                    with m.If(words_left == 1):
                        m.next = "Begin"

        # What is no program.
        target = Mux(reading.ongoing("Begin"), heading.target, word.target.as_value())
        with m.If(self.i.valid & (target != Target.NOTE.value) & (target != Target.SETUP.value)):
            m.d.sync += check.eq(check + self.i.payload)
        beyond = Signal()
        with m.Switch(word.target):
            for target, depth in self.arch.depths.items():
                with m.Case(target):
                    m.d.comb += beyond.eq(word.address >= depth)
        with m.If(self.o.valid & (word.target == Target.SETUP)):
            m.d.sync += check.eq(0)
        setup = data.View(self.arch.setup, self.word(Target.SETUP)[: self.arch.setup.size])
        wrong = (word.target == Target.SETUP) & (setup.check != check)
        faults = Signal(3)
        m.d.sync += [faults.eq(Cat(unknown, self.o.valid & beyond, self.o.valid & wrong)), self.fault.eq(faults.any())]
        m.d.comb += self.closes.eq(reading.ongoing("Chunk") & (chunks_left == 1) & (word.target == Target.SETUP))
        return m

    def word(self, target: Target) -> Value:
        """The word that has come in for a target: the chunks that came last."""
        return Cat(self.o.payload.chunks[chunk] for chunk in range(self.widest - self.arch.chunks(target), self.widest))
