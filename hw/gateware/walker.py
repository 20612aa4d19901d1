"""Loop counters that turn instructions into the addresses of their operands, one step a cycle."""

from functools import reduce
from operator import or_

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import STREAMS, Arch


class Walker(wiring.Component):
    """Walk an instruction's nest of loops, innermost fastest; `hw.emulate.walk` is its definition in software.

    Each step on `o` has the word address of every stream, the mode of its instruction, and marks: `first` and `last` at the ends of each
    reduction, `complete` at the end of an instruction. The first step of an instruction comes `wait` cycles later than right behind the
    step before it. Reductions of an instruction begin as many cycles after each other as it has lanes, or later: so long do their results
    take to leave. Nobody can stop a step that is on its way: while `hold`, no step sets out but the first one of an instruction. `idle`
    when no step is on its way or waits to be.

    Latency: 5 cycles from an instruction on `i` to its first step, 4 from when it is taken; 3 from `hold` to when no step
    comes. Throughput: 1 step a cycle, from one instruction to the next as well if that was there a cycle before.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        steps = stream.Signature(step(arch), always_ready=True)
        super().__init__({"i": In(stream.Signature(arch.instruction)), "o": Out(steps), "hold": In(1), "idle": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        loops = range(self.arch.loops)
        per_loop = data.ArrayLayout(1, self.arch.loops)
        marks = data.StructLayout({"zero": per_loop, "inner_zero": per_loop, "many": per_loop, "reduces": per_loop, "single": 1})

        # What comes next, and what is to be known about it: is a loop over at once, are all inside it; do more steps than one come from it.
        offered, next_one = Signal(), Signal(self.arch.instruction)
        about_next = Signal(marks)
        zero = [~loop.steps.any() for loop in self.i.payload.loops]
        m.d.sync += [offered.eq(self.i.valid & ~self.i.ready), next_one.eq(self.i.payload)]
        for level, loop in enumerate(self.i.payload.loops):
            inner_zero = Cat(1, zero[:level]).all()
            m.d.sync += [
                about_next.zero[level].eq(zero[level]),
                about_next.inner_zero[level].eq(inner_zero),
                about_next.many[level].eq(loop.steps[1:].any() | (loop.steps[0] & ~inner_zero)),
                about_next.reduces[level].eq(self.i.payload.reduce > level),
            ]
        m.d.sync += about_next.single.eq(~Cat((self.i.payload.reduce > level) & ~zero[level] for level in loops).any())

        # Counters: the innermost level with steps left steps, and all inside it begin anew. All that a cycle decides on is a register.
        walked, about = Signal(self.arch.instruction), Signal(marks)
        left = [Signal(self.arch.extent_bits, name=f"left_{level}") for level in loops]
        more, many = Signal(per_loop), Signal(per_loop)  # has a level steps left; do more steps than one come from those
        begins, goes_on, holds = Signal(), Signal(), Signal()
        innermost = [more[level] & ~Cat(0, (more[inner] for inner in range(level))).any() for level in loops]
        m.d.comb += goes_on.eq(more.as_value().any())
        with m.If(begins):
            m.d.sync += [walked.eq(next_one), about.eq(about_next), many.eq(about_next.many)]
            m.d.sync += [left[level].eq(next_one.loops[level].steps) for level in loops]
            m.d.sync += more.eq(~about_next.zero.as_value())
        with m.Elif(~holds):
            for level in loops:
                with m.If(innermost[level]):
                    low, high = left[level][:2], left[level][2:].any()
                    m.d.sync += [
                        left[level].eq(left[level] - 1),
                        more[level].eq(high | (low != 1)),
                        many[level].eq(high | (low == 3) | ((low == 2) & ~about.inner_zero[level])),
                    ]
                with m.Elif(~Cat(more[inner] for inner in range(level)).any() & goes_on):
                    again = walked.loops[level].steps
                    m.d.sync += [left[level].eq(again), more[level].eq(~about.zero[level]), many[level].eq(about.many[level])]

        # Reductions: `ended` when the step before was the last one of one, so that the next is a first one, which waits for the lanes.
        ended, rest = Signal(), Signal(range(self.arch.lanes))
        steps = begins | (goes_on & ~holds)
        m.d.comb += holds.eq((ended & (rest != 0)) | self.hold)
        with m.If(begins):
            m.d.sync += ended.eq(about_next.single)
        with m.Elif(~holds):
            m.d.sync += ended.eq(Mux(ended, about.single, ~(many.as_value() & about.reduces.as_value()).any()))
        with m.If(begins | (goes_on & ended & ~holds)):
            m.d.sync += rest.eq(Mux(begins, next_one.lanes, walked.lanes) - 1)
        with m.Elif(rest != 0):
            m.d.sync += rest.eq(rest - 1)

        # The next instruction begins behind the last step, or when it has waited.
        waited, rested, at_once = Signal(self.arch.wait_bits), Signal(), Signal()
        since = Mux(steps, 1, Mux(waited.all(), waited, waited + 1))
        m.d.comb += self.i.ready.eq(offered & ~begins & ~many.as_value().any() & Mux(goes_on, at_once & ~holds, rested))
        m.d.sync += begins.eq(self.i.valid & self.i.ready)
        m.d.sync += [waited.eq(since), rested.eq(since >= self.i.payload.wait), at_once.eq(self.i.payload.wait == 0)]

        # How far every address moves: to where an instruction starts, or on by what the level that steps says.
        stepped, started, level_of = Signal(), Signal(), Signal(per_loop)
        by = Signal(data.StructLayout({name: self.arch.address_bits for name in STREAMS}))
        m.d.sync += [stepped.eq(steps), started.eq(begins), level_of.eq(Cat(innermost))]
        for name in STREAMS:
            moves = [loop[name] & level_of[level].replicate(self.arch.address_bits) for level, loop in enumerate(walked.loops)]
            m.d.sync += by[name].eq(Mux(started, walked[name], reduce(or_, moves)))

        # Addresses.
        found, at = Signal(data.StructLayout({"first": 1, "last": 1, "complete": 1, "mode": self.arch.mode})), self.o.payload
        moved = Signal()
        m.d.sync += [moved.eq(stepped), self.o.valid.eq(moved)]
        m.d.sync += [found.first.eq(started), found.last.eq(ended), found.complete.eq(~goes_on)]
        m.d.sync += [found.mode[name].eq(walked[name]) for name in self.arch.mode.members]
        with m.If(moved):
            m.d.sync += [at[name].eq(Mux(found.first, 0, at[name]) + by[name]) for name in STREAMS]
            m.d.sync += [at[name].eq(found[name]) for name in ("last", "complete", "mode")]
            m.d.sync += at.first.eq(found.first | at.last)
        m.d.comb += self.idle.eq(~(goes_on | begins | stepped | moved | self.o.valid))
        return m


def step(arch: Arch) -> data.StructLayout:
    """One step of a walk: where its operands are, where its result goes, its mode, and whether it begins or ends something."""
    addresses = {name: arch.address_bits for name in STREAMS}
    return data.StructLayout({**addresses, "first": 1, "last": 1, "complete": 1, "mode": arch.mode})
