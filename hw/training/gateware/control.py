"""What moves shifts: the circuit that keeps the largest result of every contraction, and by it adapts the contraction's shift."""

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from bayestt.algebra.fixed import MAX_BITS
from bayestt.ir.descend import IMPATIENT, PATIENT
from bayestt.ir.training import ACTIVATION_BITS, GRADIENT_BITS
from hw.gateware.delay import delayed, registered
from hw.training.arch import COUNT_BITS, SHIFT_BITS, SIGNED_SHIFT_BITS, Kind, TrainingArch
from hw.training.gateware.unit_step import host_port, peak, unit_step


class Control(wiring.Component):
    """The control `word` of a contraction by its `number` while `running`, for a host otherwise; a CONTROL step moves what it holds.

    `peaks` are magnitudes of results: the largest of each contraction is kept until its CONTROL step, or until a host writes its word.
    Those of another may come when none came for three cycles. Behind those on the forward chain that have moved since `begin` all
    contractions follow. `patient` when no longer in the first steps. `fault`, for good, when the shift of a contraction or that of its bias
    leaves what its word can hold. `hw.training.emulate` defines all this in software, `bayestt.ir.descend` how shifts move.

    Latency: 2 cycles from a number or a host's address to its word, 7 from a step until its word can be looked up, 4 from a peak until a
    step may come. Throughput: 1 peak a cycle, 1 step in 8.
    """

    latency = 7

    def __init__(self, arch: TrainingArch) -> None:
        self.arch = arch
        super().__init__(
            {
                "i": In(stream.Signature(unit_step(arch), always_ready=True)),
                "peaks": In(stream.Signature(peak(arch), always_ready=True)),
                "host": In(host_port(arch, arch.control)),
                "running": In(1),
                "number": In(range(arch.contractions)),
                "word": Out(arch.control),
                "begin": In(1),
                "patient": In(1),
                "fault": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        begins = self.i.valid & (self.i.payload.mode.kind == Kind.CONTROL)
        mode, before = Signal(self.arch.mode), Signal(self.arch.control)
        with m.If(begins):
            m.d.sync += [mode.eq(self.i.payload.mode), before.eq(self.i.payload.control)]
        largest = self._largest(m, begins)

        # Does the peak ask for a larger shift or a smaller one; has it for long enough, and is there one.
        asks_more, asks_less = Signal(), Signal()
        wide, narrow = (1 << (bits - 1) for bits in (GRADIENT_BITS, ACTIVATION_BITS))
        with m.If(delayed(m, begins, 2)):
            m.d.sync += [
                asks_more.eq((largest << 3) > Mux(mode.wide, 7 * wide, 7 * narrow)),
                asks_less.eq((largest << 4) < Mux(mode.wide, 5 * wide, 5 * narrow)),
            ]
        asked = Mux(asks_more, 1, Mux(asks_less, -1, 0))
        count, moves = Signal(signed(COUNT_BITS + 1)), Signal()
        more, less = Mux(before.count > 0, before.count, 0) + 1, Mux(before.count < 0, before.count, 0) - 1
        m.d.sync += count.eq(Mux(asks_more, more, Mux(asks_less, less, 0)))
        ends = Mux(asks_more, before.shift == MAX_BITS - 1, before.shift == 0)
        m.d.sync += moves.eq(~mode.given & ~ends & (abs(count) > Mux(self.patient, PATIENT, IMPATIENT)))

        # The word after it, and how far what comes behind it has moved.
        moved, drift = delayed(m, begins, 5), Signal(range(-self.arch.contractions, self.arch.contractions + 1))
        shift, bias_shift = Signal(signed(SIGNED_SHIFT_BITS + 1)), Signal(signed(SIGNED_SHIFT_BITS + 1))
        clamped = Mux(count > PATIENT, PATIENT + 1, Mux(count < -PATIENT, -PATIENT - 1, count))
        m.d.comb += [
            shift.eq(before.shift + Mux(mode.given, -drift, Mux(moves, asked, 0))),
            bias_shift.eq(before.bias_shift + drift),
        ]
        after = Signal(self.arch.control)
        m.d.sync += [
            after.shift.eq(shift),
            after.bias_shift.eq(bias_shift),
            after.count.eq(Mux(mode.given, before.count, Mux(moves, 0, clamped))),
        ]
        with m.If(moved & (shift[SHIFT_BITS:].any() | (bias_shift[-1] != bias_shift[-2]))):
            m.d.sync += self.fault.eq(1)
        with m.If(self.begin):
            m.d.sync += drift.eq(0)
        with m.Elif(moved & moves & mode.forward):
            m.d.sync += drift.eq(drift + asked)
        self._words(m, delayed(m, moved), mode.number, after)
        return m

    def _largest(self, m: Module, begins: Value) -> Value:
        """The largest peak of a contraction, two cycles after the step that `begins` and that zeroes it."""
        m.submodules.kept = kept = Memory(shape=GRADIENT_BITS, depth=self.arch.contractions, init=[])
        read, write = kept.read_port(), kept.write_port()
        of = self.i.payload.mode.number
        m.d.comb += read.addr.eq(Mux(begins, of, self.peaks.payload.number))
        found = registered(m, read.data)

        # Of the contraction of which one came last the largest is here, and only later in the memory.
        came, given = delayed(m, self.peaks.valid, 2), delayed(m, self.peaks.payload, 2)
        largest, writes = Signal(peak(self.arch)), Signal()
        same = given.number == largest.number
        above = Mux(same, given.magnitude > largest.magnitude, given.magnitude > found)
        with m.If(begins | self.host.en):
            m.d.sync += [largest.number.eq(Mux(self.host.en, self.host.address, of)), largest.magnitude.eq(0)]
        with m.Elif(came):
            m.d.sync += [
                largest.number.eq(given.number),
                largest.magnitude.eq(Mux(above, given.magnitude, Mux(same, largest.magnitude, found))),
            ]
        m.d.sync += writes.eq(begins | self.host.en | came)
        m.d.comb += [write.addr.eq(largest.number), write.data.eq(largest.magnitude), write.en.eq(writes)]
        return found

    def _words(self, m: Module, moved: Value, number: Value, after: Value) -> None:
        """The memory of control words, which a step that `moved` one writes, or a host."""
        m.submodules.words = words = Memory(shape=self.arch.control, depth=self.arch.contractions, init=[])
        read, write = words.read_port(), words.write_port()
        m.d.comb += [
            write.en.eq(self.host.en | moved),
            write.addr.eq(Mux(self.host.en, self.host.address, number)),
            write.data.eq(Mux(self.host.en, self.host.written, after)),
            read.addr.eq(Mux(self.running, self.number, self.host.address)),
            self.word.eq(registered(m, read.data)),
            self.host.word.eq(self.word),
        ]
