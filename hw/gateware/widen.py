"""From a bus to the machine: beats of a bus become wide words."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

BEAT_BITS = 32
"""The width of a bus."""


class Widen(wiring.Component):
    """Collect beats into words of `bits` bits, the least significant beat first; bits of a word's last beat beyond its end are ignored.

    Latency: 1 cycle from a word's last beat. Throughput: 1 beat a cycle.
    """

    def __init__(self, bits: int) -> None:
        self.beats = beats(bits)
        super().__init__({"i": In(stream.Signature(data.StructLayout({"data": BEAT_BITS}))), "o": Out(stream.Signature(bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        word = Signal(BEAT_BITS * self.beats)
        came = Signal(range(self.beats + 1))
        m.d.comb += [
            self.o.valid.eq(came == self.beats),
            self.o.payload.eq(word),
            self.i.ready.eq(~self.o.valid | self.o.ready),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += came.eq(0)
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [word.eq(Cat(word, self.i.payload.data)[BEAT_BITS:]), came.eq(Mux(self.o.valid, 1, came + 1))]
        return m


def beats(bits: int) -> int:
    """How many beats make a word of so many bits."""
    return -(-bits // BEAT_BITS)
