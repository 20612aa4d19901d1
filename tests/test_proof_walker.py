"""The walker, proved: two instructions in turn, whatever they are, are walked as nested counters say, whoever waits, for 24 cycles."""

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

DEPTHS = dict.fromkeys(("data_depth", "weight_depth", "init_depth", "score_depth", "code_depth"), 8)
TWO, THREE = (Arch(rows=1, lanes=1, loops=loops, extent_bits=bits, **DEPTHS) for loops, bits in ((2, 2), (3, 1)))
PATIENCE = 2
"""For how many cycles a walker may have nothing to say while it is offered instructions."""


class Counted(wiring.Component):
    """Claim: steps are at first + sum of index * stride while indices count as nested loops do; the right ones are a reduction's ends.

    Two arbitrary nests take turns. Each becomes an instruction as `assemble` makes one.
    """

    def __init__(self, circuit: Walker) -> None:
        self.circuit, arch = circuit, circuit.arch
        self.loops = range(arch.loops)
        addresses = data.StructLayout(dict.fromkeys(STREAMS, arch.address_bits))
        loop = data.StructLayout({"last": arch.extent_bits, "stride": addresses})
        nest = data.StructLayout({"first": addresses, "loops": data.ArrayLayout(loop, arch.loops), "reduce": range(arch.loops + 1)})
        super().__init__(
            {"nests": In(data.ArrayLayout(nest, 2)), "offered": In(1), "taken": Out(1), "ready": In(1), "valid": Out(1), "o": Out(step(arch))}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.circuit = circuit = self.circuit
        steady(m, self.nests)
        m.d.comb += [Assume(nest.reduce <= len(self.loops)) for nest in self.nests]

        # The nests are offered in turn, each until it is taken.
        turn, given, walked = Signal(), Signal(4), Signal(4)
        m.d.comb += [
            *self.written(circuit.i.payload, self.nests[turn]),
            circuit.i.valid.eq(self.offered),
            self.taken.eq(circuit.i.valid & circuit.i.ready),
            circuit.o.ready.eq(self.ready),
            self.valid.eq(circuit.o.valid),
            self.o.eq(circuit.o.payload),
        ]
        m.d.sync += [turn.eq(turn ^ self.taken), given.eq(given + self.taken)]
        waits(m, Assume, circuit.i)

        # Their indices count.
        nest = self.nests[walked[0]]
        index = [Signal(self.circuit.arch.extent_bits, name=f"index_{level}") for level in self.loops]
        at_first = [index[level] == 0 for level in self.loops]
        at_last = [index[level] == nest.loops[level].last for level in self.loops]
        with m.If(self.valid & self.ready):
            for level in self.loops:
                with m.If(_all(at_last[:level])):
                    m.d.sync += index[level].eq(index[level] + 1)
                with m.If(_all(at_last[: level + 1])):
                    m.d.sync += index[level].eq(0)
            m.d.sync += walked.eq(walked + _all(at_last))

        # A step of an instruction that is there has the addresses and the marks of the indices.
        moved = {name: sum(index[level] * nest.loops[level].stride[name] for level in self.loops) for name in STREAMS}
        right = [self.o[name] == (nest.first[name] + moved[name])[: self.circuit.arch.address_bits] for name in STREAMS]
        right += [
            self.o[mark] == _all([met[level] | (level >= nest.reduce) for level in self.loops])
            for mark, met in (("first", at_first), ("last", at_last))
        ]
        silent = Signal(range(PATIENCE + 2))
        m.d.sync += silent.eq(0)
        with m.If(self.offered & ~self.valid):
            m.d.sync += silent.eq(silent + 1)
        m.d.comb += [Assert(~self.valid | _all(right)), Assert(~self.valid | (given != walked) | self.offered), Assert(silent <= PATIENCE)]
        waits(m, Assert, circuit.o)
        return m

    def written(self, instruction: data.View, nest: data.View) -> list:
        """A nest as an instruction: a level moves by its stride less what all inner loops have moved."""
        fields = [instruction.reduce.eq(nest.reduce), *(instruction[name].eq(nest.first[name]) for name in STREAMS)]
        for level, loop in enumerate(nest.loops):
            inner = {name: sum(nest.loops[k].stride[name] * nest.loops[k].last for k in range(level)) for name in STREAMS}
            fields += [instruction.loops[level].steps.eq(loop.last)]
            fields += [instruction.loops[level][name].eq(loop.stride[name] - inner[name]) for name in STREAMS]
        return fields


def _all(conditions: list[Value]) -> Value:
    return reduce(and_, conditions, Value.cast(1))


@pytest.mark.parametrize("arch", [TWO, THREE], ids=["two loops of up to 4", "three loops of up to 2"])
def test_steps_are_those_of_nested_counters(arch: Arch) -> None:
    verdict = prove(Counted(Walker(arch)), steps=24)
    assert verdict.proved, verdict


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("at.last.eq(level >= instruction.reduce)", "at.last.eq(level > instruction.reduce)"),
        ("at.first.eq(at.last)", "at.first.eq(0)"),
        ("reversed(range(self.arch.loops))", "range(self.arch.loops)"),
        ("left[number].eq(left[number] - 1)", "left[number].eq(left[number] - 2)"),
        ("left[inner].eq(instruction.loops[inner].steps)", "left[inner].eq(0)"),
        ("at[name].eq(at[name] + loop[name])", "at[name].eq(at[name] + loop.x)"),
        ("self.o.valid & self.o.ready & (level", "self.o.valid & (level"),
        ("m.Elif(self.o.valid & self.o.ready)", "m.Elif(self.o.valid)"),
        ("m.If(~self.o.valid & self.i.valid)", "m.If(~self.o.valid)"),
        ("m.If(~self.o.valid & self.i.valid)", "m.If(~self.o.valid & self.i.valid & self.i.payload.x[0])"),
    ],
)
def test_a_mistake_is_found(right: str, wrong: str) -> None:
    verdict = prove(Counted(mistaken(walker, right, wrong).Walker(TWO)), steps=24)
    assert not verdict.proved
