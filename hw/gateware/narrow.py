"""From the machine to a bus: wide words become beats of a bus, in packets."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.gateware.widen import BEAT_BITS, beats


class Narrow(wiring.Component):
    """Split words of `bits` bits into beats of `beat_bits`, the least significant first, zeros beyond a word's end.

    `last` comes with the last beat of a word that came with it: it ends a packet. While `drop`, no word is taken and what is left of one is
    dropped, but a beat that waits stays as it is, and a packet that has begun ends: with one more beat, of zeros.

    Latency: 1 cycle from a word to its first beat. Throughput: 1 beat a cycle, and a cycle between two words.
    """

    def __init__(self, bits: int, beat_bits: int = BEAT_BITS) -> None:
        self.bits, self.beat_bits = bits, beat_bits
        word = data.StructLayout({"word": bits, "last": 1})
        beat = data.StructLayout({"data": beat_bits, "last": 1})
        super().__init__({"i": In(stream.Signature(word)), "o": Out(stream.Signature(beat)), "drop": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        many = beats(self.bits, self.beat_bits)
        word = Signal(self.beat_bits * many)
        left = Signal(range(max(many, 2) + 1))
        only = Signal()  # one beat is left
        last = Signal()
        begun = Signal()
        beat = self.o.payload
        passes = self.o.valid & self.o.ready
        m.d.comb += [
            beat.data.eq(word),
            beat.last.eq(last & only),
            self.i.ready.eq(~self.drop & ~self.o.valid),
        ]
        with m.If(passes):
            m.d.sync += [word.eq(word >> self.beat_bits), left.eq(left - 1), begun.eq(~beat.last)]
            m.d.sync += [self.o.valid.eq(~only), only.eq(left == 2)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [word.eq(self.i.payload.word), left.eq(many), last.eq(self.i.payload.last)]
            m.d.sync += [self.o.valid.eq(1), only.eq(many == 1)]
        ends = self.o.valid & beat.last
        with m.If(self.drop & ~ends & (self.o.valid | begun)):
            waits = self.o.valid & ~self.o.ready
            m.d.sync += [word.eq(Mux(waits, beat.data, 0)), left.eq(Mux(waits, 2, 1)), last.eq(1)]
            m.d.sync += [self.o.valid.eq(1), only.eq(~waits)]
        return m
