"""The machine behind standard buses: AXI4-Lite for control, AXI4-Stream for programs, images and scores."""

from dataclasses import astuple
from zlib import crc32

from amaranth import Module, ResetInserter
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch
from hw.gateware.datapath import Datapath
from hw.gateware.narrow import Narrow
from hw.gateware.registers import AXI_LITE, Registers
from hw.gateware.widen import BEAT_BITS, Widen
from hw.program import MAGIC, VERSION

AXI_STREAM = wiring.Signature({"t": Out(stream.Signature(data.StructLayout({"data": BEAT_BITS})))})
"""The one channel of AXI4-Stream (ARM IHI 0051) as its sender sees it."""
AXI_PACKETS = wiring.Signature({"t": Out(stream.Signature(data.StructLayout({"data": BEAT_BITS, "last": 1})))})
"""The same with the mark of a packet's last beat."""

IDENTITY = MAGIC & 0xFFFFFF | VERSION << 24
"""How the machine is known: the letters btt, and the version of the programs that it takes."""


class AxiDatapath(wiring.Component):
    """A `Datapath` without external memory whose streams are AXI4-Stream, of 32 bits, and whose status and reset are AXI4-Lite registers.

    A word of `image` or `score` is as many beats as it needs, the least significant first, its last one filled up with zeros; the scores
    of a batch are a packet. While the control register's `reset` is 1 the datapath is reset, and words that come in are dropped; scores
    end as `Narrow` says.
    No output depends on an input of the same cycle.

    Latency and throughput: those of the datapath, of `Widen` and `Narrow`.
    """

    def __init__(self, arch: Arch) -> None:
        if arch.external_depth:
            raise ValueError(
                f"Arch.external_depth is {arch.external_depth}, expected 0 behind AXI, where an external memory has no port: "
                "choose an Arch without one, or connect Datapath yourself"
            )
        self.arch = arch
        super().__init__(
            {
                "s_axi": In(AXI_LITE),
                "s_axis_load": In(AXI_STREAM),
                "s_axis_image": In(AXI_STREAM),
                "m_axis_score": Out(AXI_PACKETS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.arch
        m.submodules.registers = registers = Registers(IDENTITY, fingerprint(arch))
        datapath, load, image = Datapath(arch), Widen(BEAT_BITS), Widen(arch.rows * arch.data_bits)
        reset = ResetInserter(registers.control.reset)
        m.submodules.datapath, m.submodules.load, m.submodules.image = reset(datapath), reset(load), reset(image)
        m.submodules.score = score = Narrow(arch.rows * arch.acc_bits)
        wiring.connect(m, wiring.flipped(self.s_axi), registers.axi)
        for beats, words, port in ((self.s_axis_load, load, datapath.load), (self.s_axis_image, image, datapath.image)):
            wiring.connect(m, wiring.flipped(beats.t), words.i)
            m.d.comb += [port.valid.eq(words.o.valid), words.o.ready.eq(port.ready)]
        m.d.comb += [
            datapath.load.payload.eq(load.o.payload),
            datapath.image.payload.as_value().eq(image.o.payload),
            score.i.payload.word.eq(datapath.score.payload),
            score.i.payload.last.eq(datapath.last),
            score.i.valid.eq(datapath.score.valid),
            datapath.score.ready.eq(score.i.ready),
            score.drop.eq(registers.control.reset),
        ]
        wiring.connect(m, score.o, wiring.flipped(self.m_axis_score.t))
        m.d.comb += [
            registers.status.busy.eq(datapath.busy | load.o.valid | image.o.valid | score.o.valid),
            registers.status.error.eq(datapath.error),
            registers.status.image.eq(datapath.image.ready),
            registers.status.score.eq(score.o.valid),
            registers.cycles.eq(datapath.cycles),
        ]
        return m


def fingerprint(arch: Arch) -> int:
    """A checksum of an Arch, by which a program's Arch is compared with a machine's: CRC-32 of its sizes as 32-bit words."""
    return crc32(b"".join(size.to_bytes(4, "little") for size in astuple(arch)))
