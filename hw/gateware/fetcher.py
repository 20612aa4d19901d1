"""The code memory, and who reads it: instructions come one after another, over and over."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory, WritePort
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arch import Arch
from hw.gateware.delay import registered


class Fetcher(wiring.Component):
    """Give the instructions in the code memory in turn, and behind one that ends a segment the first again, `first` with that.

    While `stop`, instructions are written, none is given, and what was read before is forgotten. `beyond` when the last one that there is
    room for ends nothing.

    Latency: 3 cycles from `stop` to the first instruction. Throughput: 1 every 3 cycles, one more behind one that
    ends a segment.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        write = WritePort.Signature(addr_width=ceil_log2(arch.code_depth), shape=arch.instruction)
        o = stream.Signature(arch.instruction)
        super().__init__({"write": In(write), "stop": In(1), "o": Out(o), "first": Out(1), "beyond": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.code = code = Memory(shape=self.arch.instruction, depth=self.arch.code_depth, init=[])
        write, read = code.write_port(), code.read_port()
        m.d.comb += [getattr(write, name).eq(getattr(self.write, name)) for name in ("addr", "data", "en")]
        number = Signal(range(self.arch.code_depth + 1))
        reads, came, fresh = Signal(init=1), Signal(), Signal()
        word = registered(m, read.data)
        takes = came & (~self.o.valid | self.o.ready)
        m.d.comb += [read.addr.eq(number), self.beyond.eq(self.o.valid & ~self.o.payload.end & (number == self.arch.code_depth))]
        m.d.sync += [reads.eq(1), came.eq(reads & ~takes), fresh.eq(takes)]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(takes):
            m.d.sync += [reads.eq(0), self.o.valid.eq(1), self.o.payload.eq(word), self.first.eq(number == 0), number.eq(number + 1)]
        with m.If(self.stop | (fresh & self.o.payload.end)):
            m.d.sync += [number.eq(0), reads.eq(0), came.eq(0)]
        with m.If(self.stop):
            m.d.sync += self.o.valid.eq(0)
        return m
