"""From requests in few bytes to the machine's buses: every access to it, one word at a time."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.wiring import In, Out

from hw.gateware.axi import AXI_PACKETS, AXI_STREAM
from hw.gateware.registers import AXI_LITE, OKAY, Register


class Kind(enum.Enum, shape=3):
    """What a request asks for: a register to be read or written, a word for a stream, a word of the scores."""

    READ = 1
    WRITE = 2
    LOAD = 3
    IMAGE = 4
    SCORE = 5


class Fault(enum.Enum, shape=2):
    """What became of a request: done; not done, since the machine did not take or give a word in time, since a request came altered (this
    one, or one before), or since there is no such thing to ask for.
    """

    NONE = 0
    LATE = 1
    ALTERED = 2
    UNKNOWN = 3


REQUEST = data.StructLayout({"kind": Kind, "register": 5, "word": 32})
"""A register is named by its number, a quarter of its address."""
ANSWER = data.StructLayout({"kind": Kind, "fault": Fault, "last": 1, "unused": 2, "word": 32})
"""`last` is that of a word of scores."""
CHECK = catalog.CRC8_ROHC(data_width=REQUEST.size)
"""What follows a request or an answer in one more byte: the CRC-8 of RFC 3095 of its bytes, the lowest first."""
PACKET_BITS = REQUEST.size + 8


class Bridge(wiring.Component):
    """Answer requests in their order, each once, by what they ask of a machine's buses; both with their check.

    A word for a stream is answered when it is on its way and no word before it waits. If that takes more than `patience` cycles, or there
    is no score for so long, the answer says so. From then on, and from a request on that came altered, no words are taken or given until
    `CONTROL` is written, so that none is at another one's place.

    Latency: 4 cycles from a request to its answer for words, 7 and 8 for registers. Throughput: as often.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        super().__init__(
            {
                "i": In(stream.Signature(PACKET_BITS)),
                "o": Out(stream.Signature(PACKET_BITS)),
                "axi": Out(AXI_LITE),
                "load": Out(AXI_STREAM),
                "image": Out(AXI_STREAM),
                "score": In(AXI_PACKETS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.check = check = CHECK.create()
        request, given = Signal(REQUEST), Signal(8)
        answer = Signal(ANSWER)
        lasting = Signal(Fault)
        waited = Signal(range(self.patience + 1))
        late = waited == self.patience
        m.d.comb += [
            self.axi.ar.payload.addr.eq(Cat(Const(0, 2), request.register)),
            self.axi.aw.payload.addr.eq(Cat(Const(0, 2), request.register)),
            self.axi.w.payload.data.eq(request.word),
            self.axi.w.payload.strb.eq(0b1111),
            self.o.payload.eq(Cat(answer, check.crc)),
        ]
        slots = {Kind.LOAD: self.load.t, Kind.IMAGE: self.image.t}
        for slot in slots.values():
            with m.If(slot.ready):
                m.d.sync += slot.valid.eq(0)

        with m.FSM():
            with m.State("Rest"):
                m.d.comb += [self.i.ready.eq(1), check.start.eq(1), check.valid.eq(1), check.data.eq(self.i.payload)]
                m.d.sync += [Cat(request, given).eq(self.i.payload), waited.eq(0)]
                with m.If(self.i.valid):
                    m.next = "Checked"
            with m.State("Checked"):
                m.d.sync += [answer.kind.eq(request.kind), answer.fault.eq(Fault.NONE), answer.last.eq(0), answer.word.eq(0)]
                with m.If(check.crc != given):
                    m.d.sync += [lasting.eq(Fault.ALTERED), answer.fault.eq(Fault.ALTERED)]
                    m.next = "Answer"
                with m.Else(), m.Switch(request.kind):
                    with m.Case(Kind.READ):
                        m.next = "Read"
                    with m.Case(Kind.WRITE):
                        m.next = "Write"
                    with m.Case(Kind.LOAD, Kind.IMAGE, Kind.SCORE):
                        m.next = "Move"
                        with m.If(lasting != Fault.NONE):
                            m.d.sync += answer.fault.eq(lasting)
                            m.next = "Answer"
                    with m.Default():
                        m.d.sync += answer.fault.eq(Fault.UNKNOWN)
                        m.next = "Answer"
            with m.State("Read"):
                m.d.comb += self.axi.ar.valid.eq(1)
                with m.If(self.axi.ar.ready):
                    m.next = "Held"
            with m.State("Held"):
                m.d.comb += self.axi.r.ready.eq(1)
                m.d.sync += [answer.word.eq(self.axi.r.payload.data), answer.fault.eq(_fault(self.axi.r.payload.resp))]
                with m.If(self.axi.r.valid):
                    m.next = "Answer"
            with m.State("Write"):
                m.d.comb += self.axi.aw.valid.eq(1)
                with m.If(self.axi.aw.ready):
                    m.next = "Give"
            with m.State("Give"):
                m.d.comb += self.axi.w.valid.eq(1)
                with m.If(self.axi.w.ready):
                    m.next = "Written"
            with m.State("Written"):
                m.d.comb += self.axi.b.ready.eq(1)
                m.d.sync += answer.fault.eq(_fault(self.axi.b.payload.resp))
                with m.If(self.axi.b.valid):
                    m.d.sync += lasting.eq(Mux(request.register == Register.CONTROL >> 2, Fault.NONE, lasting))
                    m.next = "Answer"
            with m.State("Move"):
                m.d.sync += waited.eq(waited + 1)
                with m.If(late):
                    m.d.sync += [lasting.eq(Fault.LATE), answer.fault.eq(Fault.LATE)]
                    m.next = "Answer"
                with m.Else():
                    for kind, slot in slots.items():
                        with m.If((request.kind == kind) & (~slot.valid | slot.ready)):
                            m.d.sync += [slot.valid.eq(1), slot.payload.data.eq(request.word)]
                            m.next = "Answer"
                    with m.If(request.kind == Kind.SCORE):
                        m.d.comb += self.score.t.ready.eq(1)
                        m.d.sync += [answer.word.eq(self.score.t.payload.data), answer.last.eq(self.score.t.payload.last)]
                        with m.If(self.score.t.valid):
                            m.next = "Answer"
            with m.State("Answer"):
                m.d.comb += [check.start.eq(1), check.valid.eq(1), check.data.eq(answer)]
                m.next = "Send"
            with m.State("Send"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "Rest"
        return m


def _fault(response: Value) -> Value:
    """What a register answered."""
    return Mux(response == OKAY, Fault.NONE, Fault.UNKNOWN)
