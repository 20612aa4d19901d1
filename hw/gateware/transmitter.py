"""From bytes to the wire of a serial port."""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.gateware.receiver import check_bit_cycles


class Transmitter(wiring.Component):
    """Send bytes on the line `tx`: a start bit 0, eight bits, the lowest first, and a stop bit 1, of `bit_cycles` each; at rest it is 1.

    Latency: 1 cycle from a byte to its start bit. Throughput: 1 byte in 10 bits.
    """

    def __init__(self, bit_cycles: int) -> None:
        self.bit_cycles = check_bit_cycles(bit_cycles)
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(range(11))  # bits of a byte that have not yet ended
        timer = Signal(range(self.bit_cycles))
        bits = Signal(9)
        m.d.comb += self.i.ready.eq((left == 0) | ((left == 1) & (timer == 0)))
        with m.If(self.i.ready & self.i.valid):
            m.d.sync += [left.eq(10), timer.eq(self.bit_cycles - 1), self.tx.eq(0), bits.eq(Cat(self.i.payload, Const(1, 1)))]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(left != 0):
            m.d.sync += [left.eq(left - 1), timer.eq(self.bit_cycles - 1), self.tx.eq(bits[0]), bits.eq(Cat(bits[1:], Const(1, 1)))]
        return m
