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
        ("(shifted[row] + 1) >> 1", "shifted[row] >> 1"),
        ("(shifted[row] + 1) >> 1", "(shifted[row] + (shifted[row] > 0)) >> 1"),
        ("(1 << (self.arch.data_bits - 1)) - 1", "1 << (self.arch.data_bits - 1)"),
        ("rounded < -high - 1", "rounded < -high + 1"),
        ("rounded > high", "rounded > high + 1"),
        ("mode.relu & (shifted[row] < 0)", "mode.relu & (shifted[row] < -2)"),
        ("mode.saturate & (rounded > high)", "rounded > high"),
        ("given.numbers[row]).as_signed() >> given.mode", "given.numbers[row]) >> given.mode"),
        ("as_signed() >> given.mode.shift", "as_signed() >> mode.shift"),
        ("made.mode.eq(mode)", "made.mode.eq(given.mode)"),
        ("signed(self.arch.acc_bits + 1)", "signed(self.arch.acc_bits)"),
    ],
)
def test_a_mistake_is_found(right: str, wrong: str) -> None:
    circuit = mistaken(requantize, right, wrong).Requantize(Arch(rows=1))
    verdict = prove(Nearest(circuit), steps=4)
    assert not verdict.proved and verdict.reachable
