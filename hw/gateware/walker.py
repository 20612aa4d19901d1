"""Loop counters that turn instructions into the addresses of their operands, one step a cycle."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import STREAMS, Arch


class Walker(wiring.Component):
    """Walk an instruction's nest of loops, innermost fastest; `hw.emulate.walk` is its definition in software.

    Each step on `o` has the word address of every stream, the mode of its instruction, and marks: `first` and `last` at the ends of each
    reduction, `complete` at the end of an instruction. The first step of an instruction comes `wait` cycles later than right behind the
    step before it. `idle` when no step is on its way.

    Latency: 2 cycles from `i` to the first step. Throughput: 1 step a cycle, from one instruction to the next as well.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__({"i": In(stream.Signature(arch.instruction)), "o": Out(stream.Signature(step(arch))), "idle": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        loops = range(self.arch.loops)
        instruction, at = self.i.payload, self.o.payload
        moving = Signal()
        m.d.comb += moving.eq(~self.o.valid | self.o.ready)

        # Counters. The level that steps next is the innermost one with steps left; `loops` when the walk ends.
        walked = Signal(self.arch.instruction)
        left = [Signal(self.arch.extent_bits, name=f"left_{number}") for number in loops]
        more = [Signal(name=f"more_{number}") for number in loops]
        level = Signal(range(self.arch.loops + 1), init=self.arch.loops)
        for number in reversed(loops):
            with m.If(more[number]):
                m.d.comb += level.eq(number)
        ended = Signal()
        waited = Signal(self.arch.wait_bits)
        m.d.comb += [ended.eq(~Cat(more).any()), self.i.ready.eq(moving & ended & (waited >= instruction.wait))]

        # How far every address moves: to where an instruction starts, or on by what the level that steps says.
        by = Signal(data.StructLayout({name: self.arch.address_bits for name in STREAMS}))
        begins = Signal()
        steps = Signal()
        with m.If(moving):
            m.d.sync += [steps.eq(0), begins.eq(0), waited.eq(Mux(waited.all(), waited, waited + 1))]
            with m.Switch(level):
                for number in loops:
                    with m.Case(number):
                        loop = walked.loops[number]
                        m.d.sync += [by[name].eq(loop[name]) for name in STREAMS]
                        for inner in range(number):
                            again = walked.loops[inner].steps
                            m.d.sync += [left[inner].eq(again), more[inner].eq(again != 0)]
                        m.d.sync += [left[number].eq(left[number] - 1), more[number].eq(left[number] != 1)]
            with m.If(~ended):
                m.d.sync += [steps.eq(1), waited.eq(0)]
            with m.Elif(self.i.valid & self.i.ready):
                m.d.sync += [walked.eq(instruction), steps.eq(1), begins.eq(1), waited.eq(0)]
                m.d.sync += [by[name].eq(instruction[name]) for name in STREAMS]
                for number in loops:
                    extent = instruction.loops[number].steps
                    m.d.sync += [left[number].eq(extent), more[number].eq(extent != 0)]

        # Addresses. What steps next tells whether this step ends a reduction.
        with m.If(moving):
            m.d.sync += self.o.valid.eq(steps)
            with m.If(steps):
                m.d.sync += [at[name].eq(Mux(begins, 0, at[name]) + by[name]) for name in STREAMS]
                m.d.sync += [at.first.eq(begins | at.last), at.last.eq(level >= walked.reduce), at.complete.eq(ended)]
                m.d.sync += [at.mode[name].eq(walked[name]) for name in self.arch.mode.members]
        m.d.comb += self.idle.eq(ended & ~steps & ~self.o.valid)
        return m


def step(arch: Arch) -> data.StructLayout:
    """One step of a walk: where its operands are, where its result goes, its mode, and whether it begins or ends something."""
    addresses = {name: arch.address_bits for name in STREAMS}
    return data.StructLayout({**addresses, "first": 1, "last": 1, "complete": 1, "mode": arch.mode})
