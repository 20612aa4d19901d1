"""Division or multiplication by a power of two: the circuit of the one rounding rule for shifts to either side."""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bayestt.algebra.fixed import MAX_BITS
from hw.gateware.delay import delayed
from hw.gateware.requantize import FINE_BITS


class Rescale(wiring.Component):
    """Divide a `value` of `bits` bits by 2**shift, halves up, or where that is below 0 multiply; saturate to `to_bits` bits.

    `bayestt.algebra.fixed.rescale` is its definition in software: shifts beyond 31 to either side count as 31.

    Latency: 4 cycles. Throughput: 1 number a cycle.
    """

    latency = 4

    def __init__(self, bits: int, shift_bits: int, to_bits: int) -> None:
        super().__init__({"value": In(signed(bits)), "shift": In(signed(shift_bits)), "number": Out(signed(to_bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shift = Signal(signed(MAX_BITS.bit_length()))
        m.d.comb += shift.eq(Mux(self.shift >= MAX_BITS, MAX_BITS - 1, Mux(self.shift <= -MAX_BITS, 1 - MAX_BITS, self.shift)))

        # Shift to either side by eights, keeping one bit below the point, then down by less than eight: what the first shift pushes out at
        # the top is beyond what the number can be as well.
        fine, top = 1 << FINE_BITS, len(self.number) - 1
        width = max(len(self.value), len(self.number) + fine - 1) + 1
        coarse, shifted, rounded = (Signal(signed(width), name=name) for name in ("coarse", "shifted", "rounded"))
        lost = Signal()
        with m.Switch(shift[FINE_BITS:]):
            for eights in range(-MAX_BITS // fine, MAX_BITS // fine):
                with m.Case(eights % (2 * MAX_BITS // fine)):
                    moved = Cat(0, self.value).as_signed().shift_right(fine * eights)
                    m.d.sync += [coarse.eq(moved), lost.eq(_beyond(moved[width - 1 :]))]
        m.d.sync += shifted.eq(coarse >> delayed(m, shift[:FINE_BITS]))
        m.d.sync += rounded.eq((shifted + 1) >> 1)

        # Saturate.
        was_lost, was_negative = delayed(m, lost, 2), delayed(m, self.value[-1], 3)
        high = (1 << top) - 1
        with m.If(was_lost | _beyond(rounded[top:])):
            m.d.sync += self.number.eq(Mux(Mux(was_lost, was_negative, rounded[-1]), -high - 1, high))
        with m.Else():
            m.d.sync += self.number.eq(rounded)
        return m


def _beyond(upper: Value) -> Value:
    """Whether a number whose upper bits these are, from the sign that it should have up, needs them."""
    return upper.any() & ~upper.all()
