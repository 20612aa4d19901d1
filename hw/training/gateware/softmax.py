"""Scores become errors: the circuit of softmax less one at the label."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from bayestt.ir.descend import EXPONENTIAL
from bayestt.ir.training import ACTIVATION_BITS, ERROR_FRAC, GRADIENT_BITS
from hw.gateware.delay import delayed, registered
from hw.gateware.multiplier import Multiplier
from hw.training.arch import CLASSES, SHIFT_BITS, Kind, TrainingArch
from hw.training.gateware.reciprocal import Reciprocal
from hw.training.gateware.rescale import Rescale
from hw.training.gateware.unit_step import unit_step


class Softmax(wiring.Component):
    """Three walks over the scores of an image, by which each becomes an error: its number with the `y` of its CHANCE step.

    PEAK steps find the largest score `x`; ODDS steps keep the exponentials of scores less that by class, which is `init`, 0 to
    `CLASSES` - 1, and sum them up; CHANCE steps give each class's part of the sum, less one if it is the `label`. The number of the label's
    class stays on `loss`. `bayestt.ir.descend.error` is its definition in software.

    Latency: 8 cycles from a CHANCE step to its error, as many from the last step of a walk until the next may begin. Throughput: 1 step in
    8 cycles.
    """

    latency = Multiplier.latency + Rescale.latency + 2

    def __init__(self, arch: TrainingArch) -> None:
        self.arch = arch
        error = data.StructLayout({"y": arch.address_bits, "number": signed(GRADIENT_BITS)})
        super().__init__(
            {
                "i": In(stream.Signature(unit_step(arch), always_ready=True)),
                "label": In(range(CLASSES)),
                "o": Out(stream.Signature(error, always_ready=True)),
                "loss": Out(signed(GRADIENT_BITS)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        step = self.i.payload
        peaks, odds, chances = (self.i.valid & (step.mode.kind == kind) for kind in (Kind.PEAK, Kind.ODDS, Kind.CHANCE))
        begins = Signal(init=1)
        with m.If(peaks | odds):
            m.d.sync += begins.eq(step.complete)

        # The largest score, and how far below it each is.
        score, largest = step.x[:ACTIVATION_BITS].as_signed(), Signal(signed(ACTIVATION_BITS))
        below = Signal(ACTIVATION_BITS)
        with m.If(peaks & (begins | (score > largest))):
            m.d.sync += largest.eq(score)
        m.d.sync += below.eq(largest - score)

        # Odds, and their sum; until the next step comes, what goes with this one stays.
        place, y, labelled = Signal.like(step.init), Signal.like(step.y), Signal()
        with m.If(self.i.valid):
            m.d.sync += [place.eq(step.init), y.eq(step.y), labelled.eq(step.init == self.label)]
        m.submodules.exponential = exponential = Memory(shape=bits_for(1 << ERROR_FRAC), depth=len(EXPONENTIAL), init=EXPONENTIAL.tolist())
        m.submodules.kept = kept = Memory(shape=exponential.shape, depth=CLASSES, init=[])
        found, write, read = exponential.read_port(), kept.write_port(), kept.read_port()
        far, opens = delayed(m, below >= len(EXPONENTIAL), 2), delayed(m, odds & begins, 3)
        total = Signal(bits_for(CLASSES << ERROR_FRAC))
        m.d.comb += [
            found.addr.eq(below),
            write.data.eq(Mux(far, 0, registered(m, found.data))),
            write.addr.eq(place),
            write.en.eq(delayed(m, odds, 3)),
        ]
        with m.If(write.en):
            m.d.sync += total.eq(Mux(opens, 0, total) + write.data)

        # Each one's part of the sum, which is at least the largest's odds: so the shift is 8 to 16, and the part little above 1.
        m.submodules.reciprocal = reciprocal = Reciprocal(len(total))
        m.submodules.multiplier = multiplier = Multiplier(len(read.data) + 1, len(reciprocal.mantissa) + 1)
        m.submodules.rescale = rescale = Rescale(len(multiplier.product), len(reciprocal.exponent), GRADIENT_BITS)
        m.d.comb += [
            reciprocal.value.eq(total),
            read.addr.eq(step.init),
            multiplier.a.eq(registered(m, read.data)),
            multiplier.b.eq(reciprocal.mantissa),
            rescale.value.eq(multiplier.product),
            rescale.shift.eq((reciprocal.exponent - ERROR_FRAC)[:SHIFT_BITS]),
            self.o.valid.eq(delayed(m, chances, self.latency)),
            self.o.payload.y.eq(y),
            self.o.payload.number.eq(rescale.number - (labelled << ERROR_FRAC)),
        ]
        with m.If(self.o.valid & labelled):
            m.d.sync += self.loss.eq(self.o.payload.number)
        return m
