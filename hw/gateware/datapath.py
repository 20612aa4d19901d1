"""The whole machine: a program comes in, images come in and scores go out, batch after batch."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.arch import Arch, Target
from hw.gateware.external import External, streams
from hw.gateware.loader import Loader
from hw.gateware.mac import Mac
from hw.gateware.requantize import Requantize
from hw.gateware.walker import Walker

LATENCY = 1 + Mac.latency + Requantize.latency
"""Cycles from the last step of a reduction to the first lane's results at the memory: read, multiply and add, requantize."""


class Datapath(wiring.Component):
    """Run programs on batches of `rows` images: what `hw.emulate` says, in the cycles that `hw.cycles` says.

    `load` takes the segments of a program, as `Program.encode` writes them; `image` one element of every image of a batch at a time, in
    the order of their addresses; `score` gives one score of every image at a time, `last` with the last ones of a batch. A segment that
    takes an image and gives scores serves batch after batch, until `load` has another: the next batch comes in while one is computed, and
    its first instruction follows the last one of the batch before. Every other segment runs once. `load` waits while the machine runs.
    Where there is an external memory, `read`, `answer` and `write` go there: `External` says how.
    `error` when what came in was no program (`Loader` says what that is), or when instructions reach the end of the code memory without one
    that ends them: whatever else comes is taken and dropped, until reset. A program may be left between two of its segments by reset only.
    `cycles` counts the cycles in which the machine is `busy`: from a batch's first element to its last score, and where a program comes in.

    Latency and throughput: `hw.cycles.cycles`.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                "load": In(stream.Signature(32)),
                "image": In(stream.Signature(data.ArrayLayout(signed(arch.data_bits), arch.rows))),
                "score": Out(stream.Signature(data.ArrayLayout(signed(arch.acc_bits), arch.rows))),
                **(streams(arch) if arch.external_depth else {}),
                "last": Out(1),
                "busy": Out(1),
                "error": Out(1),
                "cycles": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.arch
        word = self.image.payload.shape()
        m.submodules.loader = loader = Loader(arch)
        m.submodules.walker = walker = Walker(arch)
        m.submodules.mac = mac = Mac(arch)
        m.submodules.requantize = requantize = Requantize(arch)
        m.submodules.code = code = Memory(shape=arch.instruction, depth=arch.code_depth, init=[])
        m.submodules.weights = weights = Memory(shape=arch.words[Target.WEIGHTS], depth=arch.weight_depth, init=[])
        m.submodules.inits = inits = Memory(shape=arch.words[Target.INITS], depth=arch.init_depth, init=[])
        m.submodules.images = images = Memory(shape=word, depth=2 * arch.image_depth, init=[])
        m.submodules.data = elements = Memory(shape=word, depth=arch.data_depth, init=[])
        m.submodules.scores = scores = Memory(shape=self.score.payload.shape(), depth=arch.score_depth, init=[])
        fetch = code.read_port()
        read_w = weights.read_port()
        read_init = inits.read_port()
        read_image = images.read_port()
        write_image = images.write_port()
        read_x = elements.read_port()
        write_y = elements.write_port()
        read_score = scores.read_port()
        write_score = scores.write_port()

        # Program in: the setup completes a segment.
        setup = Signal(arch.setup)
        resident = setup.takes_image & setup.gives_scores
        entry = loader.o.payload
        complete = loader.o.valid & (entry.target == Target.SETUP)
        for target, memory in ((Target.CODE, code), (Target.WEIGHTS, weights), (Target.INITS, inits)):
            port = memory.write_port()
            m.d.comb += [
                port.addr.eq(entry.address),
                port.data.eq(loader.word(target)),
                port.en.eq(loader.o.valid & (entry.target == target)),
            ]
        m.d.comb += [loader.i.payload.eq(self.load.payload), loader.i.valid.eq(self.load.valid & self.load.ready & ~self.error)]

        # Images in: one page of the memory is filled while the other is read.
        filled = Signal(2)  # pages that wait for their first instruction
        taken = Signal(2)  # pages with something of a batch
        fill_page, read_page = Signal(), Signal()
        beat = Signal(arch.address_bits)
        begins, finished = Signal(), Signal()
        fill = self.image.valid & self.image.ready
        last_fill = fill & (write_image.addr[:-1] == setup.image_last)
        m.d.comb += [
            write_image.addr.eq(Cat((setup.image_first + beat)[: len(write_image.addr) - 1], fill_page)),
            write_image.data.eq(self.image.payload),
            write_image.en.eq(fill),
        ]
        with m.If(fill):
            m.d.sync += beat.eq(beat + 1)
        with m.If(last_fill):
            m.d.sync += [beat.eq(0), fill_page.eq(~fill_page)]
        m.d.sync += [
            filled.eq(filled + last_fill - begins),
            taken.eq(taken + (fill & (beat == 0)) - finished),
            read_page.eq(read_page ^ finished),
        ]

        # Control: a segment comes in, then its instructions run one after another.
        number = Signal(arch.address_bits)
        fetched = Signal()
        owed, sending = Signal(), Signal()
        settle = Signal(range(LATENCY + arch.lanes))
        settled = Signal()
        copied = Signal()
        takes = Signal()
        instruction = fetch.data
        sent_all = ~owed & ~self.score.valid
        between = (number == 0) & (taken == 0) & walker.idle & settled & sent_all
        quiet = Signal()
        m.d.sync += quiet.eq(between & ~fill)
        copies = instruction.load | instruction.store
        may_begin = (number != 0) | ~setup.takes_image | (filled != 0)
        may_write = ~(instruction.final & owed)
        may_copy = ~(copies | copied) | (walker.idle & settled)
        m.d.sync += fetched.eq(0)
        with m.FSM() as control:
            with m.State("Load"):
                m.d.comb += self.load.ready.eq(sent_all & ~complete)
                with m.If(complete):
                    m.d.sync += setup.eq(loader.word(Target.SETUP))
                    m.next = "Run"
                with m.If(loader.fault):
                    m.next = "Error"
            # A program that waits comes in before the next batch.
            with m.State("Run"):
                m.d.sync += fetched.eq(~takes)
                m.d.comb += [
                    self.load.ready.eq(resident & quiet & ~complete),
                    self.image.ready.eq(
                        setup.takes_image & ~taken[1] & ~loader.o.valid & ~(resident & self.load.valid & (beat == 0)) | (beat != 0)
                    ),
                    walker.i.valid.eq(fetched & may_begin & may_write & may_copy),
                ]
                with m.If(takes):
                    m.d.sync += [number.eq(number + 1), copied.eq(copies)]
                    with m.If(instruction.end):
                        m.d.sync += [number.eq(0), owed.eq(setup.gives_scores)]
                        with m.If(~resident):
                            m.next = "Settle"
                    with m.Elif(number == arch.code_depth - 1):
                        m.next = "Error"
                with m.If(complete):
                    m.d.sync += setup.eq(loader.word(Target.SETUP))
                with m.Elif(loader.o.valid & (entry.target != Target.NOTE)):
                    m.next = "Load"
                with m.If(loader.fault):
                    m.next = "Error"
            with m.State("Settle"), m.If(walker.idle & settled):
                m.next = "Load"
            with m.State("Error"):
                m.d.comb += [self.error.eq(1), self.load.ready.eq(1), self.image.ready.eq(1)]
        m.d.comb += [
            fetch.addr.eq(number),
            walker.i.payload.eq(instruction),
            takes.eq(walker.i.valid & walker.i.ready),
            begins.eq(takes & (number == 0) & setup.takes_image),
        ]

        # Operands: a step's addresses in one cycle, its marks with what the memories answer in the next.
        at = walker.o.payload
        copying = Signal()
        drains = Signal(range(arch.lanes + 1))
        from_image = Signal()
        step = walker.o.valid & walker.o.ready
        computed = step & ~copying
        x = Mux(from_image, read_image.data.as_value(), read_x.data.as_value())
        m.d.comb += [
            walker.o.ready.eq(~(at.last & (drains > 1))),
            finished.eq(step & at.complete & at.mode.end & setup.gives_scores & (taken != 0)),
            read_image.addr.eq(Cat(at.x[: len(read_image.addr) - 1], read_page)),
            read_x.addr.eq(at.x),
            read_w.addr.eq(at.w),
            read_init.addr.eq(at.init),
            mac.i.payload.x.eq(x),
            mac.i.payload.w.eq(read_w.data),
            mac.i.payload.init.eq(read_init.data),
        ]
        m.d.sync += [
            mac.i.valid.eq(computed),
            mac.i.payload.first.eq(at.first),
            mac.i.payload.last.eq(at.last),
            mac.i.payload.y.eq(at.y),
            mac.i.payload.mode.eq(at.mode),
        ]
        with m.If(read_x.en):
            m.d.sync += from_image.eq(at.x[bits_for(arch.image_address - 1)])
        # `drains` counts the lanes that have not yet left since the latest tile, `settle` the cycles until all of them are written.
        with m.If(computed & at.last):
            m.d.sync += [drains.eq(at.mode.lanes), settle.eq(LATENCY - 1 + at.mode.lanes)]
        with m.Else():
            m.d.sync += [drains.eq(Mux(drains == 0, 0, drains - 1)), settle.eq(Mux(settle == 0, 0, settle - 1))]
        m.d.comb += settled.eq(settle == 0)

        # Words that are copied from or to external memory go past the multipliers.
        if arch.external_depth:
            m.submodules.external = external = External(arch)
            for name in streams(arch):
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(external, name))
            m.d.comb += [
                copying.eq(at.mode.load | at.mode.store),
                external.i.valid.eq(walker.o.valid & copying),
                external.i.payload.eq(Cat(at.mode.load, at.x, at.y)),
                external.word.eq(x),
                read_x.en.eq(external.reading),
                read_image.en.eq(external.reading),
                settled.eq((settle == 0) & external.idle),
            ]
            with m.If(copying):
                m.d.comb += walker.o.ready.eq(external.i.ready)

        # Results go to the data memory, those of final instructions to the scores.
        wiring.connect(m, mac.o, requantize.i)
        result = requantize.o.payload
        m.d.comb += [
            write_y.addr.eq(result.y),
            write_y.data.eq(Cat(number[: arch.data_bits] for number in result.numbers)),
            write_y.en.eq(requantize.o.valid & ~result.mode.final),
            write_score.addr.eq(result.y),
            write_score.data.eq(result.numbers),
            write_score.en.eq(requantize.o.valid & result.mode.final),
        ]
        if arch.external_depth:
            with m.If(external.o.valid):
                m.d.comb += [
                    write_y.addr.eq(external.o.payload.address),
                    write_y.data.eq(external.o.payload.word),
                    write_y.en.eq(1),
                ]

        # Scores out, when all lanes of the last tile are written: the memory's output register holds a score until it is taken.
        closing = Signal.like(settle)
        advance = ~self.score.valid | self.score.ready
        sent = Signal(arch.address_bits)
        with m.If(step & at.complete & at.mode.end & setup.gives_scores):
            m.d.sync += closing.eq(LATENCY - 1 + at.mode.lanes)
        with m.Elif(closing != 0):
            m.d.sync += closing.eq(closing - 1)
        with m.If(closing == 1):
            m.d.sync += sending.eq(1)
        m.d.comb += [
            read_score.addr.eq(setup.score_first + sent),
            read_score.en.eq(advance),
            self.score.payload.eq(read_score.data),
        ]
        with m.If(advance):
            m.d.sync += [self.score.valid.eq(sending), self.last.eq(read_score.addr == setup.score_last)]
        with m.If(advance & sending):
            m.d.sync += sent.eq(sent + 1)
            with m.If(read_score.addr == setup.score_last):
                m.d.sync += [sent.eq(0), sending.eq(0), owed.eq(0)]

        # Status.
        waiting = self.error | control.ongoing("Load") | (control.ongoing("Run") & resident & between & ~fill)
        m.d.comb += self.busy.eq(~waiting | loader.i.valid | loader.o.valid | ~sent_all)
        m.d.sync += self.cycles.eq(self.cycles + self.busy)
        return m
