"""Random numbers: the circuit of the shift register, sixteen clocks of it in one."""

from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from bayestt.algebra.lfsr import DRAW_BITS, draw


class Draws(wiring.Component):
    """The next `draw` after the `register`, which becomes it with `advance`; with `en` the register becomes what is `written`.

    `bayestt.algebra.lfsr.draw` is its definition in software. The register starts at 1, and must never be 0.

    Latency: 1 cycle from `advance` or `en` to the next draw. Throughput: 1 draw a cycle.
    """

    def __init__(self) -> None:
        ports = {"draw": Out(DRAW_BITS), "advance": In(1), "written": In(DRAW_BITS), "en": In(1)}
        super().__init__({**ports, "register": Out(DRAW_BITS, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Clocks are linear: the draw after a number is the exclusive or of those after each of its ones.
        after = [draw(1 << bit) for bit in range(DRAW_BITS)]
        m.d.comb += self.draw.eq(
            Cat(Cat(bit for bit, drawn in zip(self.register, after, strict=True) if drawn >> place & 1).xor() for place in range(DRAW_BITS))
        )
        with m.If(self.en):
            m.d.sync += self.register.eq(self.written)
        with m.Elif(self.advance):
            m.d.sync += self.register.eq(self.draw)
        return m
