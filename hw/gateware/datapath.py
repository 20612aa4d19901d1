"""The whole machine: a program comes in, images come in and scores go out, batch after batch."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.arch import Arch, Target
from hw.gateware.external import READ_CYCLES, External, streams
from hw.gateware.fetcher import Fetcher
from hw.gateware.loader import Loader
from hw.gateware.mac import Mac
from hw.gateware.pipeline import delayed
from hw.gateware.requantize import Requantize
from hw.gateware.walker import Walker

LATENCY = READ_CYCLES + Mac.latency + Requantize.latency
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
        m.submodules.fetcher = fetcher = Fetcher(arch)
        m.submodules.walker = walker = Walker(arch)
        m.submodules.mac = mac = Mac(arch)
        m.submodules.requantize = requantize = Requantize(arch)
        m.submodules.weights = weights = Memory(shape=arch.words[Target.WEIGHTS], depth=arch.weight_depth, init=[])
        m.submodules.inits = inits = Memory(shape=arch.words[Target.INITS], depth=arch.init_depth, init=[])
        m.submodules.images = images = Memory(shape=word, depth=2 * arch.image_depth, init=[])
        m.submodules.data = elements = Memory(shape=word, depth=arch.data_depth, init=[])
        m.submodules.scores = scores = Memory(shape=self.score.payload.shape(), depth=arch.score_depth, init=[])
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
        is_for = {target: Signal(name=f"is_{target.name.lower()}") for target in Target}
        m.d.sync += [goes.eq(entry.target == target) for target, goes in is_for.items()]  # a heading comes a cycle before its words
        complete = loader.o.valid & is_for[Target.SETUP]
        write_ports = {Target.CODE: fetcher.write, Target.WEIGHTS: weights.write_port(), Target.INITS: inits.write_port()}
        for target, port in write_ports.items():
            m.d.comb += [
                port.addr.eq(entry.address),
                port.data.eq(loader.word(target)),
                port.en.eq(loader.o.valid & is_for[target]),
            ]
        loading = Signal()
        m.d.comb += [
            loading.eq(self.load.valid & self.load.ready & ~self.error),
            loader.i.payload.eq(self.load.payload),
            loader.i.valid.eq(loading),
        ]

        # Images in: one page of the memory is filled while the other is read.
        filled = Signal(2)  # pages that wait for their first instruction
        taken, taken_next = Signal(2), Signal(2)  # pages with something of a batch
        fill_page, read_page = Signal(), Signal()
        fill_at = Signal(arch.address_bits)
        partial = Signal()
        begins, finished = Signal(), Signal()
        fill = self.image.valid & self.image.ready
        last_fill = fill & (fill_at == setup.image_last)
        m.d.comb += [
            write_image.addr.eq(delayed(m, Cat(fill_at[: len(write_image.addr) - 1], fill_page))),
            write_image.data.eq(delayed(m, self.image.payload)),
            write_image.en.eq(delayed(m, fill)),
            taken_next.eq(taken + (fill & ~partial) - finished),
        ]
        m.d.sync += [filled.eq(filled + last_fill - begins), taken.eq(taken_next), read_page.eq(read_page ^ finished)]
        with m.If(last_fill):
            m.d.sync += [partial.eq(0), fill_at.eq(setup.image_first), fill_page.eq(~fill_page)]
        with m.Elif(fill):
            m.d.sync += [partial.eq(1), fill_at.eq(fill_at + 1)]
        with m.Elif(~partial):
            m.d.sync += fill_at.eq(setup.image_first)

        # Control: a segment comes in, then its instructions run one after another. What a cycle decides on was found out in the one before.
        owed, sending = Signal(), Signal()
        settle = Signal(range(LATENCY + arch.lanes))
        settled = Signal()
        copied = Signal()
        open_for_load, open_for_image, may = Signal(), Signal(), Signal()
        takes = Signal()
        took = delayed(m, takes)
        instruction = fetcher.o.payload
        sends = Signal()
        sent_all = ~owed & ~sends & ~self.score.valid
        between = (taken == 0) & walker.idle & settled & sent_all
        copies = instruction.load | instruction.store
        may_begin = ~fetcher.first | ~setup.takes_image | (filled != 0)
        may_write = ~(instruction.final & owed)
        may_copy = ~(copies | copied) | (walker.idle & settled)
        m.d.sync += [
            open_for_load.eq(0),
            open_for_image.eq(0),
            may.eq(fetcher.o.valid & may_begin & may_write & may_copy & ~takes & ~took),
        ]
        m.d.comb += [self.load.ready.eq(open_for_load), self.image.ready.eq(open_for_image & ~(resident & self.load.valid) | partial)]
        with m.FSM() as control:
            with m.State("Load"):
                m.d.comb += fetcher.stop.eq(1)
                m.d.sync += open_for_load.eq(sent_all & ~complete & ~(loading & loader.closes))
                with m.If(complete):
                    m.d.sync += setup.eq(loader.word(Target.SETUP))
                    m.next = "Run"
                with m.If(loader.fault):
                    m.next = "Error"
            # A program that waits comes in before the next batch.
            with m.State("Run"):
                m.d.comb += walker.i.valid.eq(may)
                m.d.sync += [
                    open_for_load.eq(resident & between & ~fill & ~complete & ~(loading & loader.closes)),
                    open_for_image.eq(setup.takes_image & ~taken_next[1] & ~loading & ~loader.o.valid),
                ]
                with m.If(takes):
                    m.d.sync += copied.eq(copies)
                with m.If(takes & instruction.end):
                    m.d.sync += owed.eq(setup.gives_scores)
                    with m.If(~resident):
                        m.next = "Settle"
                with m.If(complete):
                    m.d.sync += setup.eq(loader.word(Target.SETUP))
                with m.Elif(loader.o.valid & ~is_for[Target.NOTE]):
                    m.next = "Load"
                with m.If(loader.fault | fetcher.beyond):
                    m.next = "Error"
            with m.State("Settle"), m.If(walker.idle & settled):
                m.next = "Load"
            with m.State("Error"):
                m.d.comb += [self.error.eq(1), self.load.ready.eq(1), self.image.ready.eq(1)]
        m.d.comb += [
            takes.eq(walker.i.valid & walker.i.ready),
            walker.i.payload.eq(instruction),
            fetcher.o.ready.eq(took),
            begins.eq(takes & fetcher.first & setup.takes_image),
        ]

        # Operands: a step's addresses, then what the memories answer, then that in registers, where its marks meet it.
        at = walker.o.payload
        step = walker.o.valid
        copying = Signal()
        computed = step & ~copying
        from_image = delayed(m, at.x[bits_for(arch.image_address - 1)], READ_CYCLES)
        image_word, data_word = delayed(m, read_image.data), delayed(m, read_x.data)
        x = Mux(from_image, image_word.as_value(), data_word.as_value())
        m.d.comb += [
            finished.eq(step & at.complete & at.mode.end & setup.gives_scores & (taken != 0)),
            read_image.addr.eq(Cat(at.x[: len(read_image.addr) - 1], read_page)),
            read_x.addr.eq(at.x),
            read_w.addr.eq(at.w),
            read_init.addr.eq(at.init),
            mac.i.valid.eq(delayed(m, computed, READ_CYCLES)),
            mac.i.payload.x.eq(x),
            mac.i.payload.w.eq(delayed(m, read_w.data)),
            mac.i.payload.init.eq(delayed(m, read_init.data)),
            *(mac.i.payload[name].eq(delayed(m, at[name], READ_CYCLES)) for name in ("first", "last", "y", "mode")),
        ]
        # `settle` counts the cycles until all lanes of the latest tile are written.
        with m.If(computed & at.last):
            m.d.sync += settle.eq(LATENCY - 1 + at.mode.lanes)
        with m.Elif(settle != 0):
            m.d.sync += settle.eq(settle - 1)
        m.d.comb += settled.eq(settle == 0)

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

        # Words that are copied from or to external memory go past the multipliers.
        if arch.external_depth:
            m.submodules.external = external = External(arch)
            for name in streams(arch):
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(external, name))
            m.d.comb += [
                copying.eq(at.mode.load | at.mode.store),
                external.i.valid.eq(step & copying),
                external.i.payload.eq(Cat(at.mode.load, at.x, at.y)),
                external.word.eq(x),
                walker.hold.eq(external.hold),
                settled.eq((settle == 0) & external.idle),
            ]
            with m.If(external.o.valid):
                m.d.comb += [
                    write_y.addr.eq(external.o.payload.address),
                    write_y.data.eq(external.o.payload.word),
                    write_y.en.eq(1),
                ]

        # Scores out, when all lanes of the last tile are written: the memory's output register and one behind it hold what waits.
        closing = Signal.like(settle)
        advance = ~self.score.valid | self.score.ready
        sent = Signal(arch.address_bits)
        at_end, ends = sent == setup.score_last, Signal()
        with m.If(step & at.complete & at.mode.end & setup.gives_scores):
            m.d.sync += closing.eq(LATENCY - 1 + at.mode.lanes)
        with m.Elif(closing != 0):
            m.d.sync += closing.eq(closing - 1)
        with m.If(closing == 1):
            m.d.sync += sending.eq(1)
        m.d.comb += [read_score.addr.eq(sent), read_score.en.eq(advance)]
        with m.If(~sending):
            m.d.sync += sent.eq(setup.score_first)
        with m.If(advance):
            m.d.sync += [sends.eq(sending), ends.eq(at_end), self.score.valid.eq(sends), self.last.eq(ends)]
            m.d.sync += self.score.payload.eq(read_score.data)
        with m.If(advance & sending):
            m.d.sync += sent.eq(sent + 1)
            with m.If(at_end):
                m.d.sync += [sending.eq(0), owed.eq(0)]

        # Status.
        waiting = self.error | control.ongoing("Load") | (control.ongoing("Run") & resident & between & ~fill)
        m.d.comb += self.busy.eq(~waiting | loading | loader.o.valid | ~sent_all)
        m.d.sync += self.cycles.eq(self.cycles + self.busy)
        return m
