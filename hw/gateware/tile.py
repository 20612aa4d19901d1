"""A part of the machine's rows: everything that is there for each of them."""

from amaranth import Cat, Module, Mux, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.arch import Arch, Target
from hw.gateware.delay import delayed, registered
from hw.gateware.external import READ_CYCLES, addressed
from hw.gateware.mac import Mac
from hw.gateware.requantize import Requantize

LATENCY = READ_CYCLES + Mac.latency + Requantize.latency
"""Cycles from the last step of a reduction to the first lane's results at the memory: read, multiply and add, requantize."""


class Tile(wiring.Component):
    """Compute a step's products and sums for some images, whose elements, results and scores lie here.

    `i` says where its operands are and what for; `w` and `init`, which all rows share, come `READ_CYCLES` later. Of a step that copies only
    the word is read: it is `x`, `READ_CYCLES` later; `copied` is one that comes. `image` fills the page of the image memory that it names,
    while a step reads the page that it names. `score` is the one at `score_at`, a cycle later, while `reads_score`.

    Latency: `LATENCY` cycles from the last step of a reduction to its first lane's results. Throughput: 1 step a cycle.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                "i": In(stream.Signature(operation(arch), always_ready=True)),
                "w": In(arch.words[Target.WEIGHTS]),
                "init": In(arch.words[Target.INITS]),
                "image": In(stream.Signature(fill(arch), always_ready=True)),
                "copied": In(stream.Signature(addressed(arch), always_ready=True)),
                "x": Out(data.ArrayLayout(signed(arch.data_bits), arch.rows)),
                "score_at": In(arch.address_bits),
                "reads_score": In(1),
                "score": Out(data.ArrayLayout(signed(arch.acc_bits), arch.rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.arch
        m.submodules.mac = mac = Mac(arch)
        m.submodules.requantize = requantize = Requantize(arch)
        m.submodules.images = images = Memory(shape=self.x.shape(), depth=2 * arch.image_depth, init=[])
        m.submodules.data = elements = Memory(shape=self.x.shape(), depth=arch.data_depth, init=[])
        m.submodules.scores = scores = Memory(shape=self.score.shape(), depth=arch.score_depth, init=[])
        write_image, read_image = images.write_port(), images.read_port()
        write_y, read_x = elements.write_port(), elements.read_port()
        write_score, read_score = scores.write_port(), scores.read_port()
        page_bits = len(read_image.addr) - 1

        # Operands: what the memories answer lies in a register before anything looks at it.
        at = self.i.payload
        from_image = delayed(m, at.x[bits_for(arch.image_address - 1)], READ_CYCLES)
        m.d.comb += [
            read_image.addr.eq(Cat(at.x[:page_bits], at.page)),
            read_x.addr.eq(at.x),
            self.x.eq(Mux(from_image, registered(m, read_image.data).as_value(), registered(m, read_x.data).as_value())),
            mac.i.valid.eq(delayed(m, self.i.valid & ~at.mode.load & ~at.mode.store, READ_CYCLES)),
            mac.i.payload.x.eq(self.x),
            mac.i.payload.w.eq(self.w),
            mac.i.payload.init.eq(self.init),
            *(mac.i.payload[name].eq(delayed(m, at[name], READ_CYCLES)) for name in ("first", "last", "y", "mode")),
        ]

        # Results go to the data memory, those of final instructions to the scores; copied words past the multipliers.
        wiring.connect(m, mac.o, requantize.i)
        result, copied = requantize.o.payload, self.copied.payload
        m.d.comb += [
            write_y.addr.eq(Mux(self.copied.valid, copied.address, result.y)),
            write_y.data.eq(Mux(self.copied.valid, copied.word.as_value(), Cat(number[: arch.data_bits] for number in result.numbers))),
            write_y.en.eq(self.copied.valid | (requantize.o.valid & ~result.mode.final)),
            write_score.addr.eq(result.y),
            write_score.data.eq(result.numbers),
            write_score.en.eq(requantize.o.valid & result.mode.final),
        ]

        # Images in, scores out.
        m.d.comb += [
            write_image.addr.eq(Cat(self.image.payload.address[:page_bits], self.image.payload.page)),
            write_image.data.eq(self.image.payload.word),
            write_image.en.eq(self.image.valid),
            read_score.addr.eq(self.score_at),
            read_score.en.eq(self.reads_score),
            self.score.eq(read_score.data),
        ]
        return m


def operation(arch: Arch) -> data.StructLayout:
    """One step for a tile: where its elements are and its result goes, what it begins and ends, and its mode."""
    addresses = {"x": arch.address_bits, "y": arch.address_bits}
    return data.StructLayout({**addresses, "page": 1, "first": 1, "last": 1, "mode": arch.mode})


def fill(arch: Arch) -> data.StructLayout:
    """A word of images and where it goes."""
    return data.StructLayout({**addressed(arch).members, "page": 1})
