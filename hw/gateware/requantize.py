"""From accumulators to numbers of a few bits: the circuit of the one rounding rule."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch
from hw.gateware.mac import results


class Requantize(wiring.Component):
    """Divide by 2**shift, halves up, rectify if `relu`, saturate to `data_bits` if `saturate`, as numbers' mode says; else keep `acc_bits`.

    `bayestt.algebra.fixed.requantize` is its definition in software. Where numbers go, and their mode, go with them.

    Latency: 2 cycles. Throughput: 1 number of every row a cycle.
    """

    latency = 2

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        numbers = stream.Signature(results(arch), always_ready=True)
        super().__init__({"i": In(numbers), "o": Out(numbers)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = range(self.arch.rows)
        high = (1 << (self.arch.data_bits - 1)) - 1

        # Shift, keeping one bit below the point: it alone decides whether to round up.
        shifted = [Signal(signed(self.arch.acc_bits + 1), name=f"shifted_{row}") for row in rows]
        moving = Signal()
        y, mode = Signal(self.arch.address_bits), Signal(self.arch.mode)
        given, made = self.i.payload, self.o.payload
        m.d.sync += [moving.eq(self.i.valid), y.eq(given.y), mode.eq(given.mode)]
        with m.If(self.i.valid):
            m.d.sync += [shifted[row].eq(Cat(0, given.numbers[row]).as_signed() >> given.mode.shift) for row in rows]

        # Round, rectify, saturate.
        number = [Signal(signed(self.arch.acc_bits), name=f"number_{row}") for row in rows]
        m.d.sync += [self.o.valid.eq(moving), made.y.eq(y), made.mode.eq(mode)]
        m.d.comb += made.numbers.eq(Cat(number))
        with m.If(moving):
            for row in rows:
                rounded = (shifted[row] + 1) >> 1
                with m.If(mode.relu & (shifted[row] < 0)):
                    m.d.sync += number[row].eq(0)
                with m.Elif(mode.saturate & (rounded > high)):
                    m.d.sync += number[row].eq(high)
                with m.Elif(mode.saturate & (rounded < -high - 1)):
                    m.d.sync += number[row].eq(-high - 1)
                with m.Else():
                    m.d.sync += number[row].eq(rounded)
        return m
