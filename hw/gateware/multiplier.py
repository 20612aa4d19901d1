"""A multiplier with registers at its operands and its product."""

from amaranth import ClockSignal, Const, Instance, Module, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

WIDTH = 18
"""Bits of an operand of the ECP5's multiplier."""
REGISTERED = ("INPUTA", "INPUTB", "OUTPUT")
"""Its registers that are used."""
FIXED = {"SIGNEDA": 1, "SIGNEDB": 1, "SOURCEA": 0, "SOURCEB": 0, **{f"CE{number}": 1 for number in range(4)}} | {
    f"{wire}{number}": 0 for wire in ("RST", "CLK") for number in range(4) if (wire, number) != ("CLK", 0)
}
"""Its inputs that never change: signed operands from the fabric, always enabled, never reset, one clock."""


class Multiplier(wiring.Component):
    """Multiply two signed numbers. Where the platform says that it has an ECP5's `multiplier`, it is that one, with its own registers.

    Lattice FPGA-TN-02205 (sysDSP of the ECP5) names its ports and parameters. yosys knows the cell, but puts no register into it: those
    before and behind would lie in the fabric, too far away.

    Latency: 2 cycles. Throughput: 1 product a cycle.
    """

    latency = 2

    def __init__(self, a_bits: int, b_bits: int) -> None:
        super().__init__({"a": In(signed(a_bits)), "b": In(signed(b_bits)), "product": Out(signed(a_bits + b_bits))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if getattr(platform, "multiplier", None) == "MULT18X18D" and max(len(self.a), len(self.b)) <= WIDTH:
            wide = Signal(2 * WIDTH)
            clocks = dict.fromkeys(("INPUTC", "PIPELINE"), "NONE") | dict.fromkeys(REGISTERED, "CLK0")
            m.submodules.cell = Instance(
                "MULT18X18D",
                **{f"p_REG_{register}_CLK": clock for register, clock in clocks.items()},
                p_MULT_BYPASS="DISABLED",
                p_GSR="DISABLED",
                p_RESETMODE="SYNC",
                p_SOURCEB_MODE="B_SHIFT",
                i_CLK0=ClockSignal(),
                **{f"i_{name}": Const(value, 1) for name, value in FIXED.items()},
                **{f"i_{name}{number}": bit for name, port in (("A", self.a), ("B", self.b)) for number, bit in enumerate(_wide(port))},
                **{f"o_P{number}": bit for number, bit in enumerate(wide)},
            )
            m.d.comb += self.product.eq(wide)
        else:
            a, b = Signal.like(self.a), Signal.like(self.b)
            m.d.sync += [a.eq(self.a), b.eq(self.b), self.product.eq(a * b)]
        return m


def _wide(number: Value) -> list[Value]:
    """The bits of a number, its sign repeated."""
    return [number[min(bit, len(number) - 1)] for bit in range(WIDTH)]
