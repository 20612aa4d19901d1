"""Where the results of lanes go, which leave one after the other."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from bayestt.ir.training import ACTIVATION_BITS, GRADIENT_BITS
from hw.gateware.delay import delayed
from hw.gateware.mac import results
from hw.training.arch import Bank, TrainingArch
from hw.training.gateware.banks import result, saturated
from hw.training.gateware.unit_step import peak


class Scatter(wiring.Component):
    """Send lanes' numbers to their elements: every `turns[0] + 1` lanes, `jumps[0]` further than lanes alone go, and every
    `turns[1] + 1` of those, `jumps[1]` instead. Activations saturate to 8 bits. `peak` is each tracked number's magnitude.

    `hw.training.emulate` is its definition in software. The lanes of a reduction come all, those of one instruction after those of another.

    Latency: 1 cycle, 2 to `peak`. Throughput: 1 number a cycle.
    """

    latency = 1

    def __init__(self, arch: TrainingArch) -> None:
        self.arch = arch
        super().__init__(
            {
                "i": In(stream.Signature(results(arch), always_ready=True)),
                "o": Out(stream.Signature(result(arch), always_ready=True)),
                "peak": Out(stream.Signature(peak(arch), always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        given, mode, made = self.i.payload, self.i.payload.mode, self.o.payload
        lane, inner, outer = Signal.like(mode.lanes), Signal.like(mode.turns[0]), Signal.like(mode.turns[1])
        further = Signal(self.arch.address_bits)
        turns = inner == mode.turns[0]
        turns_twice = outer == mode.turns[1]
        with m.If(self.i.valid):
            m.d.sync += [lane.eq(lane + 1), inner.eq(Mux(turns, 0, inner + 1))]
            with m.If(turns):
                m.d.sync += [outer.eq(Mux(turns_twice, 0, outer + 1)), further.eq(further + Mux(turns_twice, mode.jumps[1], mode.jumps[0]))]
            with m.If(lane + 1 == mode.lanes):
                m.d.sync += [lane.eq(0), inner.eq(0), outer.eq(0), further.eq(0)]

        number = given.numbers[0]
        m.d.sync += [
            self.o.valid.eq(self.i.valid),
            made.number.eq(Mux(mode.target == Bank.ACTIVATION, saturated(number[:GRADIENT_BITS].as_signed(), ACTIVATION_BITS), number)),
            made.target.eq(mode.target),
            made.y.eq(given.y + further),
        ]
        m.d.sync += [
            self.peak.valid.eq(self.o.valid & delayed(m, mode.tracked)),
            self.peak.payload.magnitude.eq(abs(made.number)),
            self.peak.payload.number.eq(delayed(m, mode.number)),
        ]
        return m
