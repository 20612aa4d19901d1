"""The whole machine: a program comes in once, then images come in and scores go out, batch after batch."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.arch import Arch, Target
from hw.gateware.loader import Loader
from hw.gateware.mac import Mac
from hw.gateware.requantize import Requantize
from hw.gateware.walker import Walker

LATENCY = 1 + Mac.latency + Requantize.latency
"""Cycles from the last step of a reduction to the first lane's results at the memory: read, multiply and add, requantize."""


class Datapath(wiring.Component):
    """Run a loaded program on every batch of `rows` images: what `hw.emulate` says, in the cycles that `hw.cycles` says.

    `load` takes the program, as `Program.encode` writes it; `image` one element of every image of a batch at a time, in the order of
    their addresses; `score` gives one score of every image at a time. The next batch may come in while scores go out. `busy` from the
    first element of a batch to its last score; `cycles` counts the cycles in which it was. A program must not come in while `busy`.

    Latency and throughput: `hw.cycles.cycles`.
    """

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                "load": In(stream.Signature(32)),
                "image": In(stream.Signature(data.ArrayLayout(signed(arch.data_bits), arch.rows))),
                "score": Out(stream.Signature(data.ArrayLayout(signed(arch.acc_bits), arch.rows))),
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
        loaded = Signal()
        for target, memory in ((Target.CODE, code), (Target.WEIGHTS, weights), (Target.INITS, inits)):
            port = memory.write_port()
            m.d.comb += [
                port.addr.eq(loader.o.payload.address),
                port.data.eq(loader.word(target)),
                port.en.eq(loader.o.valid & (loader.o.payload.target == target)),
            ]
        wiring.connect(m, wiring.flipped(self.load), loader.i)
        with m.If(loader.o.valid & (loader.o.payload.target != Target.NOTE)):
            m.d.sync += loaded.eq(loader.o.payload.target == Target.SETUP)
            with m.If(loader.o.payload.target == Target.SETUP):
                m.d.sync += setup.eq(loader.word(Target.SETUP))

        # Control: image words come in, instructions run one after another, scores go out while the next image comes in.
        beat = Signal(arch.address_bits)
        number = Signal(arch.address_bits)
        sending = Signal()
        settle = Signal(range(LATENCY + arch.lanes))
        with m.FSM() as control:
            with m.State("Fill"):
                m.d.comb += self.image.ready.eq(loaded)
                with m.If(self.image.valid & self.image.ready):
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
            with m.State("Settle"), m.If(settle == 0):
                m.d.sync += number.eq(number + 1)
                m.next = "Fetch"
                with m.If(number == setup.code_last):
                    m.d.sync += [number.eq(0), sending.eq(1)]
                    m.next = "Fill"
        m.d.comb += [fetch.addr.eq(number), walker.i.payload.eq(instruction)]

        # Operands: a step's addresses in one cycle, its marks with what the memories answer in the next.
        at = walker.o.payload
        last = Signal()
        m.d.comb += [
            walker.o.ready.eq(~(at.last & (settle > LATENCY))),
            last.eq(walker.o.valid & walker.o.ready & at.last),
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
            mac.i.valid.eq(walker.o.valid & walker.o.ready),
            mac.i.payload.first.eq(at.first),
            mac.i.payload.last.eq(at.last),
        ]
        # `settle` counts down until all lanes of the latest tile are written; while it exceeds LATENCY they have not all been drained.
        with m.If(last):
            m.d.sync += settle.eq(LATENCY - 1 + instruction.lanes)
        with m.Elif(settle != 0):
            m.d.sync += settle.eq(settle - 1)

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
        waiting = control.ongoing("Fill") & (beat == 0) & ~(self.image.valid & self.image.ready)
        m.d.comb += self.busy.eq(~waiting | sending | self.score.valid)
        m.d.sync += self.cycles.eq(self.cycles + self.busy)
        return m
