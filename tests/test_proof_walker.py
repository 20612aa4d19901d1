"""The walker, proved: arbitrary instructions in turn are walked as nested counters say; and where these go is a nest's affine address."""

from functools import reduce
from operator import and_

import pytest
from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from claims import mistaken, steady, waits

from hw.arch import STREAMS, Arch
from hw.gateware import walker
from hw.gateware.delay import delayed
from hw.gateware.external import External
from hw.gateware.walker import Walker, step
from hw.prove import prove

DEPTHS = dict.fromkeys(("image_depth", "data_depth"), 2) | dict.fromkeys(("weight_depth", "init_depth", "score_depth", "code_depth"), 4)
TWO, THREE = (Arch(rows=1, lanes=2, loops=loops, extent_bits=1, **DEPTHS) for loops in (2, 3))
CYCLES = 17
PATIENCE = 5
"""For how many cycles a walker may have nothing to say while it is offered instructions, besides those that they wait."""
MOST_WAIT = 2


class Nested(wiring.Component):
    """Counters that are nested loops: a level counts to its `steps` and moves the addresses, then begins again when the next one counts."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        index = data.ArrayLayout(arch.extent_bits, arch.loops)
        addresses = data.StructLayout(dict.fromkeys(STREAMS, arch.address_bits))
        super().__init__(
            {"instruction": In(arch.instruction), "count": In(1), "index": Out(index), "moved": Out(addresses), "over": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        loops = range(self.arch.loops)
        at_last = [self.index[level] == self.instruction.loops[level].steps for level in loops]
        m.d.comb += self.over.eq(_all(at_last))
        with m.If(self.count):
            for level in loops:
                with m.If(_all(at_last[:level]) & ~at_last[level]):
                    m.d.sync += self.index[level].eq(self.index[level] + 1)
                    m.d.sync += [self.index[inner].eq(0) for inner in range(level)]
                    m.d.sync += [self.moved[name].eq(self.moved[name] + self.instruction.loops[level][name]) for name in STREAMS]
            with m.If(self.over):
                m.d.sync += [self.index.eq(0), self.moved.eq(0)]
        return m


class Walked(wiring.Component):
    """Claim: of two arbitrary instructions in turn, whatever holds it, every step is the one that nested counters are at.

    An instruction waits as long as it says. A reduction begins as many cycles after the one before it, of the same instruction, as that has
    lanes, or later. When it is held, no more steps come than an external memory has room for, but the first of an instruction. `idle` when
    none is on its way.
    """

    def __init__(self, circuit: Walker) -> None:
        self.circuit = circuit
        ports = {"instructions": In(data.ArrayLayout(circuit.arch.instruction, 2)), "offered": In(1), "taken": Out(1)}
        super().__init__({**ports, "hold": In(1), "valid": Out(1), "o": Out(step(circuit.arch))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.circuit.arch
        m.submodules.circuit = circuit = self.circuit
        m.submodules.nested = nested = Nested(arch)
        steady(m, self.instructions)
        for instruction in self.instructions:
            m.d.comb += [Assume(instruction.reduce <= arch.loops), Assume(instruction.wait <= MOST_WAIT)]
            m.d.comb += [Assume((instruction.lanes >= 1) & (instruction.lanes <= arch.lanes))]

        # Each is offered until it is taken, and counted through before the next.
        given, walked = Signal(4), Signal(4)
        m.d.comb += [
            circuit.i.payload.eq(self.instructions[given[0]]),
            circuit.i.valid.eq(self.offered),
            circuit.hold.eq(self.hold),
            self.taken.eq(circuit.i.valid & circuit.i.ready),
            self.valid.eq(circuit.o.valid),
            self.o.eq(circuit.o.payload),
            nested.instruction.eq(self.instructions[walked[0]]),
            nested.count.eq(self.valid),
        ]
        m.d.sync += [given.eq(given + self.taken), walked.eq(walked + (self.valid & nested.over))]
        waits(m, Assume, circuit.i)

        instruction = nested.instruction
        right = [self.o[name] == (instruction[name] + nested.moved[name])[: arch.address_bits] for name in STREAMS]
        at_ends = {"first": [0] * arch.loops, "last": [loop.steps for loop in instruction.loops]}
        for mark, ends in at_ends.items():
            reached = [(nested.index[level] == end) | (level >= instruction.reduce) for level, end in enumerate(ends)]
            right.append(self.o[mark] == _all(reached))
        right += [self.o.complete == nested.over, self.o.mode.end == instruction.end]
        right.append(~delayed(m, self.hold, External.on_way) | (nested.index.as_value() == 0))
        begins, since = self.valid & self.o.first, Signal(range(arch.lanes + 1), init=arch.lanes)
        m.d.sync += since.eq(Mux(begins, 1, Mux(since == arch.lanes, since, since + 1)))
        right.append(~self.o.first | (nested.index.as_value() == 0) | (since >= instruction.lanes))
        silent = Signal(range(PATIENCE + MOST_WAIT + 2))
        m.d.sync += silent.eq(0)
        with m.If(self.offered & ~self.valid & ~self.hold):
            m.d.sync += silent.eq(silent + 1)
        since_step = Signal(range(MOST_WAIT + 3), init=MOST_WAIT + 2)
        m.d.sync += since_step.eq(Mux(self.valid, 1, Mux(since_step == MOST_WAIT + 2, since_step, since_step + 1)))
        right.append((nested.index.as_value() != 0) | (since_step > instruction.wait))
        m.d.comb += [Assert(condition | ~self.valid) for condition in right]
        m.d.comb += Assert(~circuit.idle | ~(self.valid | (given != walked)))
        m.d.comb += [Assert(~self.valid | (given != walked)), Assert(silent <= PATIENCE + MOST_WAIT)]
        return m


class Affine(wiring.Component):
    """Claim: where levels move by their loops' strides less what inner loops have moved, counters are at the sum of index * stride."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        loops = {"steps": data.ArrayLayout(arch.extent_bits, arch.loops), "stride": data.ArrayLayout(arch.address_bits, arch.loops)}
        super().__init__({**{name: In(layout) for name, layout in loops.items()}, "count": In(1), "moved": Out(arch.address_bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.nested = nested = Nested(self.arch)
        steady(m, self.steps)
        steady(m, self.stride)
        for level, loop in enumerate(nested.instruction.loops):
            m.d.comb += [loop.steps.eq(self.steps[level]), loop.x.eq(self.moves(level))]
        m.d.comb += [nested.count.eq(self.count), self.moved.eq(nested.moved.x)]
        affine = sum(nested.index[level] * self.stride[level] for level in range(self.arch.loops))
        m.d.comb += [Assert(self.moved == affine[: self.arch.address_bits])]
        m.d.comb += [Assert(nested.index[level] <= self.steps[level]) for level in range(self.arch.loops)]
        return m

    def moves(self, level: int) -> Value:
        """How far all addresses move when a level counts."""
        return self.stride[level] - sum(self.stride[inner] * self.steps[inner] for inner in range(level))


def _all(conditions: list[Value]) -> Value:
    return reduce(and_, conditions, Value.cast(1))


@pytest.mark.parametrize("arch", [TWO, THREE], ids=["two loops", "three loops"])
def test_steps_are_those_of_nested_counters(arch: Arch) -> None:
    verdict = prove(Walked(Walker(arch)), CYCLES)
    assert verdict.proved, verdict


@pytest.mark.parametrize("arch", [TWO, THREE], ids=["two loops", "three loops"])
def test_nested_counters_are_at_affine_addresses(arch: Arch) -> None:
    verdict = prove(Affine(arch), steps=2, forever=True)
    assert verdict.proved, verdict


def test_addresses_that_do_not_go_back_are_found() -> None:
    class Onward(Affine):
        def moves(self, level: int) -> Value:
            return self.stride[level]

    verdict = prove(Onward(TWO), CYCLES)
    assert not verdict.proved and verdict.reachable


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("found.last.eq(ended)", "found.last.eq(0)"),
        ("at.first.eq(found.first | at.last)", "at.first.eq(found.first)"),
        ("complete.eq(~goes_on)", "complete.eq(0)"),
        ("found.mode[name].eq(walked[name])", "found.mode[name].eq(next_one[name])"),
        ("more[inner] for inner in range(level))).any() for level", "more[inner] for inner in range(level))).all() for level"),
        ("more[level].eq(high | (low != 1))", "more[level].eq(1)"),
        ("left[level].eq(again)", "left[level].eq(0)"),
        ("loop[name] & level_of", "loop.x & level_of"),
        ("Mux(found.first, 0, at[name]) + by[name]", "at[name] + by[name]"),
        ("(ended & (rest != 0)) | self.hold", "ended & (rest != 0)"),
        ("(ended & (rest != 0)) | self.hold", "self.hold"),
        ("Mux(goes_on, at_once & ~holds, rested)", "Mux(goes_on, at_once, rested)"),
        ("~many.as_value().any() & Mux", "Mux"),
        ("(loop.steps[0] & ~inner_zero)", "loop.steps[0]"),
        ("rested.eq(since >= self.i.payload.wait)", "rested.eq(0)"),
        ("rested.eq(since >= self.i.payload.wait)", "rested.eq(1)"),
        ("at_once.eq(self.i.payload.wait == 0)", "at_once.eq(1)"),
        ("goes_on | begins | stepped | moved | self.o.valid", "goes_on | begins | moved | self.o.valid"),
    ],
)
def test_a_mistake_is_found(right: str, wrong: str) -> None:
    assert not prove(Walked(mistaken(walker, right, wrong).Walker(TWO)), CYCLES).proved
