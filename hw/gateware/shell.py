"""The machine behind few pins: a score word alone has `rows` x `acc_bits` bits, and no package so many pins."""

from amaranth import Cat, Module, Shape, Signal
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch
from hw.gateware.datapath import Datapath

BYTE_BITS = 8


class Shell(wiring.Component):
    """The datapath with streams of bytes: a word passes as its bytes, the least significant first. `cycles` stays inside.

    It is a harness, not a board: with it the whole datapath can be placed, routed and timed, all its streams in use and registered at
    its border, and no pin has a place. A word takes as many cycles as it has bytes, and one more.
    """

    def __init__(self, arch: Arch) -> None:
        self.datapath = Datapath(arch)
        self.flows = {name: member.flow for name, member in self.datapath.signature.members.items() if member.is_signature}
        super().__init__({**{name: flow(stream.Signature(BYTE_BITS)) for name, flow in self.flows.items()}, "busy": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.datapath = self.datapath
        for name, flow in self.flows.items():
            inside, outside = getattr(self.datapath, name), wiring.flipped(getattr(self, name))
            part = (Collect if flow == In else Spread)(inside.payload.shape())
            m.submodules[name] = part
            first, last = (outside, inside) if flow == In else (inside, outside)
            wiring.connect(m, first, part.i)
            wiring.connect(m, part.o, last)
        m.d.comb += self.busy.eq(self.datapath.busy)
        return m


class Collect(wiring.Component):
    """Bytes become a word. Latency: 1 cycle from its last byte. Throughput: a word in as many cycles as it has bytes, and one."""

    def __init__(self, shape: ShapeLike) -> None:
        super().__init__({"i": In(stream.Signature(BYTE_BITS)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = bytes_of(self.o.payload.shape())
        word = Signal(size * BYTE_BITS)
        full = Signal()
        number = Signal(range(size))
        m.d.comb += [self.o.payload.eq(word), self.o.valid.eq(full), self.i.ready.eq(~full)]
        with m.If(self.i.valid & ~full):
            m.d.sync += [word.eq(Cat(word, self.i.payload)[BYTE_BITS:]), number.eq(number + 1)]
            with m.If(number == size - 1):
                m.d.sync += [number.eq(0), full.eq(1)]
        with m.If(full & self.o.ready):
            m.d.sync += full.eq(0)
        return m


class Spread(wiring.Component):
    """A word becomes bytes. Latency: 1 cycle to its first byte. Throughput: a word in as many cycles as it has bytes, and one."""

    def __init__(self, shape: ShapeLike) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(BYTE_BITS))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = bytes_of(self.i.payload.shape())
        word = Signal(size * BYTE_BITS)
        full = Signal()
        number = Signal(range(size))
        m.d.comb += [self.o.payload.eq(word.word_select(number, BYTE_BITS)), self.o.valid.eq(full), self.i.ready.eq(~full)]
        with m.If(~full):
            m.d.sync += [word.eq(self.i.payload), full.eq(self.i.valid)]
        with m.Elif(self.o.ready):
            m.d.sync += number.eq(number + 1)
            with m.If(number == size - 1):
                m.d.sync += [number.eq(0), full.eq(0)]
        return m


def bytes_of(shape: ShapeLike) -> int:
    """How many bytes hold a word."""
    return -(-Shape.cast(shape).width // BYTE_BITS)
