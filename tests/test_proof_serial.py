"""The serial line, proved: bytes that are sent are received; what is sent waits as it is; no word passes behind one that was lost."""

import pytest
from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from claims import mistaken, waits

from hw.gateware import bridge, receiver, transmitter
from hw.gateware.bridge import ANSWER, REQUEST, Bridge, Fault, Kind
from hw.gateware.receiver import FASTEST, Receiver
from hw.gateware.registers import Register
from hw.gateware.transmitter import Transmitter
from hw.prove import prove

BYTE_CYCLES = 10 * FASTEST
LINE_CYCLES = 2 * BYTE_CYCLES + 8
LATENCY = BYTE_CYCLES + 2
BRIDGE_CYCLES = 14


class Carried(wiring.Component):
    """Claim: each byte that a transmitter takes leaves the receiver at the other end of the line 42 cycles later, and no other does."""

    def __init__(self, sender: Transmitter, taker: Receiver) -> None:
        self.sender, self.taker = sender, taker
        super().__init__({"i": In(stream.Signature(8)), "valid": Out(1), "byte": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sender, m.submodules.taker = self.sender, self.taker
        wiring.connect(m, wiring.flipped(self.i), self.sender.i)
        m.d.comb += [self.taker.rx.eq(self.sender.tx), self.valid.eq(self.taker.o.valid), self.byte.eq(self.taker.o.payload)]
        since = Signal(LATENCY)  # in which of the cycles before a byte was taken
        latest, before = Signal(8), Signal(8)
        takes = self.i.valid & self.i.ready
        m.d.sync += since.eq(since << 1 | takes)
        with m.If(takes):
            m.d.sync += [latest.eq(self.i.payload), before.eq(latest)]
        m.d.comb += [
            Assert(self.valid == since[-1]),
            Assert(~self.valid | (self.byte == Mux(since[:-1].any(), before, latest))),
            Assert(self.i.ready == ~since[: BYTE_CYCLES - 1].any()),
        ]
        return m


class Bridged(wiring.Component):
    """Claim: whatever the bridge sends waits as it is; there is one answer for a request, and before it no other request is taken; behind
    an answer that a word was lost, or came altered, no word leaves for a stream until `CONTROL` was written.

    Taken for granted: a register's answer waits as it is.
    """

    def __init__(self, circuit: Bridge) -> None:
        self.circuit = circuit
        super().__init__({"bridge": Out(circuit.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        wiring.connect(m, wiring.flipped(self.bridge), circuit)
        for port in (circuit.o, circuit.load.t, circuit.image.t, circuit.axi.ar, circuit.axi.aw, circuit.axi.w):
            waits(m, Assert, port)
        for port in (circuit.axi.r, circuit.axi.b):
            waits(m, Assume, port)
        request = data.View(REQUEST, circuit.i.payload[: REQUEST.size])
        answer = data.View(ANSWER, circuit.o.payload[: ANSWER.size])
        asks, answers = (port.valid & port.ready for port in (circuit.i, circuit.o))
        owed, lost, kind, register = Signal(), Signal(), Signal(3), Signal(5)
        with m.If(asks):
            m.d.sync += [owed.eq(1), kind.eq(request.kind), register.eq(request.register)]
        with m.If(answers):
            m.d.sync += owed.eq(0)
            with m.If((answer.fault == Fault.LATE) | (answer.fault == Fault.ALTERED)):
                m.d.sync += lost.eq(1)
            with m.Elif((kind == Kind.WRITE.value) & (register == Register.CONTROL >> 2)):
                m.d.sync += lost.eq(0)
        m.d.comb += [Assert(owed | ~circuit.o.valid), Assert(~owed | ~circuit.i.ready), Assert(~answers | (answer.as_value()[:3] == kind))]
        for which, port in ((Kind.LOAD, circuit.load.t), (Kind.IMAGE, circuit.image.t)):
            there = Signal(name=f"there_{which.name}")
            m.d.sync += there.eq(port.valid & ~port.ready)
            m.d.comb += Assert(~port.valid | there | (owed & ~lost & (kind == which.value)))
        return m


def test_bytes_that_are_sent_are_received() -> None:
    verdict = prove(Carried(Transmitter(FASTEST), Receiver(FASTEST)), LINE_CYCLES)
    assert verdict.proved, verdict


def test_every_request_is_answered_once_and_no_word_passes_behind_a_lost_one() -> None:
    verdict = prove(Bridged(Bridge(3)), BRIDGE_CYCLES)
    assert verdict.proved, verdict


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("self.bit_cycles // 2 - 1", "0"),
        ("timer.eq(self.bit_cycles - 1)", "timer.eq(self.bit_cycles)"),
        ("Cat(bits[1:], line)", "Cat(line, bits[:-1])"),
        ("self.o.valid.eq(0), ", ""),
        ("self.o.valid.eq(line)", "self.o.valid.eq(0)"),
        ("payload.eq(bits[1:])", "payload.eq(bits[:-1])"),
    ],
)
def test_a_mistake_of_the_receiver_is_found(right: str, wrong: str) -> None:
    assert not prove(Carried(Transmitter(FASTEST), mistaken(receiver, right, wrong).Receiver(FASTEST)), LATENCY + 6).proved


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("((left == 1) & (timer == 0))", "(left == 1)"),
        ("left.eq(10)", "left.eq(9)"),
        ("Cat(self.i.payload, Const(1, 1))", "Cat(self.i.payload, Const(0, 1))"),
        ("timer.eq(timer - 1)", "timer.eq(timer - 2)"),
    ],
)
def test_a_mistake_of_the_transmitter_is_found(right: str, wrong: str) -> None:
    assert not prove(Carried(mistaken(transmitter, right, wrong).Transmitter(FASTEST), Receiver(FASTEST)), LATENCY + 6).proved


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("with m.If(slot.ready):", "with m.If(1):"),
        ("(~slot.valid | slot.ready)", "1"),
        ("(request.kind == kind) & ", ""),
        ("lasting.eq(Fault.ALTERED), ", ""),
        ("lasting.eq(Fault.LATE), ", ""),
        ("with m.If(lasting != Fault.NONE):", "with m.If(lasting == Fault.LATE):"),
        ("with m.If(self.o.ready):", "with m.If(1):"),
        ("with m.If(self.i.valid):", "with m.If(1):"),
        ("answer.kind.eq(request.kind)", "answer.kind.eq(Kind.READ)"),
    ],
)
def test_a_mistake_of_the_bridge_is_found(right: str, wrong: str) -> None:
    assert not prove(Bridged(mistaken(bridge, right, wrong).Bridge(3)), BRIDGE_CYCLES).proved
