"""Division on a machine that has none: the circuit of the table of reciprocals."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from bayestt.algebra.reciprocal import INDEX_BITS, MANTISSA_BITS, TABLE
from hw.gateware.delay import delayed, registered

PLACES = ((16, 8), (4, 2, 1))
"""By how many places each cycle moves a value up that has only zeros so far from the top."""


class Reciprocal(wiring.Component):
    """Of a `value` that is not 0, of at most 24 bits so that six hold its exponent: 1 / value is about mantissa / 2**exponent.

    `bayestt.algebra.reciprocal.reciprocal` is its definition in software. A value of 0 gives numbers that mean nothing.

    Latency: 4 cycles. Throughput: 1 value a cycle.
    """

    latency = len(PLACES) + 2

    def __init__(self, value_bits: int) -> None:
        self.value_bits = value_bits
        super().__init__({"value": In(value_bits), "mantissa": Out(MANTISSA_BITS - INDEX_BITS + 1), "exponent": Out(signed(6))})

    def elaborate(self, platform: object) -> Module:
        m = Module()

        # Move the value's first one to the top; the bits that say by how much are in order, the last one lowest.
        width = max(self.value_bits, INDEX_BITS + 1)
        leading, moved = Cat(Const(0, width - self.value_bits), self.value), Const(0, 0)
        for steps in PLACES:
            for places in (step for step in steps if step < width):
                moves = ~leading[-places:].any()
                leading, moved = Mux(moves, leading.shift_left(places), leading)[:width], Cat(moves, moved)
            leading, moved = delayed(m, leading), delayed(m, moved)

        m.submodules.table = table = Memory(shape=len(self.mantissa), depth=len(TABLE), init=TABLE.tolist())
        read, exponent = table.read_port(), Signal.like(self.exponent)
        m.d.sync += exponent.eq(MANTISSA_BITS - INDEX_BITS + self.value_bits - 1 - moved)
        m.d.comb += [
            read.addr.eq(leading[-1 - INDEX_BITS : -1]),
            self.mantissa.eq(registered(m, read.data)),
            self.exponent.eq(delayed(m, exponent)),
        ]
        return m
