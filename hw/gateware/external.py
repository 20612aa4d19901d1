"""The way to a large memory outside of the machine: words come in and go out, one a cycle."""

from amaranth import Cat, Module, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.arch import Arch
from hw.gateware.delay import delayed

READ_CYCLES = 2
"""From an address at the data memory to the word in the register behind it."""


class External(wiring.Component):
    """Copy one word a step: on a load from `x` in the external memory to `y` in the data memory, otherwise from `x` there to `y` here.

    A load's `x` leaves on `read`. The memory gives the words that were asked for on `answer`, in their order and as late as it likes; each
    leaves on `o` with its `y`. On a store the data memory gives `word` `READ_CYCLES` after its step; it leaves on `write`. The memory does
    what passes these streams in the order in which it passes: a read finds what was written in earlier cycles.
    Steps cannot be stopped: while `hold`, none may set out, but those that did in the cycle before or earlier find room, if a step comes
    `on_way` cycles after it has set out, or sooner. `idle` when every word of the steps so far is where it belongs.

    Latency: a store's word is on `write` 3 cycles after its step, a load's question on `read` 1 cycle after; its word is on `o` in the
    cycle of its answer. Throughput: 1 word a cycle, on loads if the memory answers within `latency` cycles.
    """

    latency = 16
    room = 16
    """Steps that wait for a stream."""
    on_way = 3

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        word = data.ArrayLayout(signed(arch.data_bits), arch.rows)
        step = data.StructLayout({"load": 1, "x": arch.address_bits, "y": arch.address_bits})
        super().__init__(
            {
                "i": In(stream.Signature(step, always_ready=True)),
                **streams(arch),
                "o": Out(stream.Signature(addressed(arch), always_ready=True)),
                "word": In(word),
                "hold": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = self.i.payload
        bits = self.arch.address_bits

        # Loads: what is asked for, and where the words belong that have been asked for.
        m.submodules.questions = questions = SyncFIFO(width=2 * bits, depth=self.room)
        m.submodules.places = places = SyncFIFO(width=bits, depth=self.latency + 1)
        m.d.comb += [
            questions.w_en.eq(self.i.valid & step.load),
            questions.w_data.eq(Cat(step.x, step.y)),
            self.read.valid.eq(questions.r_rdy & places.w_rdy),
            self.read.payload.eq(questions.r_data[:bits]),
            questions.r_en.eq(self.read.valid & self.read.ready),
            places.w_en.eq(questions.r_en),
            places.w_data.eq(questions.r_data[bits:]),
            self.answer.ready.eq(places.r_rdy),
            places.r_en.eq(self.answer.valid),
            self.o.valid.eq(self.answer.valid & self.answer.ready),
            self.o.payload.address.eq(places.r_data),
            self.o.payload.word.eq(self.answer.payload),
        ]

        # Stores: a word comes behind its step.
        m.submodules.words = words = SyncFIFO(width=self.write.payload.shape().size, depth=self.room)
        stores = [self.i.valid & ~step.load]
        for _ in range(READ_CYCLES):
            stores.append(delayed(m, stores[-1]))
        m.d.comb += [
            words.w_en.eq(stores[-1]),
            words.w_data.eq(Cat(delayed(m, step.y, READ_CYCLES), self.word)),
            self.write.valid.eq(words.r_rdy),
            self.write.payload.eq(words.r_data),
            words.r_en.eq(self.write.ready),
        ]

        # A step that sets out in the next cycle comes behind those on their way now, and those of this one.
        enough = self.room - (self.on_way + READ_CYCLES + 2)
        m.d.sync += self.hold.eq((questions.level > enough) | (words.level > enough))
        m.d.comb += self.idle.eq(~Cat(self.i.valid, *stores, questions.r_rdy, places.r_rdy, words.r_rdy).any())
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
