"""The code memory of the training machine, and who reads it: one instruction after the other, each when all before it is done."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory, WritePort
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.gateware.delay import registered
from hw.gateware.mac import Mac
from hw.gateware.requantize import Requantize
from hw.training.arch import Kind, TrainingArch
from hw.training.gateware.banks import Banks
from hw.training.gateware.scatter import Scatter

FETCH_CYCLES = 5
"""Cycles from an instruction's number to its word, and to the control word that this names."""
RESULT_CYCLES = 1
"""Cycles from a result to the memories."""
MULTIPLY_CYCLES = Banks.latency + Mac.latency + Requantize.latency + Scatter.latency + RESULT_CYCLES
"""Cycles from the last step of a MULTIPLY until the first lane's result is written."""
UNIT_CYCLES = 32
"""Cycles from the last step of any other instruction until all is done that it does."""


class Sequencer(wiring.Component):
    """Give the instructions up to one that ends a part, with the shift of the contraction that they name, and be `done` a cycle after that.

    `begin` begins with the first instruction if `restart`, else behind the part before. `number` asks for a contraction's `control` word,
    which is there two cycles later. `beyond` instead of an instruction when there is no room for it: code ended nothing, or all of it was
    of the part before. While `stop` no instruction is done, so that no other one begins.

    Throughput: `hw.training.cycles` says in which cycles.
    """

    def __init__(self, arch: TrainingArch) -> None:
        self.arch = arch
        write = WritePort.Signature(addr_width=ceil_log2(arch.code_depth), shape=arch.instruction)
        super().__init__(
            {
                "write": In(write),
                "begin": In(1),
                "restart": In(1),
                "number": Out(range(arch.contractions)),
                "control": In(arch.control),
                "o": Out(stream.Signature(arch.instruction)),
                "idle": In(1),
                "stop": In(1),
                "done": Out(1),
                "beyond": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.code = code = Memory(shape=self.arch.instruction, depth=self.arch.code_depth, init=[])
        write, read = code.write_port(), code.read_port()
        m.d.comb += [getattr(write, name).eq(getattr(self.write, name)) for name in ("addr", "data", "en")]
        at, left = Signal(range(self.arch.code_depth + 1)), Signal(range(max(UNIT_CYCLES, MULTIPLY_CYCLES + self.arch.lanes)))
        instruction = registered(m, read.data)
        m.d.comb += [read.addr.eq(at), self.number.eq(instruction.number), self.o.payload.eq(instruction)]
        with m.If(instruction.kind == Kind.MULTIPLY):
            m.d.comb += self.o.payload.shift.eq(self.control.shift)
        m.d.sync += left.eq(left - 1)
        with m.FSM():
            with m.State("Wait"):
                m.d.sync += left.eq(FETCH_CYCLES - 1)
                with m.If(self.begin):
                    m.d.sync += at.eq(Mux(self.restart, 0, at))
                    m.next = "Fetch"
            with m.State("Fetch"), m.If(left == 0):
                m.d.comb += self.beyond.eq(at == self.arch.code_depth)
                m.next = "Give"
                with m.If(self.beyond):
                    m.next = "Wait"
            with m.State("Give"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "Walk"
            with m.State("Walk"):
                m.d.sync += left.eq(Mux(instruction.kind == Kind.MULTIPLY, MULTIPLY_CYCLES - 2 + instruction.lanes, UNIT_CYCLES - 2))
                with m.If(self.idle):
                    m.next = "Settle"
            with m.State("Settle"), m.If((left == 0) & ~self.stop):
                m.d.sync += [at.eq(at + 1), left.eq(FETCH_CYCLES - 1)]
                m.d.comb += self.done.eq(instruction.end)
                m.next = "Fetch"
                with m.If(self.done):
                    m.next = "Wait"
        return m
