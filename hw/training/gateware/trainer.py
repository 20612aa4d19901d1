"""The whole machine that trains: a host gives images and labels, and it moves the latents, by itself."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bayestt.ir.training import ACTIVATION_BITS, BIAS_BITS, GRADIENT_BITS, LATENT_BITS
from hw.gateware.delay import delayed
from hw.gateware.mac import Mac
from hw.gateware.requantize import Requantize
from hw.gateware.walker import Walker
from hw.training.arch import SIGNED_SHIFT_BITS, Bank, Kind, Part, TrainingArch
from hw.training.gateware.banks import Banks, result
from hw.training.gateware.control import Control
from hw.training.gateware.mover import Mover
from hw.training.gateware.ranks import Ranks
from hw.training.gateware.rescale import Rescale
from hw.training.gateware.scatter import Scatter
from hw.training.gateware.sequencer import Sequencer
from hw.training.gateware.softmax import Softmax
from hw.training.gateware.unit_step import peak

HOST_CYCLES = Banks.latency + 3
"""Cycles from an address that a host gives to the word there."""


class Trainer(wiring.Component):
    """Take steps of training as `bayestt.ir.descend.descend` does, bit for bit: what `hw.training.emulate` says.

    While the machine is not `busy` a host reads and writes its parts, `HOST_CYCLES` a word: its code, where pixels lie, and a state of the
    training. Then, two cycles behind what was written or later, each image comes as its `label` and its pixels on `image`, in the order of
    their addresses; `loss` is the error at its label, when it is done. Behind a batch's `last` image latents, scales and shifts move.
    `error` when an instruction that should end something does not, or a shift leaves what its word holds: then no other instruction begins,
    and the machine stays `busy`, until reset.
    `cycles` counts those it is `busy`.

    Throughput: `hw.training.cycles.cycles`.
    """

    def __init__(self, arch: TrainingArch) -> None:
        self.arch = arch
        words = {"part": Out(Part), "address": Out(arch.address_bits), "en": Out(1), "written": Out(32), "word": In(32)}
        super().__init__(
            {
                "host": In(wiring.Signature(words)),
                "label": In(stream.Signature(data.StructLayout({"label": 8, "last": 1}))),
                "image": In(stream.Signature(signed(ACTIVATION_BITS))),
                "loss": Out(stream.Signature(signed(GRADIENT_BITS))),
                "busy": Out(1),
                "error": Out(1),
                "cycles": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, host = self.arch, self.host
        m.submodules.sequencer = sequencer = Sequencer(arch)
        m.submodules.walker = walker = Walker(arch)
        m.submodules.banks = banks = Banks(arch)
        m.submodules.mac = mac = Mac(arch)
        m.submodules.requantize = requantize = Requantize(arch)
        m.submodules.scatter = scatter = Scatter(arch)
        m.submodules.rescale = rescale = Rescale(LATENT_BITS, SIGNED_SHIFT_BITS, BIAS_BITS)
        m.submodules.softmax = softmax = Softmax(arch)
        m.submodules.ranks = ranks = Ranks(arch)
        m.submodules.mover = mover = Mover(arch)
        m.submodules.control = control = Control(arch)

        # A host reads and writes while nothing else does.
        waits = Signal()
        part, address, word, en = (delayed(m, value) for value in (host.part, host.address, host.written, waits & host.en))
        writes = {each: en & (part == each) for each in Part}

        # Images in, one by one; behind the last one of a batch all moves.
        rule, given = Signal(arch.rule), Signal(self.label.payload.shape())
        image = Signal(data.ArrayLayout(arch.address_bits, 2))
        (first, last), fill_at, fills = image, Signal(arch.address_bits), self.image.valid & self.image.ready
        with m.FSM() as reading:
            with m.State("Wait"):
                m.d.comb += self.label.ready.eq(~host.en & ~en)
                m.d.sync += [given.eq(self.label.payload), fill_at.eq(first)]
                with m.If(self.label.valid & self.label.ready):
                    m.next = "Fill"
            with m.State("Fill"):
                m.d.comb += self.image.ready.eq(1)
                with m.If(fills):
                    m.d.sync += fill_at.eq(fill_at + 1)
                    with m.If(fill_at == last):
                        m.d.comb += [sequencer.begin.eq(1), sequencer.restart.eq(1)]
                        m.next = "Image"
            with m.State("Image"), m.If(sequencer.done):
                m.next = "Tell"
            with m.State("Tell"):
                m.d.comb += self.loss.valid.eq(1)
                with m.If(self.loss.ready):
                    m.d.comb += [sequencer.begin.eq(given.last), control.begin.eq(given.last)]
                    m.next = "Wait"
                    with m.If(given.last):
                        m.next = "Batch"
            with m.State("Batch"), m.If(sequencer.done):
                m.next = "Wait"
        running = Signal()
        m.d.comb += [waits.eq(reading.ongoing("Wait")), self.busy.eq(~waits), self.loss.payload.eq(softmax.loss)]
        m.d.sync += [
            running.eq(self.busy),
            self.cycles.eq(self.cycles + self.busy),
            self.error.eq(self.error | control.fault | sequencer.beyond),
        ]

        # An instruction's steps, and their operands.
        m.d.comb += [control.running.eq(running), control.number.eq(sequencer.number), sequencer.control.eq(control.word)]
        m.d.comb += [sequencer.idle.eq(walker.idle), sequencer.stop.eq(self.error)]
        wiring.connect(m, sequencer.o, walker.i)
        m.d.comb += [banks.i.valid.eq(walker.o.valid), banks.i.payload.eq(walker.o.payload)]
        at, step, mode = banks.o.payload, banks.o.valid, banks.o.payload.mode
        is_kind = {kind: step & (mode.kind == kind) for kind in (Kind.MULTIPLY, Kind.BIAS, Kind.MASK)}

        # Products and sums, rounded, to where they go.
        m.d.comb += [
            mac.i.valid.eq(is_kind[Kind.MULTIPLY]),
            mac.i.payload.x[0].eq(at.x),
            *(mac.i.payload[name].eq(at[name]) for name in ("w", "init", "first", "last", "y", "mode")),
        ]
        wiring.connect(m, mac.o, requantize.i)
        wiring.connect(m, requantize.o, scatter.i)

        # Biases to where sums begin.
        m.d.comb += [
            rescale.value.eq(at.x),
            rescale.shift.eq(control.word.bias_shift),
            banks.begin.valid.eq(delayed(m, is_kind[Kind.BIAS], Rescale.latency)),
            banks.begin.payload.number.eq(rescale.number),
            banks.begin.payload.y.eq(delayed(m, at.y, Rescale.latency)),
        ]

        # All other kinds are of a unit.
        for unit in (softmax, ranks, mover, control):
            m.d.comb += [
                unit.i.valid.eq(step & at.last & ~Cat(is_kind.values()).any()),
                unit.i.payload.control.eq(control.word),
                unit.i.payload.w.eq(at.w_at),
                unit.i.payload.init.eq(at.init_at),
                *(unit.i.payload[name].eq(at[name]) for name in ("x", "total", "y", "complete", "mode")),
            ]
        m.d.comb += [
            softmax.label.eq(given.label),
            ranks.pull.eq(rule.pull),
            ranks.pulls.eq(rule.pulls),
            mover.rate.eq(rule.rate),
            mover.momentum.eq(rule.momentum),
            control.patient.eq(rule.patient),
        ]
        wiring.connect(m, mover.ranks, ranks.entry)
        m.d.comb += ranks.running.eq(running)

        # One of them at a time has results.
        masked, moved = Mux(at.x == 0, 0, at.error), Signal(result(arch))
        written = data.View(arch.entry, word[: arch.entry.size])
        sources = (
            (scatter.o.valid, scatter.o.payload.number, scatter.o.payload.y, scatter.o.payload.target),
            (is_kind[Kind.MASK], masked, at.y, Bank.ERROR),
            (softmax.o.valid, softmax.o.payload.number, softmax.o.payload.y, Bank.ERROR),
            (mover.o.valid, mover.o.payload.latent, mover.o.payload.y, Bank.LATENT),
            (fills, self.image.payload, fill_at, Bank.ACTIVATION),
            (writes[Part.LATENT], written.latent, address, Bank.LATENT),
        )
        m.d.sync += banks.result.valid.eq(Cat(valid for valid, *_ in sources).any())
        for valid, number, y, target in sources:
            with m.If(valid):
                m.d.sync += [moved.number.eq(number), moved.y.eq(y), moved.target.eq(target)]
        m.d.comb += banks.result.payload.eq(moved)
        m.d.sync += banks.velocity.eq(Mux(writes[Part.LATENT], written.velocity, mover.o.payload.velocity))

        # The largest results.
        largest = Signal(peak(arch))
        peaks = (
            (scatter.peak.valid, scatter.peak.payload.number, scatter.peak.payload.magnitude),
            (is_kind[Kind.MASK], mode.number, abs(masked)),
            (mover.peak.valid, mover.peak.payload.number, mover.peak.payload.magnitude),
        )
        m.d.sync += control.peaks.valid.eq(Cat(valid for valid, *_ in peaks).any())
        for valid, number, magnitude in peaks:
            with m.If(valid):
                m.d.sync += [largest.number.eq(number), largest.magnitude.eq(magnitude)]
        m.d.comb += control.peaks.payload.eq(largest)

        # What a host reads, and what becomes of what it writes.
        with m.If(~running):
            m.d.comb += [
                banks.i.payload.x.eq(address),
                banks.i.payload.mode.x_from.eq(Bank.LATENT),
                banks.i.payload.mode.kind.eq(Kind.MOVE),
            ]
        code = Signal(arch.chunks * 32)
        chunked = Cat(code[32:], word)
        m.d.comb += [
            sequencer.write.addr.eq(address),
            sequencer.write.data.eq(chunked),
            sequencer.write.en.eq(writes[Part.CODE]),
            mover.written.eq(word),
            mover.en.eq(writes[Part.REGISTER]),
        ]
        for of, port in ((Part.CONTROL, control.host), (Part.SCALE, ranks.host)):
            m.d.comb += [port.address.eq(address), port.en.eq(writes[of]), port.written.eq(word)]
        with m.If(writes[Part.CODE]):
            m.d.sync += code.eq(chunked)
        with m.If(writes[Part.IMAGE]):
            m.d.sync += image[address[0]].eq(word)
        with m.If(writes[Part.RULE]):
            m.d.sync += rule.eq(word)
        with m.Switch(part):
            for of, read in (
                (Part.REGISTER, mover.register),
                (Part.LATENT, Cat(at.x[:LATENT_BITS], at.total)),
                (Part.CONTROL, control.host.word),
                (Part.SCALE, ranks.host.word),
            ):
                with m.Case(of):
                    m.d.sync += host.word.eq(read)
        return m
