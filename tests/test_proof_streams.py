"""Streams, proved: a word that waits stays as it is, whatever else happens; copied words arrive where their steps say."""

from types import ModuleType

import pytest
from amaranth import Module, Signal
from amaranth.hdl import Assert, Assume
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from claims import mistaken, waits

from hw.arch import Arch
from hw.gateware import datapath, external
from hw.gateware.datapath import Datapath
from hw.gateware.external import External
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
    """Claim: a store's word, and no other, is on `write` a cycle after its step; there it waits as it is, and is not forgotten by `idle`.

    Taken for granted: a step stays until it is taken, and the data memory gives the same word until it reads again.
    """

    def __init__(self, circuit: External) -> None:
        self.circuit = circuit
        super().__init__({"copier": Out(circuit.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        wiring.connect(m, wiring.flipped(self.copier), circuit)
        step, leaves, word = circuit.i.payload, circuit.write.payload, circuit.word.as_value()
        stored, stored_y, held = Signal(), Signal.like(step.y), Signal()
        read, word_before = Signal(init=1), Signal.like(word)
        m.d.sync += [stored.eq(circuit.i.valid & circuit.i.ready & ~step.load), stored_y.eq(step.y)]
        m.d.sync += [held.eq(circuit.write.valid & ~circuit.write.ready), read.eq(circuit.reading), word_before.eq(word)]
        waits(m, Assume, circuit.i)
        waits(m, Assert, circuit.write)
        m.d.comb += [
            Assume(read | (word == word_before)),
            Assert(circuit.write.valid == (stored | held)),
            Assert(~stored | (read & (leaves.address == stored_y) & (leaves.word.as_value() == word))),
            Assert(~circuit.idle | ~circuit.write.valid | circuit.write.ready),
        ]
        return m


class Fetched(wiring.Component):
    """Claim: a load asks in its own cycle, its question waits as it is, and the word that answers it goes where its step said.

    That word is any one, `followed` among those that were asked for before it. Taken for granted: a step stays until it is taken.
    """

    def __init__(self, circuit: External) -> None:
        self.circuit = circuit
        super().__init__({"copier": Out(circuit.signature), "follow": In(1), "followed": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        wiring.connect(m, wiring.flipped(self.copier), circuit)
        step, arrived = circuit.i.payload, circuit.o.payload
        passes = {name: getattr(circuit, name).valid & getattr(circuit, name).ready for name in ("i", "read", "answer")}
        asked, ahead, y = Signal(8), Signal(8), Signal.like(step.y)
        arrives = self.followed & passes["answer"] & (ahead == 0)
        m.d.sync += asked.eq(asked + passes["read"] - passes["answer"])
        with m.If(passes["answer"]):
            m.d.sync += ahead.eq(ahead - 1)
        with m.If(arrives):
            m.d.sync += self.followed.eq(0)
        with m.If(passes["read"] & self.follow & ~self.followed):
            m.d.sync += [self.followed.eq(1), ahead.eq(asked - passes["answer"]), y.eq(step.y)]
        waits(m, Assume, circuit.i)
        waits(m, Assert, circuit.read)
        m.d.comb += [
            Assert(passes["read"] == (passes["i"] & step.load)),
            Assert(~passes["read"] | (circuit.read.payload == step.x)),
            Assert(circuit.o.valid == passes["answer"]),
            Assert(~circuit.o.valid | (arrived.word.as_value() == circuit.answer.payload.as_value())),
            Assert(~arrives | (arrived.address == y)),
            Assert((asked != 0) | ~passes["answer"]),
            Assert((asked == 0) | ~circuit.idle),
        ]
        return m


@pytest.mark.parametrize("arch", [SMALL, COPYING], ids=["alone", "with an external memory"])
def test_scores_wait(arch: Arch) -> None:
    verdict = prove(Served(Datapath(arch)), steps=2, forever=True)
    assert verdict.proved, verdict


def test_stores_leave_as_they_are_and_wait() -> None:
    verdict = prove(Stored(External(COPYING)), steps=2, forever=True)
    assert verdict.proved, verdict


@pytest.mark.parametrize(("latency", "cycles"), [(External.latency, 12), (2, 14)], ids=["as it is", "full and round again"])
def test_loads_arrive_where_their_steps_say(latency: int, cycles: int) -> None:
    verdict = prove(Fetched(short(external, latency)), cycles)
    assert verdict.proved, verdict


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("advance = ~self.score.valid | self.score.ready", "advance = self.score.ready | ~self.score.ready"),
        ("read_score.en.eq(advance)", "read_score.en.eq(1)"),
    ],
)
def test_a_mistake_about_scores_is_found(right: str, wrong: str) -> None:
    verdict = prove(Served(mistaken(datapath, right, wrong).Datapath(SMALL)), steps=2, forever=True)
    assert not verdict.proved


@pytest.mark.parametrize(
    ("claim", "right", "wrong"),
    [
        (Stored, "self.reading.eq(~self.write.valid | self.write.ready)", "self.reading.eq(1)"),
        (Stored, "self.i.valid & ~step.load", "self.i.valid"),
        (Stored, "self.write.payload.address.eq(step.y)", "self.write.payload.address.eq(step.x)"),
        (Stored, "self.reading & ~places.r_rdy", "~places.r_rdy"),
        (Fetched, "self.read.payload.eq(step.x)", "self.read.payload.eq(step.y)"),
        (Fetched, "places.w_data.eq(step.y)", "places.w_data.eq(step.x)"),
        (Fetched, "places.w_en.eq(self.read.valid & self.read.ready)", "places.w_en.eq(self.read.valid)"),
        (Fetched, "places.r_en.eq(self.answer.valid)", "places.r_en.eq(1)"),
        (Fetched, "self.i.valid & step.load & places.w_rdy", "self.i.valid & step.load & places.w_rdy & ~self.answer.valid"),
        (Fetched, "Mux(step.load, places.w_rdy & self.read.ready", "Mux(step.load, self.read.ready"),
        (Fetched, "self.reading & ~places.r_rdy", "self.reading"),
    ],
)
def test_a_mistake_about_copies_is_found(claim: type[wiring.Component], right: str, wrong: str) -> None:
    verdict = prove(claim(short(mistaken(external, right, wrong), 2)), steps=12)
    assert not verdict.proved and verdict.reachable


def short(module: ModuleType, latency: int) -> External:
    """A copier that has room for the places of `latency` + 1 words."""
    return type("Short", (module.External,), {"latency": latency})(COPYING)
