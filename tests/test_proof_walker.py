"""The walker, proved: arbitrary instructions in turn are walked as nested counters say; and where these go is a nest's affine address."""

from functools import reduce
from operator import and_

import pytest
from amaranth import Module, Signal, Value
from amaranth.hdl import Assert, Assume
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from claims import mistaken, steady, waits

from hw.arch import STREAMS, Arch
from hw.gateware import walker
from hw.gateware.walker import Walker, step
from hw.prove import prove

DEPTHS = dict.fromkeys(("image_depth", "data_depth"), 2) | dict.fromkeys(("weight_depth", "init_depth", "score_depth", "code_depth"), 4)
TWO, THREE = (Arch(rows=1, lanes=1, loops=loops, extent_bits=1, **DEPTHS) for loops in (2, 3))
CYCLES = 12
PATIENCE = 2
"""For how many cycles a walker may have nothing to say while it is offered instructions, besides those that they wait."""
MOST_WAIT = 1


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
    """Claim: of two arbitrary instructions in turn, whoever waits, every step is the one that nested counters are at."""

    def __init__(self, circuit: Walker) -> None:
        self.circuit = circuit
        ports = {"instructions": In(data.ArrayLayout(circuit.arch.instruction, 2)), "offered": In(1), "taken": Out(1)}
        super().__init__({**ports, "ready": In(1), "valid": Out(1), "o": Out(step(circuit.arch))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.circuit.arch
        m.submodules.circuit = circuit = self.circuit
        m.submodules.nested = nested = Nested(arch)
        steady(m, self.instructions)
        m.d.comb += [Assume(instruction.reduce <= arch.loops) for instruction in self.instructions]
        m.d.comb += [Assume(instruction.wait <= MOST_WAIT) for instruction in self.instructions]

        # Each is offered until it is taken, and counted through before the next.
        given, walked = Signal(4), Signal(4)
        passing = self.valid & self.ready
        m.d.comb += [
            circuit.i.payload.eq(self.instructions[given[0]]),
            circuit.i.valid.eq(self.offered),
            self.taken.eq(circuit.i.valid & circuit.i.ready),
            circuit.o.ready.eq(self.ready),
            self.valid.eq(circuit.o.valid),
            self.o.eq(circuit.o.payload),
            nested.instruction.eq(self.instructions[walked[0]]),
            nested.count.eq(passing),
        ]
        m.d.sync += [given.eq(given + self.taken), walked.eq(walked + (passing & nested.over))]
        waits(m, Assume, circuit.i)

        instruction = nested.instruction
        right = [self.o[name] == (instruction[name] + nested.moved[name])[: arch.address_bits] for name in STREAMS]
        at_ends = {"first": [0] * arch.loops, "last": [loop.steps for loop in instruction.loops]}
        for mark, ends in at_ends.items():
            reached = [(nested.index[level] == end) | (level >= instruction.reduce) for level, end in enumerate(ends)]
            right.append(self.o[mark] == _all(reached))
        right += [self.o.complete == nested.over, self.o.mode.end == instruction.end]
        silent = Signal(range(PATIENCE + MOST_WAIT + 2))
        m.d.sync += silent.eq(0)
        with m.If(self.offered & ~self.valid):
            m.d.sync += silent.eq(silent + 1)
        m.d.comb += [Assert(condition | ~self.valid) for condition in right]
        m.d.comb += [Assert(~self.valid | (given != walked) | self.offered), Assert(silent <= PATIENCE + MOST_WAIT)]
        waits(m, Assert, circuit.o)
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
        ("at.last.eq(level >= walked.reduce)", "at.last.eq(level > walked.reduce)"),
        ("at.first.eq(begins | at.last)", "at.first.eq(begins)"),
        ("at.complete.eq(ended)", "at.complete.eq(0)"),
        ("at.mode[name].eq(walked[name])", "at.mode[name].eq(instruction[name])"),
        ("in reversed(loops)", "in loops"),
        ("more[number].eq(left[number] != 1)", "more[number].eq(1)"),
        ("left[inner].eq(again)", "left[inner].eq(0)"),
        ("by[name].eq(loop[name])", "by[name].eq(loop.x)"),
        ("Mux(begins, 0, at[name]) + by[name]", "at[name] + by[name]"),
        ("moving.eq(~self.o.valid | self.o.ready)", "moving.eq(1)"),
        ("moving & ended & (waited", "moving & (waited"),
        ("waited.eq(Mux(waited.all(), waited, waited + 1))", "waited.eq(0)"),
    ],
)
def test_a_mistake_is_found(right: str, wrong: str) -> None:
    assert not prove(Walked(mistaken(walker, right, wrong).Walker(TWO)), CYCLES).proved
