"""The door through which a program comes in: sections of 32-bit words become words of the machine's memories."""

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch, Target


class Loader(wiring.Component):
    """Collect the sections of a program stream into memory words; `hw.program.Program.encode` writes such a stream.

    A section is `target` (8 bits) and `start` address (24 bits) in a first word, `count` in a second, then `count` memory words of as
    many 32-bit chunks as the target needs, the least significant first. Notes come out as words of one chunk, for nobody to take.

    Latency: 1 cycle from a word's last chunk. Throughput: 1 chunk a cycle.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.widest = max(map(arch.chunks, Target))
        word = data.StructLayout({"target": Target, "address": 24, "chunks": data.ArrayLayout(32, self.widest)})
        super().__init__({"i": In(stream.Signature(32)), "o": Out(stream.Signature(word, always_ready=True))})

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

        with m.If(self.i.valid), m.FSM():
            with m.State("Begin"):
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
        return m

    def word(self, target: Target) -> Value:
        """The word that has come in for a target: the chunks that came last."""
        return Cat(self.o.payload.chunks[chunk] for chunk in range(self.widest - self.arch.chunks(target), self.widest))
