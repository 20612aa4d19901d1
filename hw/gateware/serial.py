"""The machine behind a serial port: two wires for programs, images, scores and registers."""

from amaranth import Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from hw.arch import Arch
from hw.gateware.axi import AxiDatapath
from hw.gateware.bridge import PACKET_BITS, Bridge
from hw.gateware.narrow import Narrow
from hw.gateware.receiver import Receiver
from hw.gateware.transmitter import Transmitter
from hw.gateware.widen import Widen

WINDOW = 256
"""Requests that a host may send before it has the first one's answer."""


class SerialDatapath(wiring.Component):
    """An `AxiDatapath` that is asked by bytes on the line `rx` and answers on `tx`: packets as `Bridge` has them, the lowest byte first.

    A bit of a line takes `bit_cycles` cycles. What has come of a request is forgotten when the line is silent for `patience` cycles, for
    as long as which a word may also wait for the machine: by then every request was answered, or has lost a byte.

    Latency and throughput: 6 bytes each way for every word.
    """

    def __init__(self, arch: Arch, bit_cycles: int, patience: int) -> None:
        self.machine = AxiDatapath(arch)
        self.bit_cycles, self.patience = bit_cycles, patience
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        silent, silence = Signal(), Signal(range(self.patience + 1))
        m.submodules.receiver = receiver = Receiver(self.bit_cycles)
        packet = Widen(PACKET_BITS, 8)
        m.submodules.packet = ResetInserter(silent)(packet)
        m.submodules.waiting = waiting = SyncFIFOBuffered(width=PACKET_BITS, depth=WINDOW)
        m.submodules.bridge = bridge = Bridge(self.patience)
        m.submodules.machine = machine = self.machine
        m.submodules.answer = answer = Narrow(PACKET_BITS, 8)
        m.submodules.transmitter = transmitter = Transmitter(self.bit_cycles)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            packet.i.valid.eq(receiver.o.valid),
            packet.i.payload.data.eq(receiver.o.payload),
            silent.eq(silence == self.patience),
            answer.i.valid.eq(bridge.o.valid),
            answer.i.payload.word.eq(bridge.o.payload),
            bridge.o.ready.eq(answer.i.ready),
            transmitter.i.valid.eq(answer.o.valid),
            transmitter.i.payload.eq(answer.o.payload.data),
            answer.o.ready.eq(transmitter.i.ready),
            self.tx.eq(transmitter.tx),
        ]
        with m.If(receiver.o.valid | silent):
            m.d.sync += silence.eq(0)
        with m.Else():
            m.d.sync += silence.eq(silence + 1)
        wiring.connect(m, packet.o, waiting.w_stream)
        wiring.connect(m, waiting.r_stream, bridge.i)
        wiring.connect(m, bridge.axi, machine.s_axi)
        wiring.connect(m, bridge.load, machine.s_axis_load)
        wiring.connect(m, bridge.image, machine.s_axis_image)
        wiring.connect(m, machine.m_axis_score, bridge.score)
        return m
