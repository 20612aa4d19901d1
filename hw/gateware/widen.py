"""From a bus to the machine: beats of a bus become wide words."""

from amaranth import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

BEAT_BITS = 32
"""The width of an AXI bus."""


class Widen(wiring.Component):
    """Collect beats of `beat_bits` into words of `bits`, the least significant first; what a word's last beat has beyond it is ignored.

    Latency: 1 cycle from a word's last beat. Throughput: 1 beat a cycle.
    """

    def __init__(self, bits: int, beat_bits: int = BEAT_BITS) -> None:
        self.beats, self.beat_bits = beats(bits, beat_bits), beat_bits
        super().__init__({"i": In(stream.Signature(data.StructLayout({"data": beat_bits}))), "o": Out(stream.Signature(bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = Signal(self.beat_bits * self.beats)
        came = Signal(range(self.beats))
        m.d.comb += [self.o.payload.eq(word), self.i.ready.eq(~self.o.valid | self.o.ready)]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [word.eq(Cat(word, self.i.payload.data)[self.beat_bits :]), came.eq(came + 1)]
            with m.If(came == self.beats - 1):
                m.d.sync += [self.o.valid.eq(1), came.eq(0)]
        return m


def beats(bits: int, beat_bits: int = BEAT_BITS) -> int:
    """How many beats make a word of so many bits."""
    return -(-bits // beat_bits)
