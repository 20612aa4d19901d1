"""The way to a large memory outside of the machine: words come in and go out, one a cycle."""

from amaranth import Module, Mux, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.arch import Arch


class External(wiring.Component):
    """Copy one word a step: on a load from `x` in the external memory to `y` in the data memory, otherwise from `x` there to `y` here.

    A load's `x` leaves on `read`. The memory gives the words that were asked for on `answer`, in their order and as late as it likes; each
    leaves on `o` with its `y`. On a store the data memory, read only while `reading`, gives `word` a cycle after its step; it leaves on
    `write`. The memory does what passes these streams in the order in which it passes: a read finds what was written in earlier cycles.
    `idle` when every word of the steps so far is where it belongs, or leaves on `write` in this cycle.

    Latency: a store's word is on `write` 1 cycle after its step, a load's on `o` in the cycle of its answer. Throughput: 1 word a cycle, on
    loads if the memory answers within `latency` cycles.
    """

    latency = 16

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        word = data.ArrayLayout(signed(arch.data_bits), arch.rows)
        step = data.StructLayout({"load": 1, "x": arch.address_bits, "y": arch.address_bits})
        super().__init__(
            {
                "i": In(stream.Signature(step)),
                **streams(arch),
                "o": Out(stream.Signature(addressed(arch), always_ready=True)),
                "reading": Out(1),
                "word": In(word),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = self.i.payload

        # Loads: where the words belong that have been asked for.
        m.submodules.places = places = SyncFIFO(width=self.arch.address_bits, depth=self.latency + 1)
        m.d.comb += [
            self.read.valid.eq(self.i.valid & step.load & places.w_rdy),
            self.read.payload.eq(step.x),
            places.w_en.eq(self.read.valid & self.read.ready),
            places.w_data.eq(step.y),
            self.answer.ready.eq(places.r_rdy),
            places.r_en.eq(self.answer.valid),
            self.o.valid.eq(self.answer.valid & self.answer.ready),
            self.o.payload.address.eq(places.r_data),
            self.o.payload.word.eq(self.answer.payload),
        ]

        # Stores: the data memory's output register holds a word until it is taken.
        m.d.comb += [
            self.reading.eq(~self.write.valid | self.write.ready),
            self.write.payload.word.eq(self.word),
            self.i.ready.eq(Mux(step.load, places.w_rdy & self.read.ready, self.reading)),
            self.idle.eq(self.reading & ~places.r_rdy),
        ]
        with m.If(self.reading):
            m.d.sync += [self.write.valid.eq(self.i.valid & ~step.load), self.write.payload.address.eq(step.y)]
        return m


def streams(arch: Arch) -> dict[str, wiring.Member]:
    """The streams to and from the memory, as the machine sees them."""
    return {
        "read": Out(stream.Signature(arch.address_bits)),
        "answer": In(stream.Signature(data.ArrayLayout(signed(arch.data_bits), arch.rows))),
        "write": Out(stream.Signature(addressed(arch))),
    }


def addressed(arch: Arch) -> data.StructLayout:
    """A data word and where it goes."""
    return data.StructLayout({"address": arch.address_bits, "word": data.ArrayLayout(signed(arch.data_bits), arch.rows)})
