"""The rounding circuit, proved: every accumulator, every mode, forever."""

import pytest
from amaranth import Const, Module, Mux, Signal, Value
from amaranth.hdl import Assert
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from claims import mistaken

from hw.arch import Arch
from hw.gateware import requantize
from hw.gateware.mac import results
from hw.gateware.requantize import Requantize
from hw.prove import prove

STEPS = Requantize.latency + 2


class Nearest(wiring.Component):
    """Claim: what goes in comes out as the nearest integer to x / 2**shift, halves up, rectified and saturated as its mode says.

    Its mode, and where it goes, come out with it.
    """

    def __init__(self, circuit: Requantize) -> None:
        self.circuit = circuit
        super().__init__({"valid": In(1), "given": In(results(circuit.arch)), "made": Out(results(circuit.arch))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        m.d.comb += [circuit.i.valid.eq(self.valid), circuit.i.payload.eq(self.given), self.made.eq(circuit.o.payload)]

        # What came in `latency` cycles ago.
        valid, given = self.valid, self.given
        for cycle in range(circuit.latency):
            earlier = Signal(name=f"valid_{cycle}"), Signal.like(self.given, name=f"given_{cycle}")
            m.d.sync += [earlier[0].eq(valid), earlier[1].eq(given)]
            valid, given = earlier
        right = [
            self.made.numbers[0] == self.expected(given.numbers[0], given.mode),
            self.made.y == given.y,
            self.made.mode.as_value() == given.mode.as_value(),
        ]
        m.d.comb += [Assert(circuit.o.valid == valid), *(Assert(condition | ~valid) for condition in right)]
        return m

    def expected(self, x: Value, mode: data.View) -> Value:
        """The nearest integer q, halves up: 2x / 2**shift lies from 2q - 1 to below 2q + 1."""
        high = (1 << (self.circuit.arch.data_bits - 1)) - 1
        nearest = (2 * x + (Const(1) << mode.shift)) >> (mode.shift + 1)
        rectified = Mux(mode.relu & (nearest < 0), 0, nearest)
        saturated = Mux(rectified > high, high, Mux(rectified < ~high, ~high, rectified))
        return Mux(mode.saturate, saturated, rectified)


@pytest.mark.parametrize(("acc_bits", "data_bits"), [(32, 8), (20, 4), (16, 16)])
def test_every_number_is_rounded_as_the_rule_says(acc_bits: int, data_bits: int) -> None:
    verdict = prove(Nearest(Requantize(Arch(rows=1, acc_bits=acc_bits, data_bits=data_bits))), STEPS, forever=True)
    assert verdict.proved, verdict


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(shifted + 1) >> 1", "shifted >> 1"),
        ("(shifted + 1) >> 1", "(shifted + (shifted > 0)) >> 1"),
        ("found.eq(high)", "found.eq(high + 1)"),
        ("found.eq(-high - 1)", "found.eq(-high)"),
        ("m.If(zero)", "m.If(0)"),
        ("mode[3].relu & negative", "mode[2].relu & negative"),
        ("mode[3].saturate & ~rounded[-1]", "~rounded[-1]"),
        ("rounded[-1] & ~over.all()", "rounded[-1] & ~over.any()"),
        ("rounded[high_bits:]", "rounded[high_bits + 1 :]"),
        ("number).as_signed() >> eights", "number) >> eights"),
        ("mode[1].shift[:FINE_BITS]", "mode[0].shift[:FINE_BITS]"),
        ("made.mode.eq(mode[-1])", "made.mode.eq(mode[-2])"),
        ("signed(self.arch.acc_bits + 1)", "signed(self.arch.acc_bits)"),
    ],
)
def test_a_mistake_is_found(right: str, wrong: str) -> None:
    circuit = mistaken(requantize, right, wrong).Requantize(Arch(rows=1))
    verdict = prove(Nearest(circuit), STEPS)
    assert not verdict.proved and verdict.reachable
