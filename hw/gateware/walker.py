"""Loop counters that turn an instruction into the addresses of its operands, one step a cycle."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import STREAMS, Arch


class Walker(wiring.Component):
    """Walk an instruction's nest of loops, innermost fastest; `hw.emulate.walk` is its definition in software.

    The instruction on `i` is taken with the last step of its walk, so it stays there, unchanged, all along. Each step on `o` has the
    word address of every stream; `first` and `last` mark the ends of each reduction.

    Latency: 1 cycle from `i.valid` to the first step. Throughput: 1 step a cycle, 1 cycle between two instructions.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__({"i": In(stream.Signature(arch.instruction)), "o": Out(stream.Signature(step(arch)))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        instruction, at = self.i.payload, self.o.payload
        left = [Signal(self.arch.extent_bits, name=f"left_{level}") for level in range(self.arch.loops)]

        # The level that steps next is the innermost one with steps left; `loops` when the walk ends.
        level = Signal(range(self.arch.loops + 1), init=self.arch.loops)
        for number in reversed(range(self.arch.loops)):
            with m.If(left[number] != 0):
                m.d.comb += level.eq(number)
        m.d.comb += [
            at.last.eq(level >= instruction.reduce),
            self.i.ready.eq(self.o.valid & self.o.ready & (level == self.arch.loops)),
        ]

        with m.If(~self.o.valid & self.i.valid):
            m.d.sync += [count.eq(loop.steps) for count, loop in zip(left, instruction.loops, strict=True)]
            m.d.sync += [at[name].eq(instruction[name]) for name in STREAMS]
            m.d.sync += [at.first.eq(1), self.o.valid.eq(1)]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += at.first.eq(at.last)
            with m.Switch(level):
                for number, loop in enumerate(instruction.loops):
                    with m.Case(number):
                        m.d.sync += [left[inner].eq(instruction.loops[inner].steps) for inner in range(number)]
                        m.d.sync += left[number].eq(left[number] - 1)
                        m.d.sync += [at[name].eq(at[name] + loop[name]) for name in STREAMS]
                with m.Default():
                    m.d.sync += self.o.valid.eq(0)
        return m


def step(arch: Arch) -> data.StructLayout:
    """One step of a walk: where its operands are, where its result goes, and whether it begins or ends a reduction."""
    return data.StructLayout({**{name: arch.address_bits for name in STREAMS}, "first": 1, "last": 1})
