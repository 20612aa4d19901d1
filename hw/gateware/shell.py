"""The machine behind few pins: a score word alone has `rows` x `acc_bits` bits, and no package so many pins."""

from amaranth import Module, Shape
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch
from hw.gateware.datapath import Datapath
from hw.gateware.narrow import Narrow
from hw.gateware.widen import Widen

BYTE_BITS = 8


class Shell(wiring.Component):
    """The datapath with streams of bytes: a word passes as its bytes, the least significant first. `cycles` stays inside.

    It is a harness, not a board: with it the whole datapath can be placed, routed and timed, all its streams in use and registered at
    its border, and no pin has a place. A word takes as many cycles as it has bytes.
    """

    def __init__(self, arch: Arch) -> None:
        self.datapath = Datapath(arch)
        self.flows = {name: member.flow for name, member in self.datapath.signature.members.items() if member.is_signature}
        super().__init__({**{name: flow(stream.Signature(BYTE_BITS)) for name, flow in self.flows.items()}, "busy": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.datapath = self.datapath
        for name, flow in self.flows.items():
            inside, outside = getattr(self.datapath, name), getattr(self, name)
            part = (Widen if flow == In else Narrow)(Shape.cast(inside.payload.shape()).width, BYTE_BITS)
            m.submodules[name] = part
            first, last = (outside, inside) if flow == In else (inside, outside)
            m.d.comb += [part.i.valid.eq(first.valid), first.ready.eq(part.i.ready)]
            m.d.comb += [last.valid.eq(part.o.valid), part.o.ready.eq(last.ready)]
            if flow == In:
                m.d.comb += [part.i.payload.data.eq(first.payload), last.payload.eq(part.o.payload)]
            else:
                m.d.comb += [part.i.payload.word.eq(first.payload), last.payload.eq(part.o.payload.data)]
        m.d.comb += self.busy.eq(self.datapath.busy)
        return m
