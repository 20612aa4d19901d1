"""The registers by which a processor sees and resets the machine, behind AXI4-Lite."""

from enum import IntEnum

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

ADDRESS_BITS = 12
AXI_LITE = wiring.Signature(
    {
        "aw": Out(stream.Signature(data.StructLayout({"addr": ADDRESS_BITS}))),
        "w": Out(stream.Signature(data.StructLayout({"data": 32, "strb": 4}))),
        "b": In(stream.Signature(data.StructLayout({"resp": 2}))),
        "ar": Out(stream.Signature(data.StructLayout({"addr": ADDRESS_BITS}))),
        "r": In(stream.Signature(data.StructLayout({"data": 32, "resp": 2}))),
    }
)
"""The five channels of AXI4-Lite (ARM IHI 0022) as the processor sees them: each is a stream, its signals are fields of the payload."""
OKAY, SLVERR = 0, 2
"""Responses: done; there is no such register."""
STATUS = data.StructLayout({"busy": 1, "error": 1, "image": 1, "score": 1})
CONTROL = data.StructLayout({"reset": 1})


class Register(IntEnum):
    """The address of every register, in bytes."""

    IDENTITY = 0x00
    ARCH = 0x04
    STATUS = 0x08
    CYCLES = 0x0C
    CONTROL = 0x10


class Registers(wiring.Component):
    """Answer every read and every write, in the order in which they came; hw/README.md says what each register means.

    A read takes the registers' values in the cycle in which its address passes. Only `CONTROL` is written, where its byte's strobe is
    set. Whatever else is read or written is answered with SLVERR and changes nothing. The two lowest bits of addresses are ignored.

    Latency: 1 cycle from address to data, 2 from the later of address and data to the answer of a write. Throughput: 1 read and 1 write
    every 2 cycles.
    """

    def __init__(self, identity: int, arch: int) -> None:
        self.fixed = {Register.IDENTITY: identity, Register.ARCH: arch}
        super().__init__({"axi": In(AXI_LITE), "status": In(STATUS), "cycles": In(32), "control": Out(CONTROL)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values = {
            **self.fixed,
            Register.STATUS: self.status.as_value(),
            Register.CYCLES: self.cycles,
            Register.CONTROL: self.control.as_value(),
        }

        # Reads.
        ar, r = self.axi.ar, self.axi.r
        m.d.comb += ar.ready.eq(~r.valid)
        with m.If(ar.valid & ar.ready):
            m.d.sync += [r.valid.eq(1), r.payload.data.eq(0), r.payload.resp.eq(SLVERR)]
            with m.Switch(ar.payload.addr[2:]):
                for register, value in values.items():
                    with m.Case(register >> 2):
                        m.d.sync += [r.payload.data.eq(value), r.payload.resp.eq(OKAY)]
        with m.Elif(r.ready):
            m.d.sync += r.valid.eq(0)

        # Writes: address and data come in any order, and wait for each other.
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        addressed, given = Signal(), Signal()
        address, word = Signal(ADDRESS_BITS), Signal(w.payload.shape())
        m.d.comb += [aw.ready.eq(~addressed), w.ready.eq(~given)]
        with m.If(aw.valid & aw.ready):
            m.d.sync += [addressed.eq(1), address.eq(aw.payload.addr)]
        with m.If(w.valid & w.ready):
            m.d.sync += [given.eq(1), word.eq(w.payload)]
        known = address[2:] == Register.CONTROL >> 2
        with m.If(addressed & given & (~b.valid | b.ready)):
            m.d.sync += [addressed.eq(0), given.eq(0), b.valid.eq(1), b.payload.resp.eq(Mux(known, OKAY, SLVERR))]
            with m.If(known & word.strb[0]):
                m.d.sync += self.control.eq(word.data)
        with m.Elif(b.ready):
            m.d.sync += b.valid.eq(0)
        return m
