"""AXI, proved: its handshakes, an answer for every access, beats that are the words, packets that end."""

import pytest
from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from claims import mistaken, waits
from test_proof_streams import SMALL

from hw.gateware import axi, narrow, registers, widen
from hw.gateware.axi import AxiDatapath
from hw.gateware.narrow import Narrow
from hw.gateware.registers import OKAY, SLVERR, Register, Registers
from hw.gateware.widen import Widen
from hw.prove import immediate, prove

CYCLES = 8
IDENTITY, ARCH = 0x1234, 0x5678


class Kept(wiring.Component):
    """Claim: whatever waits on a channel that the machine sends on, scores with their `tlast` and answers, waits as it is."""

    def __init__(self, circuit: AxiDatapath) -> None:
        self.circuit = circuit
        super().__init__(circuit.signature)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        wiring.connect(m, wiring.flipped(self), circuit)
        for port in (circuit.m_axis_score.t, circuit.s_axi.b, circuit.s_axi.r):
            waits(m, Assert, port)
        return m


class Answered(wiring.Component):
    """Claim: every address of a read is answered once, in the next cycle, by what its register held; every address of a write with its
    data once, 2 cycles later or as soon as there is room, and only then changes what it names.

    Taken for granted: what the processor sends waits as it is.
    """

    def __init__(self, circuit: Registers) -> None:
        self.circuit = circuit
        super().__init__({"registers": Out(circuit.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        wiring.connect(m, wiring.flipped(self.registers), circuit)
        bus = circuit.axi
        passes = {name: getattr(bus, name).valid & getattr(bus, name).ready for name in ("aw", "w", "b", "ar", "r")}
        count = {name: Signal(range(CYCLES + 1), name=f"count_{name}") for name in passes}
        m.d.sync += [count[name].eq(count[name] + passes[name]) for name in passes]
        for name in ("aw", "w", "ar"):
            waits(m, Assume, getattr(bus, name))
        for name in ("b", "r"):
            waits(m, Assert, getattr(bus, name))

        # Reads.
        held = {
            Register.IDENTITY: IDENTITY,
            Register.ARCH: ARCH,
            Register.STATUS: circuit.status.as_value(),
            Register.CYCLES: circuit.cycles,
            Register.CONTROL: circuit.control.as_value(),
        }
        expected, response = Signal(32), Signal(2)
        with m.If(passes["ar"]):
            m.d.sync += [expected.eq(0), response.eq(SLVERR)]
            for register, value in held.items():
                with m.If((bus.ar.payload.addr >= register) & (bus.ar.payload.addr < register + 4)):
                    m.d.sync += [expected.eq(value), response.eq(OKAY)]
        m.d.comb += [
            Assert(bus.r.valid == (count["ar"] != count["r"])),
            Assert(~bus.r.valid | ((bus.r.payload.data == expected) & (bus.r.payload.resp == response))),
        ]

        # Writes. `ours`: the latest is to the control register; `new`: an answer that was not there a cycle before.
        ours, strobe, word, control = Signal(), Signal(), Signal(32), Signal()
        waited, late = Signal(), Signal()
        owed = (count["aw"] != count["b"]) & (count["w"] != count["b"])
        new = bus.b.valid & ~waited
        with m.If(passes["aw"]):
            m.d.sync += ours.eq((bus.aw.payload.addr >= Register.CONTROL) & (bus.aw.payload.addr < Register.CONTROL + 4))
        with m.If(passes["w"]):
            m.d.sync += [strobe.eq(bus.w.payload.strb[0]), word.eq(bus.w.payload.data)]
        m.d.sync += [waited.eq(bus.b.valid & ~bus.b.ready), late.eq(owed & ~bus.b.valid), control.eq(circuit.control.reset)]
        m.d.comb += [
            Assert(~bus.b.valid | owed),
            Assert(~(owed & late) | bus.b.valid),
            Assert(circuit.control.reset == Mux(new & ours & strobe, word[0], control)),
            Assert(~new | (bus.b.payload.resp == Mux(ours, OKAY, SLVERR))),
        ]
        return m


class Widened(wiring.Component):
    """Claim: a cycle after a word's last beat there is the word, until it is taken; beats wait only for a word that waits."""

    def __init__(self, circuit: Widen) -> None:
        self.circuit = circuit
        super().__init__({"widen": Out(circuit.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        wiring.connect(m, wiring.flipped(self.widen), circuit)
        word, place, whole = Signal(32 * circuit.beats), Signal(range(circuit.beats)), Signal()
        with m.If(circuit.o.valid & circuit.o.ready):
            m.d.sync += whole.eq(0)
        with m.If(circuit.i.valid & circuit.i.ready):
            m.d.sync += [word.word_select(place, 32).eq(circuit.i.payload.data), place.eq(place + 1)]
            with m.If(place == circuit.beats - 1):
                m.d.sync += [place.eq(0), whole.eq(1)]
        waits(m, Assert, circuit.o)
        m.d.comb += [
            Assert(circuit.o.valid == whole),
            Assert(~whole | (circuit.o.payload == word[: len(circuit.o.payload)])),
            Assert(circuit.i.ready == (~whole | circuit.o.ready)),
        ]
        return m


class Narrowed(wiring.Component):
    """Claim: the beats of a word follow it, one a cycle, the last of a packet marked, and a cycle later the next word; what is dropped is
    followed by no more than the beat that waits, and by one that ends its packet.
    """

    def __init__(self, circuit: Narrow) -> None:
        self.circuit = circuit
        super().__init__({"narrow": Out(circuit.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        wiring.connect(m, wiring.flipped(self.narrow), circuit)
        many = -(-circuit.bits // 32)
        given, beat = circuit.i.payload, circuit.o.payload
        word, last, place = Signal(32 * many), Signal(), Signal(range(many + 1), init=many)
        begun, waited, dropped = Signal(), Signal(), Signal()
        m.d.sync += [waited.eq(circuit.o.valid & ~circuit.o.ready), dropped.eq(dropped | circuit.drop)]
        with m.If(circuit.o.valid & circuit.o.ready):
            m.d.sync += [place.eq(place + 1), begun.eq(~beat.last)]
        with m.If(circuit.i.valid & circuit.i.ready):
            m.d.sync += [word.eq(given.word), last.eq(given.last), place.eq(0), dropped.eq(0)]
        waits(m, Assert, circuit.o)
        with m.If(dropped):
            m.d.comb += [
                Assert(circuit.o.valid == (waited | begun)),
                Assert(waited | ~circuit.o.valid | (beat.last & (beat.data == 0))),
            ]
        with m.Else():
            m.d.comb += [
                Assert(circuit.o.valid == (place != many)),
                Assert(~circuit.o.valid | (beat.data == word.word_select(place, 32))),
                Assert(~circuit.o.valid | (beat.last == (last & (place == many - 1)))),
                Assert(circuit.i.ready == ((place == many) & ~circuit.drop)),
            ]
        m.d.comb += Assert(~(circuit.drop & circuit.i.ready))
        return m


def test_whatever_waits_stays_as_it_is() -> None:
    verdict = prove(Kept(AxiDatapath(SMALL)), steps=2, forever=True)
    assert verdict.proved, verdict


def test_no_output_depends_on_an_input_of_the_same_cycle() -> None:
    assert immediate(AxiDatapath(SMALL)) == set()


def test_every_access_is_answered_once() -> None:
    verdict = prove(Answered(Registers(IDENTITY, ARCH)), CYCLES)
    assert verdict.proved, verdict


@pytest.mark.parametrize("bits", [20, 40, 96])
def test_words_are_their_beats(bits: int) -> None:
    for claim in (Widened(Widen(bits)), Narrowed(Narrow(bits))):
        verdict = prove(claim, CYCLES)
        assert verdict.proved, verdict


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("ar.ready.eq(~r.valid)", "ar.ready.eq(1)"),
        ("with m.Elif(r.ready):", "with m.Else():"),
        ("with m.Elif(b.ready):", "with m.Else():"),
        ("r.payload.data.eq(0), ", ""),
        ("r.payload.resp.eq(SLVERR)]", "r.payload.resp.eq(OKAY)]"),
        ("m.Switch(ar.payload.addr[2:])", "m.Switch(ar.payload.addr[2:5])"),
        ("Register.CYCLES: self.cycles", "Register.CYCLES: self.cycles + 1"),
        ("aw.ready.eq(~addressed), w.ready.eq(~given)", "aw.ready.eq(1), w.ready.eq(~given)"),
        ("aw.ready.eq(~addressed), w.ready.eq(~given)", "aw.ready.eq(~addressed), w.ready.eq(1)"),
        ("m.If(addressed & given & (~b.valid | b.ready))", "m.If(addressed & (~b.valid | b.ready))"),
        ("m.If(addressed & given & (~b.valid | b.ready))", "m.If(addressed & given)"),
        ("m.If(addressed & given & (~b.valid | b.ready))", "m.If(addressed & given & b.ready)"),
        ("[addressed.eq(0), given.eq(0), b.valid.eq(1)", "[addressed.eq(0), b.valid.eq(1)"),
        ("Mux(known, OKAY, SLVERR)", "OKAY"),
        ("known & word.strb[0]", "known"),
        ("known & word.strb[0]", "word.strb[0]"),
        ("addr[2:]", "addr[1:]"),
    ],
)
def test_a_mistake_about_registers_is_found(right: str, wrong: str) -> None:
    verdict = prove(Answered(mistaken(registers, right, wrong).Registers(IDENTITY, ARCH)), CYCLES)
    assert not verdict.proved


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("came == self.beats - 1", "1"),
        ("~self.o.valid | self.o.ready", "1"),
        ("~self.o.valid | self.o.ready", "~self.o.valid"),
        ("Cat(word, self.i.payload.data)[self.beat_bits :]", "Cat(self.i.payload.data, word)"),
        ("came.eq(0)]", "came.eq(1)]"),
        ("self.o.valid.eq(0)", "self.o.valid.eq(1)"),
    ],
)
def test_a_mistake_about_wide_words_is_found(right: str, wrong: str) -> None:
    assert not prove(Widened(mistaken(widen, right, wrong).Widen(40)), CYCLES).proved


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("last & only", "last"),
        ("~self.drop & ~self.o.valid", "~self.o.valid"),
        ("~self.drop & ~self.o.valid", "~self.drop & (~self.o.valid | (self.o.ready & only))"),
        ("only.eq(left == 2)", "only.eq(left == 1)"),
        ("word >> self.beat_bits", "word"),
        ("begun.eq(~beat.last)", "begun.eq(1)"),
        ("begun.eq(~beat.last)", "begun.eq(0)"),
        ("self.drop & ~ends & (self.o.valid | begun)", "0"),
        ("self.drop & ~ends & (self.o.valid | begun)", "self.drop & (self.o.valid | begun)"),
        ("self.drop & ~ends & (self.o.valid | begun)", "self.drop & ~ends & self.o.valid"),
        ("waits = self.o.valid & ~self.o.ready", "waits = self.o.valid"),
        ("Mux(waits, beat.data, 0)", "0"),
        ("Mux(waits, 2, 1)), last.eq(1)", "1), last.eq(1)"),
        ("Mux(waits, 2, 1)), last.eq(1)", "Mux(waits, 2, 1))"),
    ],
)
def test_a_mistake_about_beats_is_found(right: str, wrong: str) -> None:
    assert not prove(Narrowed(mistaken(narrow, right, wrong).Narrow(40)), CYCLES).proved


def test_a_score_that_waits_for_its_reader_is_found() -> None:
    """`tvalid` may not depend on `tready`: whoever waits for the former before he gives the latter would wait forever."""
    hasty = mistaken(axi, "wiring.connect(m, score.o, wiring.flipped(self.m_axis_score.t))", WAITING).AxiDatapath(SMALL)
    assert "m_axis_score_t_valid" in immediate(hasty)


def test_a_reset_that_takes_a_score_back_is_found() -> None:
    right, wrong = "m.submodules.score = score = Narrow(arch.rows * arch.acc_bits)", "score = Narrow(4); m.submodules.score = reset(score)"
    verdict = prove(Kept(mistaken(axi, right, wrong).AxiDatapath(SMALL)), steps=2, forever=True)
    assert not verdict.proved


WAITING = """port = self.m_axis_score.t
        m.d.comb += [port.valid.eq(score.o.valid & port.ready), port.payload.eq(score.o.payload), score.o.ready.eq(port.ready)]"""
"""A sender that asks for `ready` first, in place of a connection."""
