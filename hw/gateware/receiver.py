"""From the wire of a serial port to bytes."""

from amaranth import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

FASTEST = 4
"""Cycles that a bit takes at least: fewer have no middle that a line from elsewhere can be trusted in."""


class Receiver(wiring.Component):
    """Take the bytes that come on the line `rx`, each a start bit 0, eight bits, the lowest first, and a stop bit 1, of `bit_cycles` each.

    Every bit is read in its middle, so that the sender's clock may be 4 % off. A start bit begins where the line falls. A byte without its
    stop bit is dropped, and so is a start bit that is too short; a line that stays 0 is no byte. Who takes a byte must be ready.

    Latency: 2 cycles and half a bit from where a byte's stop bit begins. Throughput: 1 byte in 10 bits.
    """

    def __init__(self, bit_cycles: int) -> None:
        self.bit_cycles = check_bit_cycles(bit_cycles)
        super().__init__({"rx": In(1, init=1), "o": Out(stream.Signature(8, always_ready=True))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line, before = Signal(init=1), Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        left = Signal(range(11))  # bits of a byte that were not yet read
        timer = Signal(range(self.bit_cycles))
        bits = Signal(9)
        m.d.sync += [before.eq(line), self.o.valid.eq(0), timer.eq(timer - 1)]
        with m.If(left == 0):
            m.d.sync += timer.eq(self.bit_cycles // 2 - 1)
            with m.If(before & ~line):
                m.d.sync += left.eq(10)
        with m.Elif(timer == 0):
            m.d.sync += [timer.eq(self.bit_cycles - 1), left.eq(left - 1), bits.eq(Cat(bits[1:], line))]
            with m.If((left == 10) & line):
                m.d.sync += left.eq(0)
            with m.If(left == 1):
                m.d.sync += [self.o.valid.eq(line), self.o.payload.eq(bits[1:])]
        return m


def check_bit_cycles(bit_cycles: int) -> int:
    """Refuse bits that are too short to be told from each other."""
    if bit_cycles < FASTEST:
        raise ValueError(f"a bit takes {bit_cycles} cycles, expected at least {FASTEST}: choose a slower line or a faster clock")
    return bit_cycles
