"""What the prior knows of every rank index: its scale, whether it is there, how strongly it pulls; the circuit that moves all that."""

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from bayestt.algebra.lfsr import DRAW_BITS
from bayestt.ir.rank_scale import SCALE_BITS, SCALE_FRAC, STRENGTH_BITS, THRESHOLD
from hw.gateware.delay import delayed, registered
from hw.training.arch import PULL_BITS, Kind, TrainingArch
from hw.training.gateware.nearer import ENERGY_BITS, ENTRIES_BITS, SQUARE_BITS, Nearer
from hw.training.gateware.reciprocal import Reciprocal
from hw.training.gateware.rescale import Rescale
from hw.training.gateware.unit_step import host_port, unit_step

READ_CYCLES = 2
"""Cycles from a step to the word that it reads."""
SUM_CYCLES = READ_CYCLES + 1
"""Cycles from what is added to an index until its sum is written."""


class Ranks(wiring.Component):
    """Hold the scales of rank indices, and move them in walks over the indices of an axis: `bayestt.ir.rank_scale` in gates.

    A STRENGTH step finds how strongly the index at `w` pulls on its latents, 2**`pull` / square; 0 unless there are `pulls`. SCALE steps
    move squares towards their best, by the energy and the number of the entries that were added, which are 0 afterwards. SURVIVE steps
    over the same indices take those whose square is small, but the largest. An `entry` is `there` if both its indices are, and has the
    `strength` of its own, two cycles later; it `adds` its square to an index. Index 0 is of no rank: it has no steps, and what is added to
    it is never looked at. While nothing is `running` a host reads and writes scales; it must write those of all indices, 0 as well, and
    what was added to them is then 0.

    Latency: from a step until the next walk may begin 11 cycles (STRENGTH), 17 (SCALE), 4 (SURVIVE); 4 from what is added. Throughput: 1
    step in 8 cycles, 1 entry and 1 sum a cycle.
    """

    def __init__(self, arch: TrainingArch) -> None:
        self.arch = arch
        super().__init__(
            {
                "i": In(stream.Signature(unit_step(arch), always_ready=True)),
                "pull": In(signed(PULL_BITS)),
                "pulls": In(1),
                "entry": In(entry_port(arch)),
                "running": In(1),
                "host": In(host_port(arch, arch.scale)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step, host = self.i.payload, self.host
        strengthens, scales, survives = (self.i.valid & (step.mode.kind == kind) for kind in (Kind.STRENGTH, Kind.SCALE, Kind.SURVIVE))

        # Scales.
        m.submodules.scales = words = Memory(shape=self.arch.scale, depth=self.arch.ranks, init=[])
        read, write = words.read_port(), words.write_port()
        m.d.comb += read.addr.eq(Mux(self.running, step.w, host.address))
        before, index = registered(m, read.data), delayed(m, step.w, READ_CYCLES)
        m.d.comb += host.word.eq(before)
        self._strengths(m, delayed(m, strengthens, READ_CYCLES), before.square, index)

        # Nearer to their best: the first of the largest of a walk stays, whatever its square is.
        m.submodules.nearer = nearer = Nearer()
        scaled, completes = (delayed(m, mark, READ_CYCLES + Nearer.latency) for mark in (scales, step.complete))
        scaled_index, scaled_alive = (delayed(m, value, Nearer.latency) for value in (index, before.alive))
        moved = Mux(scaled_alive, nearer.nearer, 0)
        sums = self._sums(m, scaled, scaled_index, step.w)
        m.d.comb += [nearer.square.eq(before.square), nearer.energy.eq(sums.energy), nearer.entries.eq(sums.entries)]
        begins, largest, first = Signal(init=1), Signal(SCALE_BITS), Signal(self.arch.address_bits)
        with m.If(scaled):
            m.d.sync += begins.eq(completes)
            with m.If(begins | (moved > largest)):
                m.d.sync += [largest.eq(moved), first.eq(scaled_index)]

        # Which stay.
        survived, stays = delayed(m, survives, READ_CYCLES + 1), Signal()
        m.d.sync += stays.eq(before.alive & ((before.square >= THRESHOLD << SCALE_FRAC) | (index == first)))
        after, square_before, index_before = Signal(self.arch.scale), delayed(m, before.square), delayed(m, index)
        with m.If(host.en):
            m.d.comb += [write.addr.eq(host.address), after.eq(host.written)]
        with m.Elif(scaled):
            m.d.comb += [write.addr.eq(scaled_index), after.square.eq(moved), after.alive.eq(scaled_alive)]
        with m.Else():
            m.d.comb += [write.addr.eq(index_before), after.square.eq(Mux(stays, square_before, 0)), after.alive.eq(stays)]
        m.d.comb += [write.data.eq(after), write.en.eq(host.en | scaled | survived)]

        # Which indices are there, once more, for those who ask for two.
        m.submodules.alive = alive = Memory(shape=1, depth=self.arch.ranks, init=[])
        own, other, write_alive = alive.read_port(), alive.read_port(), alive.write_port()
        m.d.comb += [getattr(write_alive, name).eq(getattr(write, name)) for name in ("addr", "en")]
        m.d.comb += [write_alive.data.eq(after.alive), own.addr.eq(self.entry.own), other.addr.eq(self.entry.other)]
        m.d.comb += self.entry.there.eq(delayed(m, own.data & other.data))
        return m

    def _strengths(self, m: Module, strengthens: Value, square: Value, index: Value) -> None:
        """The memory of strengths: what steps make of squares is read by entries."""
        m.submodules.strengths = strengths = Memory(shape=signed(STRENGTH_BITS), depth=self.arch.ranks, init=[])
        read, write = strengths.read_port(), strengths.write_port()
        m.submodules.reciprocal = reciprocal = Reciprocal(SCALE_BITS)
        m.submodules.rescale = rescale = Rescale(len(reciprocal.mantissa) + 1, len(reciprocal.exponent) + 2, STRENGTH_BITS)
        latency = Reciprocal.latency + Rescale.latency
        ease = delayed(m, self.i.payload.mode.ease, READ_CYCLES)
        less = Signal(signed(PULL_BITS + 2))
        m.d.sync += less.eq(SCALE_FRAC + DRAW_BITS + self.pull - delayed(m, ease, Reciprocal.latency - 1))
        m.d.comb += [
            reciprocal.value.eq(square | ~square.any()),
            rescale.value.eq(reciprocal.mantissa),
            rescale.shift.eq(reciprocal.exponent - less),
            write.addr.eq(delayed(m, index, latency)),
            write.data.eq(Mux(self.pulls, rescale.number, 0)),
            write.en.eq(delayed(m, strengthens, latency)),
            read.addr.eq(self.entry.own),
            self.entry.strength.eq(registered(m, read.data)),
        ]

    def _sums(self, m: Module, scaled: Value, scaled_index: Value, asked: Value) -> data.View:
        """The memory of what was added to indices: the sums of the one that is asked for, two cycles later."""
        layout = data.StructLayout({"energy": ENERGY_BITS, "entries": ENTRIES_BITS})
        m.submodules.sums = sums = Memory(shape=layout, depth=self.arch.ranks, init=[])
        read, write = sums.read_port(), sums.write_port()
        entry, host = self.entry, self.host
        m.d.comb += read.addr.eq(Mux(entry.adds, entry.to, asked))
        found, more = registered(m, read.data), Signal(layout)

        # What was added to the same index in the last cycles is not yet in the memory.
        before = found
        for age in reversed(range(1, SUM_CYCLES + 1)):
            again = delayed(m, entry.adds, age) & (delayed(m, entry.to, age) == entry.to)
            before = Mux(delayed(m, again, READ_CYCLES), delayed(m, more, age - 1), before)
        before = data.View(layout, before)
        m.d.sync += [more.energy.eq(before.energy + delayed(m, entry.square, READ_CYCLES)), more.entries.eq(before.entries + 1)]
        added = delayed(m, entry.adds, SUM_CYCLES)
        m.d.comb += [
            write.addr.eq(Mux(added, delayed(m, entry.to, SUM_CYCLES), Mux(scaled, scaled_index, host.address))),
            write.data.eq(Mux(added, more, 0)),
            write.en.eq(added | scaled | host.en),
        ]
        return found


def entry_port(arch: TrainingArch) -> wiring.Signature:
    """An entry gives its own index and another; another one `adds` its square to an index."""
    return wiring.Signature(
        {
            "own": Out(arch.address_bits),
            "other": Out(arch.address_bits),
            "there": In(1),
            "strength": In(signed(STRENGTH_BITS)),
            "to": Out(arch.address_bits),
            "square": Out(SQUARE_BITS),
            "adds": Out(1),
        }
    )
