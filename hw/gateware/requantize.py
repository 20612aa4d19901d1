"""From accumulators to numbers of a few bits: the circuit of the one rounding rule."""

from amaranth import Cat, Const, Module, Signal, Value, signed
from amaranth.hdl import ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch
from hw.gateware.delay import delayed
from hw.gateware.mac import results

FINE_BITS = 3
"""Bits of a shift that the second of two stages looks at: by less than 8."""


class Requantize(wiring.Component):
    """Divide by 2**shift, halves up, rectify if `relu`, saturate to `data_bits` if `saturate`, as numbers' mode says; else keep `acc_bits`.

    `bayestt.algebra.fixed.requantize` is its definition in software. Where numbers go, and their mode, go with them.

    Latency: 5 cycles. Throughput: 1 number of every row a cycle.
    """

    latency = 5

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        numbers = stream.Signature(results(arch), always_ready=True)
        super().__init__({"i": In(numbers), "o": Out(numbers)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        given, made = self.i.payload, self.o.payload
        mode = [given.mode]
        for _ in range(self.latency):
            mode.append(delayed(m, mode[-1]))
        m.d.comb += [
            self.o.valid.eq(delayed(m, self.i.valid, self.latency)),
            made.y.eq(delayed(m, given.y, self.latency)),
            made.mode.eq(mode[-1]),
        ]
        for row, number in enumerate(given.numbers):
            m.d.comb += made.numbers[row].eq(self._rounded(m, number, mode, row))
        return m

    def _rounded(self, m: Module, number: Value, mode: list[data.View], row: int) -> Signal:
        """A row's number, five cycles later; its mode in each of them."""
        high_bits, high = self.arch.data_bits - 1, (1 << (self.arch.data_bits - 1)) - 1

        def stage(name: str, shape: ShapeLike) -> Signal:
            return Signal(shape, name=f"{name}_{row}")

        # Shift, keeping one bit below the point: it alone decides whether to round up.
        coarse, shifted, rounded = (stage(name, signed(self.arch.acc_bits + 1)) for name in ("coarse", "shifted", "rounded"))
        eights = Cat(Const(0, FINE_BITS), mode[0].shift[FINE_BITS:])
        m.d.sync += coarse.eq(Cat(0, number).as_signed() >> eights)
        m.d.sync += shifted.eq(coarse >> mode[1].shift[:FINE_BITS])
        m.d.sync += rounded.eq((shifted + 1) >> 1)

        # Rectify, saturate.
        negative, value = stage("negative", 1), stage("value", signed(self.arch.acc_bits))
        zero, above, below = (stage(name, 1) for name in ("zero", "above", "below"))
        over = rounded[high_bits:]
        m.d.sync += [
            negative.eq(shifted < 0),
            value.eq(rounded),
            zero.eq(mode[3].relu & negative),
            above.eq(mode[3].saturate & ~rounded[-1] & over.any()),
            below.eq(mode[3].saturate & rounded[-1] & ~over.all()),
        ]
        found = stage("number", signed(self.arch.acc_bits))
        with m.If(zero):
            m.d.sync += found.eq(0)
        with m.Elif(above):
            m.d.sync += found.eq(high)
        with m.Elif(below):
            m.d.sync += found.eq(-high - 1)
        with m.Else():
            m.d.sync += found.eq(value)
        return found
