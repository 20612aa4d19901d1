"""From accumulators to numbers of a few bits: the circuit of the one rounding rule."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch


class Requantize(wiring.Component):
    """Divide by 2**shift, halves up, rectify if `relu`, saturate to `data_bits` if `saturate`; else keep `acc_bits`.

    `bayestt.algebra.fixed.requantize` is its definition in software. `shift`, `relu` and `saturate` are steady while numbers pass.

    Latency: 2 cycles. Throughput: 1 number of every row a cycle.
    """

    latency = 2

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        numbers = stream.Signature(data.ArrayLayout(signed(arch.acc_bits), arch.rows), always_ready=True)
        super().__init__({"i": In(numbers), "shift": In(5), "relu": In(1), "saturate": In(1), "o": Out(numbers)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = range(self.arch.rows)
        high = (1 << (self.arch.data_bits - 1)) - 1

        # Shift, keeping one bit below the point: it alone decides whether to round up.
        shifted = [Signal(signed(self.arch.acc_bits + 1), name=f"shifted_{row}") for row in rows]
        moving = Signal()
        m.d.sync += moving.eq(self.i.valid)
        with m.If(self.i.valid):
            m.d.sync += [shifted[row].eq(Cat(0, self.i.payload[row]).as_signed() >> self.shift) for row in rows]

        # Round, rectify, saturate.
        number = [Signal(signed(self.arch.acc_bits), name=f"number_{row}") for row in rows]
        m.d.sync += self.o.valid.eq(moving)
        m.d.comb += self.o.payload.eq(Cat(number))
        with m.If(moving):
            for row in rows:
                rounded = (shifted[row] + 1) >> 1
                with m.If(self.relu & (shifted[row] < 0)):
                    m.d.sync += number[row].eq(0)
                with m.Elif(self.saturate & (rounded > high)):
                    m.d.sync += number[row].eq(high)
                with m.Elif(self.saturate & (rounded < -high - 1)):
                    m.d.sync += number[row].eq(-high - 1)
                with m.Else():
                    m.d.sync += number[row].eq(rounded)
        return m
