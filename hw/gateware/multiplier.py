"""A multiplier with registers at its operands and its product."""

from amaranth import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Multiplier(wiring.Component):
    """Multiply two signed numbers. Its registers are never reset, so that they find a place in a chip's own multiplier.

    Latency: 2 cycles. Throughput: 1 product a cycle.
    """

    latency = 2

    def __init__(self, a_bits: int, b_bits: int) -> None:
        super().__init__({"a": In(signed(a_bits)), "b": In(signed(b_bits)), "product": Out(signed(a_bits + b_bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a, b, product = (Signal.like(port, reset_less=True) for port in (self.a, self.b, self.product))
        m.d.sync += [a.eq(self.a), b.eq(self.b), product.eq(a * b)]
        m.d.comb += self.product.eq(product)
        return m
