"""The rounding circuit, proved: every accumulator, every shift, both switches, forever."""

import pytest
from amaranth import Const, Module, Mux, Signal, Value, signed
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from claims import mistaken

from hw.arch import Arch
from hw.gateware import requantize
from hw.gateware.requantize import Requantize
from hw.prove import prove


class Nearest(wiring.Component):
    """Claim: what goes in comes out as the nearest integer to x / 2**shift, halves up, rectified and saturated as the switches say."""

    def __init__(self, circuit: Requantize) -> None:
        self.circuit = circuit
        number = signed(circuit.arch.acc_bits)
        super().__init__({"valid": In(1), "x": In(number), "shift": In(5), "relu": In(1), "saturate": In(1), "y": Out(number)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        switches = ("shift", "relu", "saturate")
        m.d.comb += [getattr(circuit, name).eq(getattr(self, name)) for name in switches]
        m.d.comb += [circuit.i.valid.eq(self.valid), circuit.i.payload[0].eq(self.x), self.y.eq(circuit.o.payload[0])]

        # What came in `latency` cycles ago, and that the switches have been as they are since.
        valid, x, kept = self.valid, self.x, Const(1)
        for name in switches:
            before = Signal.like(getattr(self, name), name=f"{name}_before")
            m.d.sync += before.eq(getattr(self, name))
            kept &= before == getattr(self, name)
        passing = Const(0)
        for cycle in range(circuit.latency):
            earlier = Signal(name=f"valid_{cycle}"), Signal.like(self.x, name=f"x_{cycle}")
            m.d.sync += [earlier[0].eq(valid), earlier[1].eq(x)]
            valid, x = earlier
            passing |= valid
        m.d.comb += [Assume(kept | ~passing), Assert(circuit.o.valid == valid), Assert((self.y == self.expected(x)) | ~valid)]
        return m

    def expected(self, x: Value) -> Value:
        """The nearest integer q, halves up: 2x / 2**shift lies from 2q - 1 to below 2q + 1."""
        high = (1 << (self.circuit.arch.data_bits - 1)) - 1
        nearest = (2 * x + (Const(1) << self.shift)) >> (self.shift + 1)
        rectified = Mux(self.relu & (nearest < 0), 0, nearest)
        saturated = Mux(rectified > high, high, Mux(rectified < ~high, ~high, rectified))
        return Mux(self.saturate, saturated, rectified)


@pytest.mark.parametrize(("acc_bits", "data_bits"), [(32, 8), (20, 4), (16, 16)])
def test_every_number_is_rounded_as_the_rule_says(acc_bits: int, data_bits: int) -> None:
    verdict = prove(Nearest(Requantize(Arch(rows=1, acc_bits=acc_bits, data_bits=data_bits))), steps=4, forever=True)
    assert verdict.proved, verdict


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(shifted[row] + 1) >> 1", "shifted[row] >> 1"),
        ("(shifted[row] + 1) >> 1", "(shifted[row] + (shifted[row] > 0)) >> 1"),
        ("(1 << (self.arch.data_bits - 1)) - 1", "1 << (self.arch.data_bits - 1)"),
        ("rounded < -high - 1", "rounded < -high + 1"),
        ("rounded > high", "rounded > high + 1"),
        ("self.relu & (shifted[row] < 0)", "self.relu & (shifted[row] < -2)"),
        ("self.saturate & (rounded > high)", "rounded > high"),
        ("Cat(0, self.i.payload[row]).as_signed() >>", "Cat(0, self.i.payload[row]) >>"),
        ("signed(self.arch.acc_bits + 1)", "signed(self.arch.acc_bits)"),
    ],
)
def test_a_mistake_is_found(right: str, wrong: str) -> None:
    circuit = mistaken(requantize, right, wrong).Requantize(Arch(rows=1))
    verdict = prove(Nearest(circuit), steps=4)
    assert not verdict.proved and verdict.reachable
