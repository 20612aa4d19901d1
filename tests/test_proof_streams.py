"""Streams, proved: a word that waits stays as it is, whatever else happens; copied words arrive where their steps say."""

from types import ModuleType

import pytest
from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from claims import mistaken, waits

from hw.arch import Arch
from hw.gateware import datapath, external
from hw.gateware.datapath import Datapath
from hw.gateware.delay import delayed
from hw.gateware.external import READ_CYCLES, External
from hw.prove import prove

DEPTHS = dict.fromkeys(("image_depth", "data_depth", "weight_depth", "init_depth", "score_depth", "code_depth"), 2)
SMALL = Arch(rows=1, lanes=1, data_bits=2, weight_bits=2, acc_bits=4, loops=1, extent_bits=2, **DEPTHS)
COPYING = Arch(rows=1, lanes=1, data_bits=2, weight_bits=2, acc_bits=4, loops=1, extent_bits=2, **DEPTHS, external_depth=4)


class Served(wiring.Component):
    """Claim: a machine's scores wait as they are for whoever takes them, whatever comes in."""

    def __init__(self, circuit: Datapath) -> None:
        self.circuit = circuit
        super().__init__(circuit.signature)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = self.circuit
        wiring.connect(m, wiring.flipped(self), self.circuit)
        waits(m, Assert, self.circuit.score)
        return m


class Stored(wiring.Component):
    """Claim: of a store's step the word that is read for it leaves on `write`, with its address, behind those of the steps before.

    It is any one, `followed` among those before it. There it waits as it is. Taken for granted: no step sets out while `hold`.
    """

    def __init__(self, circuit: External) -> None:
        self.circuit = circuit
        super().__init__({"copier": Out(circuit.signature), "follow": In(1), "followed": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        wiring.connect(m, wiring.flipped(self.copier), circuit)
        step, leaves = circuit.i.payload, circuit.write.payload
        stores, passes = circuit.i.valid & ~step.load, circuit.write.valid & circuit.write.ready
        waiting, ahead, y, word = Signal(4), Signal(4), Signal.like(step.y), Signal.like(circuit.word)
        begins = stores & self.follow & ~self.followed
        arrives = self.followed & passes & (ahead == 0)
        m.d.sync += waiting.eq(waiting + stores - passes)
        with m.If(passes):
            m.d.sync += ahead.eq(ahead - 1)
        with m.If(arrives):
            m.d.sync += self.followed.eq(0)
        with m.If(begins):
            m.d.sync += [self.followed.eq(1), ahead.eq(waiting - passes), y.eq(step.y)]
        with m.If(delayed(m, begins, READ_CYCLES)):
            m.d.sync += word.eq(circuit.word)
        _sets_out(m, circuit)
        waits(m, Assert, circuit.write)
        m.d.comb += [
            Assert(~arrives | ((leaves.address == y) & (leaves.word.as_value() == word.as_value()))),
            Assert((waiting != 0) | ~circuit.write.valid),
            Assert((waiting == 0) | ~circuit.idle),
        ]
        return m


class Fetched(wiring.Component):
    """Claim: a load's question leaves behind those before it and waits as it is, and the word that answers it goes where its step said.

    It is any one, `followed` among those before it, asked or not. Taken for granted: no step sets out while `hold`.
    """

    def __init__(self, circuit: External) -> None:
        self.circuit = circuit
        super().__init__({"copier": Out(circuit.signature), "follow": In(1), "followed": Out(1), "asked": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        wiring.connect(m, wiring.flipped(self.copier), circuit)
        step, arrived = circuit.i.payload, circuit.o.payload
        loads = circuit.i.valid & step.load
        asks, answered = (port.valid & port.ready for port in (circuit.read, circuit.answer))
        to_ask, to_answer, ahead, x, y = Signal(4), Signal(4), Signal(4), Signal.like(step.x), Signal.like(step.y)
        asked_now = self.followed & ~self.asked & asks & (ahead == 0)
        arrives = self.asked & answered & (ahead == 0)
        m.d.sync += [to_ask.eq(to_ask + loads - asks), to_answer.eq(to_answer + asks - answered)]
        with m.If(Mux(self.asked, answered, asks)):
            m.d.sync += ahead.eq(ahead - 1)
        with m.If(asked_now):
            m.d.sync += [self.asked.eq(1), ahead.eq(to_answer - answered)]
        with m.If(arrives):
            m.d.sync += [self.followed.eq(0), self.asked.eq(0)]
        with m.If(loads & self.follow & ~self.followed):
            m.d.sync += [self.followed.eq(1), ahead.eq(to_ask - asks), x.eq(step.x), y.eq(step.y)]
        _sets_out(m, circuit)
        waits(m, Assert, circuit.read)
        m.d.comb += [
            Assert(~asked_now | (circuit.read.payload == x)),
            Assert((to_ask != 0) | ~circuit.read.valid),
            Assert(circuit.o.valid == answered),
            Assert(~circuit.o.valid | (arrived.word.as_value() == circuit.answer.payload.as_value())),
            Assert(~arrives | (arrived.address == y)),
            Assert((to_answer != 0) | ~answered),
            Assert(((to_ask == 0) & (to_answer == 0)) | ~circuit.idle),
        ]
        return m


CYCLES = {Stored: 12, Fetched: 11}


def _sets_out(m: Module, circuit: External) -> None:
    """Take for granted that a step sets out while nothing holds it, and comes as many cycles later as it is on its way."""
    m.d.comb += Assume(~(circuit.i.valid & delayed(m, circuit.hold, circuit.on_way)))


@pytest.mark.parametrize("arch", [SMALL, COPYING], ids=["alone", "with an external memory"])
def test_scores_wait(arch: Arch) -> None:
    verdict = prove(Served(Datapath(arch)), steps=2, forever=True)
    assert verdict.proved, verdict


@pytest.mark.parametrize("claim", [Stored, Fetched])
def test_copies_arrive_where_their_steps_say(claim: type[wiring.Component]) -> None:
    verdict = prove(claim(small(external)), CYCLES[claim])
    assert verdict.proved, verdict


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("advance = ~self.score.valid | self.score.ready", "advance = self.score.ready | ~self.score.ready"),
        ("m.If(advance):", "m.If(1):"),
    ],
)
def test_a_mistake_about_scores_is_found(right: str, wrong: str) -> None:
    verdict = prove(Served(mistaken(datapath, right, wrong).Datapath(SMALL)), steps=2, forever=True)
    assert not verdict.proved


@pytest.mark.parametrize(
    ("claim", "right", "wrong"),
    [
        (Stored, "self.i.valid & ~step.load]", "self.i.valid]"),
        (Stored, "delayed(m, step.y, READ_CYCLES)", "delayed(m, step.x, READ_CYCLES)"),
        (Stored, "delayed(m, step.y, READ_CYCLES)", "delayed(m, step.y, 1)"),
        (Stored, "words.w_en.eq(stores[-1])", "words.w_en.eq(stores[1])"),
        (Stored, "words.r_en.eq(self.write.ready)", "words.r_en.eq(1)"),
        pytest.param(Stored, "words.level > enough", "words.level > enough + 1", marks=pytest.mark.slow),
        (Stored, "*stores, ", "stores[0], "),
        (Stored, ", words.r_rdy)", ")"),
        (Fetched, "questions.w_data.eq(Cat(step.x, step.y))", "questions.w_data.eq(Cat(step.y, step.x))"),
        (Fetched, "places.w_en.eq(questions.r_en)", "places.w_en.eq(self.read.valid)"),
        (Fetched, "places.r_en.eq(self.answer.valid)", "places.r_en.eq(1)"),
        (Fetched, "questions.r_rdy & places.w_rdy", "questions.r_rdy & places.w_rdy & ~self.answer.valid"),
        (Fetched, "questions.r_rdy & places.w_rdy", "questions.r_rdy"),
        (Fetched, "questions.r_rdy, places.r_rdy, ", "places.r_rdy, "),
        (Fetched, "questions.r_rdy, places.r_rdy, ", "questions.r_rdy, "),
    ],
)
def test_a_mistake_about_copies_is_found(claim: type[wiring.Component], right: str, wrong: str) -> None:
    verdict = prove(claim(small(mistaken(external, right, wrong))), CYCLES[claim] + 6)
    assert not verdict.proved and verdict.reachable


def small(module: ModuleType) -> External:
    """A copier that is soon full."""
    return type("Small", (module.External,), {"latency": 2, "room": 6, "on_way": 1})(COPYING)
