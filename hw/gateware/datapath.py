"""The whole machine: a program comes in, images come in and scores go out, batch after batch."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

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
    the order of their addresses; `score` gives one score of every image at a time. A segment that takes an image and gives scores serves
    batch after batch, the next of which may come in while scores go out, until `load` has another; every other one runs once. `load` waits
    while the machine runs.
    Where there is an external memory, `read`, `answer` and `write` go there: `External` says how.
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
                "busy": Out(1),
                "cycles": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.arch
        m.submodules.loader = loader = Loader(arch)
        m.submodules.walker = walker = Walker(arch)
        m.submodules.mac = mac = Mac(arch)
        m.submodules.requantize = requantize = Requantize(arch)
        m.submodules.code = code = Memory(shape=arch.instruction, depth=arch.code_depth, init=[])
        m.submodules.weights = weights = Memory(shape=arch.words[Target.WEIGHTS], depth=arch.weight_depth, init=[])
        m.submodules.inits = inits = Memory(shape=arch.words[Target.INITS], depth=arch.init_depth, init=[])
        m.submodules.data = elements = Memory(shape=self.image.payload.shape(), depth=arch.data_depth, init=[])
        m.submodules.scores = scores = Memory(shape=self.score.payload.shape(), depth=arch.score_depth, init=[])
        fetch = code.read_port()
        read_w = weights.read_port()
        read_init = inits.read_port()
        read_x = elements.read_port()
        write_y = elements.write_port()
        read_score = scores.read_port()
        write_score = scores.write_port()
        instruction = fetch.data

        # Program in.
        setup = Signal(arch.setup)
        resident = setup.takes_image & setup.gives_scores
        entry = loader.o.payload
        entering = Signal()
        for target, memory in ((Target.CODE, code), (Target.WEIGHTS, weights), (Target.INITS, inits)):
            port = memory.write_port()
            m.d.comb += [
                port.addr.eq(entry.address),
                port.data.eq(loader.word(target)),
                port.en.eq(loader.o.valid & (entry.target == target)),
            ]
        m.d.comb += [
            loader.i.payload.eq(self.load.payload),
            loader.i.valid.eq(self.load.valid & self.load.ready),
            entering.eq(loader.i.valid | loader.o.valid),
        ]

        # Control: a segment comes in, image words come in, instructions run one after another, scores go out meanwhile.
        beat = Signal(arch.address_bits)
        number = Signal(arch.address_bits)
        sending = Signal()
        sent_all = ~sending & ~self.score.valid
        settle = Signal(range(LATENCY + arch.lanes))
        settled = Signal()
        with m.FSM() as control:
            with m.State("Load"):
                complete = loader.o.valid & (entry.target == Target.SETUP)
                m.d.comb += self.load.ready.eq(sent_all & ~complete)
                with m.If(complete):
                    m.d.sync += setup.eq(loader.word(Target.SETUP))
                    m.next = "Fetch"
                    with m.If(data.View(arch.setup, loader.word(Target.SETUP)[: arch.setup.size]).takes_image):
                        m.next = "Fill"
            # Another program that waits comes in before the next batch.
            with m.State("Fill"):
                between = resident & (beat == 0)
                m.d.comb += [
                    self.load.ready.eq(between & sent_all),
                    self.image.ready.eq(~(between & self.load.valid) & ~loader.o.valid),
                ]
                with m.If(loader.o.valid & (entry.target != Target.NOTE)):
                    m.next = "Load"
                with m.Elif(self.image.valid & self.image.ready):
                    m.d.sync += beat.eq(beat + 1)
                    with m.If(write_y.addr == setup.image_last):
                        m.d.sync += beat.eq(0)
                        m.next = "Fetch"
            # The first instruction waits for the scores of the batch before.
            with m.State("Fetch"), m.If(~sending):
                m.next = "Walk"
            with m.State("Walk"):
                m.d.comb += walker.i.valid.eq(1)
                with m.If(walker.i.ready):
                    m.next = "Settle"
            with m.State("Settle"), m.If(settled):
                m.d.sync += number.eq(number + 1)
                m.next = "Fetch"
                with m.If(number == setup.code_last):
                    m.d.sync += [number.eq(0), sending.eq(setup.gives_scores)]
                    m.next = "Load"
                    with m.If(resident):
                        m.next = "Fill"
        m.d.comb += [fetch.addr.eq(number), walker.i.payload.eq(instruction)]

        # Operands: a step's addresses in one cycle, its marks with what the memories answer in the next.
        at = walker.o.payload
        copying = Signal()
        step = Signal()
        last = Signal()
        m.d.comb += [
            walker.o.ready.eq(~(at.last & (settle > LATENCY))),
            settled.eq(settle == 0),
            step.eq(walker.o.valid & walker.o.ready & ~copying),
            last.eq(step & at.last),
            read_x.addr.eq(at.x),
            read_w.addr.eq(at.w),
            read_init.addr.eq(at.init),
            mac.i.payload.x.eq(read_x.data),
            mac.i.payload.w.eq(read_w.data),
            mac.i.payload.init.eq(read_init.data),
            mac.lanes.eq(instruction.lanes),
            mac.maximum.eq(instruction.maximum),
        ]
        m.d.sync += [
            mac.i.valid.eq(step),
            mac.i.payload.first.eq(at.first),
            mac.i.payload.last.eq(at.last),
        ]
        # `settle` counts down until all lanes of the latest tile are written; while it exceeds LATENCY they have not all been drained.
        with m.If(last):
            m.d.sync += settle.eq(LATENCY - 1 + instruction.lanes)
        with m.Elif(settle != 0):
            m.d.sync += settle.eq(settle - 1)

        # Words that are copied from or to external memory go past the multipliers.
        if arch.external_depth:
            m.submodules.external = external = External(arch)
            for name in streams(arch):
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(external, name))
            m.d.comb += [
                copying.eq(instruction.load | instruction.store),
                external.i.valid.eq(walker.o.valid & copying),
                external.i.payload.eq(Cat(instruction.load, at.x, at.y)),
                external.word.eq(read_x.data),
                read_x.en.eq(external.reading),
            ]
            with m.If(copying):
                m.d.comb += [walker.o.ready.eq(external.i.ready), settled.eq(external.idle)]

        # Results: the first lane of a tile goes where its last step said, LATENCY cycles ago; the others follow at `lane_y`.
        tile = data.StructLayout({"first": 1, "y": arch.address_bits})
        flying = Signal(data.ArrayLayout(tile, LATENCY))
        landing = flying[LATENCY - 1]
        y = Signal(arch.address_bits)
        next_y = Signal(arch.address_bits)
        wiring.connect(m, mac.o, requantize.i)
        m.d.sync += [flying.eq(Cat(last, at.y, flying)), next_y.eq(y + instruction.lane_y)]
        m.d.comb += [
            requantize.shift.eq(instruction.shift),
            requantize.relu.eq(instruction.relu),
            requantize.saturate.eq(instruction.saturate),
            y.eq(Mux(landing.first, landing.y, next_y)),
            write_score.addr.eq(y),
            write_score.data.eq(requantize.o.payload),
            write_score.en.eq(requantize.o.valid & instruction.final),
        ]
        with m.If(control.ongoing("Fill")):
            m.d.comb += [
                write_y.addr.eq(setup.image_first + beat),
                write_y.data.eq(self.image.payload),
                write_y.en.eq(self.image.valid & self.image.ready),
            ]
        if arch.external_depth:
            with m.Elif(copying):
                m.d.comb += [
                    write_y.addr.eq(external.o.payload.address),
                    write_y.data.eq(external.o.payload.word),
                    write_y.en.eq(external.o.valid),
                ]
        with m.Else():
            m.d.comb += [
                write_y.addr.eq(y),
                write_y.data.eq(Cat(result[: arch.data_bits] for result in requantize.o.payload)),
                write_y.en.eq(requantize.o.valid & ~instruction.final),
            ]

        # Scores out: the memory's output register holds a score until it is taken.
        advance = Signal()
        sent = Signal(arch.address_bits)
        m.d.comb += [
            advance.eq(~self.score.valid | self.score.ready),
            read_score.addr.eq(setup.score_first + sent),
            read_score.en.eq(advance),
            self.score.payload.eq(read_score.data),
        ]
        with m.If(advance):
            m.d.sync += self.score.valid.eq(sending)
        with m.If(advance & sending):
            m.d.sync += sent.eq(sent + 1)
            with m.If(read_score.addr == setup.score_last):
                m.d.sync += [sent.eq(0), sending.eq(0)]

        # Status.
        begun = (beat != 0) | (self.image.valid & self.image.ready)
        waiting = control.ongoing("Load") | (control.ongoing("Fill") & ~begun)
        m.d.comb += self.busy.eq(~waiting | entering | ~sent_all)
        m.d.sync += self.cycles.eq(self.cycles + self.busy)
        return m
