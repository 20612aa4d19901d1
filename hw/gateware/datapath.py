"""The whole machine: a program comes in, images come in and scores go out, batch after batch."""

from dataclasses import replace

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.arch import Arch, Target
from hw.gateware.delay import delayed, registered
from hw.gateware.external import External, streams
from hw.gateware.fetcher import Fetcher
from hw.gateware.loader import Loader
from hw.gateware.tile import LATENCY, Tile, fill, operation
from hw.gateware.walker import Walker


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
        m.submodules.loader = loader = Loader(arch)
        m.submodules.fetcher = fetcher = Fetcher(arch)
        m.submodules.walker = walker = Walker(arch)
        m.submodules.weights = weights = Memory(shape=arch.words[Target.WEIGHTS], depth=arch.weight_depth, init=[])
        m.submodules.inits = inits = Memory(shape=arch.words[Target.INITS], depth=arch.init_depth, init=[])
        read_w, read_init = weights.read_port(), inits.read_port()
        tiles = [Tile(replace(arch, rows=arch.rows // arch.tiles, tiles=1)) for _ in range(arch.tiles)]
        for number, tile in enumerate(tiles):
            m.submodules[f"tile_{number}"] = tile

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
        fills = self.image.valid & self.image.ready
        last_fill = fills & (fill_at == setup.image_last)
        m.d.comb += taken_next.eq(taken + (fills & ~partial) - finished)
        m.d.sync += [filled.eq(filled + last_fill - begins), taken.eq(taken_next), read_page.eq(read_page ^ finished)]
        with m.If(last_fill):
            m.d.sync += [partial.eq(0), fill_at.eq(setup.image_first), fill_page.eq(~fill_page)]
        with m.Elif(fills):
            m.d.sync += [partial.eq(1), fill_at.eq(fill_at + 1)]
        with m.Elif(~partial):
            m.d.sync += fill_at.eq(setup.image_first)

        # Control: a segment comes in, then its instructions run one after another. What a cycle decides on was found out in the one before.
        owed, sending = Signal(), Signal()
        settle = Signal(range(LATENCY + arch.lanes + arch.tiles - 1))
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
                    open_for_load.eq(resident & between & ~fills & ~complete & ~(loading & loader.closes)),
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

        # Steps go to the first tile, and a cycle later each to the next one; so do the weights for them, and images.
        at, step = walker.o.payload, walker.o.valid
        m.d.comb += [
            finished.eq(step & at.complete & at.mode.end & setup.gives_scores & (taken != 0)),
            read_w.addr.eq(at.w),
            read_init.addr.eq(at.init),
        ]
        operated, filling = Signal(operation(arch)), Signal(fill(arch))
        m.d.comb += [operated[name].eq(at[name]) for name in ("x", "y", "first", "last", "mode")]
        m.d.comb += [operated.page.eq(read_page), filling.page.eq(fill_page), filling.address.eq(fill_at)]
        m.d.comb += filling.word.eq(self.image.payload)
        arrives = [step, operated, registered(m, read_w.data), registered(m, read_init.data), delayed(m, fills), delayed(m, filling)]
        rows = arch.rows // arch.tiles
        for number, tile in enumerate(tiles):
            if number:
                arrives = [delayed(m, value) for value in arrives]
            valid, doing, w, init, fill_valid, word = arrives
            m.d.comb += [
                tile.i.valid.eq(valid),
                tile.i.payload.eq(doing),
                tile.w.eq(w),
                tile.init.eq(init),
                tile.image.valid.eq(fill_valid),
                tile.image.payload.address.eq(word.address),
                tile.image.payload.page.eq(word.page),
                *(tile.image.payload.word[row].eq(word.word[number * rows + row]) for row in range(rows)),
            ]
        # `settle` counts the cycles until all lanes of the latest reduction are written, in all tiles.
        written = LATENCY - 2 + arch.tiles + at.mode.lanes
        copies_word = at.mode.load | at.mode.store
        with m.If(step & at.last & ~copies_word):
            m.d.sync += settle.eq(written)
        with m.Elif(settle != 0):
            m.d.sync += settle.eq(settle - 1)
        m.d.comb += settled.eq(settle == 0)

        # Words that are copied from or to external memory.
        if arch.external_depth:
            (tile,) = tiles
            m.submodules.external = external = External(arch)
            for name in streams(arch):
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(external, name))
            m.d.comb += [
                external.i.valid.eq(step & copies_word),
                external.i.payload.eq(Cat(at.mode.load, at.x, at.y)),
                external.word.eq(tile.x),
                walker.hold.eq(external.hold),
                settled.eq((settle == 0) & external.idle),
            ]
            wiring.connect(m, external.o, tile.copied)

        # Scores out, when all lanes of the last tile are written: the memory's output register and one behind it hold what waits.
        closing = Signal.like(settle)
        advance = ~self.score.valid | self.score.ready
        sent = Signal(arch.address_bits)
        at_end, ends = sent == setup.score_last, Signal()
        score = Signal.like(self.score.payload, reset_less=True)
        m.d.comb += self.score.payload.eq(score)
        with m.If(step & at.complete & at.mode.end & setup.gives_scores):
            m.d.sync += closing.eq(written)
        with m.Elif(closing != 0):
            m.d.sync += closing.eq(closing - 1)
        with m.If(closing == 1):
            m.d.sync += sending.eq(1)
        m.d.comb += [wire for tile in tiles for wire in (tile.score_at.eq(sent), tile.reads_score.eq(advance))]
        with m.If(~sending):
            m.d.sync += sent.eq(setup.score_first)
        with m.If(advance):
            m.d.sync += [sends.eq(sending), ends.eq(at_end), self.score.valid.eq(sends), self.last.eq(ends)]
            m.d.sync += score.eq(Cat(tile.score for tile in tiles))
        with m.If(advance & sending):
            m.d.sync += sent.eq(sent + 1)
            with m.If(at_end):
                m.d.sync += [sending.eq(0), owed.eq(0)]

        # Status.
        waiting = self.error | control.ongoing("Load") | (control.ongoing("Run") & resident & between & ~fills)
        m.d.comb += self.busy.eq(~waiting | loading | loader.o.valid | ~sent_all)
        m.d.sync += self.cycles.eq(self.cycles + self.busy)
        return m
