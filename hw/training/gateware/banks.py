"""The memories of the training machine: what steps read of them, and what results do to them."""

from amaranth import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory, WritePort
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from bayestt.ir.training import ACTIVATION_BITS, FACTOR_BITS, GRADIENT_BITS, LATENT_BITS
from hw.gateware.delay import delayed, registered
from hw.gateware.walker import step
from hw.training.arch import Bank, Kind, TrainingArch

BITS = {Bank.ACTIVATION: ACTIVATION_BITS, Bank.ERROR: GRADIENT_BITS, Bank.LATENT: LATENT_BITS}
"""Widths of the elements of banks that are read a word at a time."""
ADD_CYCLES = 5
"""Cycles from a gradient until its sum is written."""


class Banks(wiring.Component):
    """Activations, errors, latents and gradients in words of `lanes` elements, and the words that sums begin with.

    A step reads its `x` of the bank that its mode names, and its word at `w` of another; of latents a MULTIPLY gets the factors, their
    upper halves rounded. A MASK also gets the error at its `y`, a MOVE, valid or not, the gradient at its `x`. A result goes to its
    element, a gradient is added to it; with a latent its gradient becomes `velocity`. No gradient may come with a MOVE or the cycle after
    it, nor two for one element within six cycles. A begin goes to its element of the words that sums begin with.

    Latency: 5 cycles from a step to its operands. Throughput: 1 step, 1 result and 1 begin a cycle.
    """

    latency = 5

    def __init__(self, arch: TrainingArch) -> None:
        self.arch = arch
        super().__init__(
            {
                "i": In(stream.Signature(step(arch), always_ready=True)),
                "o": Out(stream.Signature(operands(arch), always_ready=True)),
                "result": In(stream.Signature(result(arch), always_ready=True)),
                "velocity": In(signed(GRADIENT_BITS)),
                "begin": In(stream.Signature(begin(arch), always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch, at, made = self.arch, self.i.payload, self.o.payload
        depths = {Bank.ACTIVATION: arch.activation_depth, Bank.ERROR: arch.error_depth, Bank.LATENT: arch.latent_depth}
        lane_bits = ceil_log2(arch.lanes)
        multiplies, masks = at.mode.kind == Kind.MULTIPLY, at.mode.kind == Kind.MASK

        # Words: their address in a register, then what the memory answers; of those an element for x, and all for w.
        element, lanes_of = {}, {}
        for bank, bits in BITS.items():
            memory = Memory(shape=data.ArrayLayout(signed(bits), arch.lanes), depth=depths[bank], init=_ones(bank))
            m.submodules[bank.name.lower()] = memory
            where = Mux(at.mode.x_from == bank, at.x[lane_bits:], at.w)
            index = at.x[:lane_bits]
            if bank is Bank.ERROR:
                where, index = Mux(masks, at.y[lane_bits:], where), Mux(masks, at.y[:lane_bits], index)
            read, write = memory.read_port(), memory.write_port(granularity=1)
            m.d.sync += read.addr.eq(where)
            word = registered(m, read.data)
            element[bank] = Signal(signed(bits), name=f"{bank.name.lower()}_element")
            m.d.sync += element[bank].eq(word.as_value().word_select(delayed(m, index, 3), bits))
            lanes_of[bank] = word
            goes = self.result.valid & (self.result.payload.target == bank)
            self._writes(m, write, self.result.payload.y, self.result.payload.number, goes)
        x_from, w_from, rounds = (delayed(m, value, 3) for value in (at.mode.x_from, at.mode.w_from, multiplies))
        for lane, number in enumerate(made.w):
            other = Mux(w_from == Bank.ERROR, lanes_of[Bank.ERROR][lane], lanes_of[Bank.ACTIVATION][lane])
            m.d.comb += number.eq(delayed(m, Mux(w_from == Bank.LATENT, _factor(lanes_of[Bank.LATENT][lane]), other), 2))
        late_from, late_rounds = delayed(m, x_from), delayed(m, rounds)
        latent = Mux(late_rounds, _factor(element[Bank.LATENT]), element[Bank.LATENT])
        other = Mux(late_from == Bank.ERROR, element[Bank.ERROR], element[Bank.ACTIVATION])
        m.d.comb += [made.x.eq(delayed(m, Mux(late_from == Bank.LATENT, latent, other))), made.error.eq(delayed(m, element[Bank.ERROR]))]

        # What sums begin with.
        m.submodules.begins = begins = Memory(shape=made.init.shape(), depth=arch.init_depth, init=[])
        read, write = begins.read_port(), begins.write_port(granularity=1)
        m.d.comb += [read.addr.eq(delayed(m, at.init, 3)), made.init.eq(registered(m, read.data))]
        self._writes(m, write, self.begin.payload.y, self.begin.payload.number, self.begin.valid)

        # Gradients: read, added to, saturated, written.
        gradients = Memory(shape=data.ArrayLayout(signed(GRADIENT_BITS), arch.lanes), depth=arch.latent_depth, init=[])
        m.submodules.gradients = gradients
        read, write = gradients.read_port(), gradients.write_port(granularity=1)
        given, asked = self.result.payload, Signal(arch.address_bits)
        moves = at.mode.kind == Kind.MOVE
        adds, leaves = (self.result.valid & (given.target == bank) for bank in (Bank.GRADIENT, Bank.LATENT))
        m.d.comb += asked.eq(Mux(delayed(m, moves), delayed(m, at.x), given.y))
        m.d.sync += read.addr.eq(asked[lane_bits:])
        word, there = registered(m, read.data), Signal(signed(GRADIENT_BITS))
        total = Signal(signed(GRADIENT_BITS + 1))
        m.d.sync += [
            there.eq(word.as_value().word_select(delayed(m, asked[:lane_bits], 3), GRADIENT_BITS)),
            total.eq(there + delayed(m, given.number, ADD_CYCLES - 1)),
        ]
        m.d.comb += made.total.eq(there)
        goes_to = Mux(leaves, given.y, delayed(m, given.y, ADD_CYCLES))
        becomes = Mux(leaves, self.velocity, saturated(total, GRADIENT_BITS))
        self._writes(m, write, goes_to, becomes, leaves | delayed(m, adds, ADD_CYCLES))

        m.d.comb += self.o.valid.eq(delayed(m, self.i.valid, self.latency))
        goes_on = {
            "first": at.first,
            "last": at.last,
            "complete": at.complete,
            "w_at": at.w,
            "init_at": at.init,
            "y": at.y,
            "mode": at.mode,
        }
        m.d.comb += [made[name].eq(delayed(m, value, self.latency)) for name, value in goes_on.items()]
        return m

    def _writes(self, m: Module, write: WritePort, address: Value, number: Value, en: Value) -> None:
        """One element of a memory of words becomes a number."""
        lane_bits = ceil_log2(self.arch.lanes)
        m.d.comb += [
            write.addr.eq(address[lane_bits:]),
            *(element.eq(number) for element in write.data),
            write.en.eq(en.replicate(self.arch.lanes) & (Const(1) << address[:lane_bits])),
        ]


def operands(arch: TrainingArch) -> data.StructLayout:
    """What a step works on: the element at `x`, the lanes' at `w` and at `init`, the gradient at `x`, the error at `y`; what it is."""
    number = signed(GRADIENT_BITS)
    read = {"x": number, "w": data.ArrayLayout(number, arch.lanes), "init": data.ArrayLayout(signed(arch.acc_bits), arch.lanes)}
    addresses = {name: arch.address_bits for name in ("w_at", "init_at", "y")}
    marks = {"first": 1, "last": 1, "complete": 1}
    return data.StructLayout({**read, "total": number, "error": number, **addresses, **marks, "mode": arch.mode})


def result(arch: TrainingArch) -> data.StructLayout:
    """A number, and the element of a bank where it goes."""
    return data.StructLayout({"number": signed(GRADIENT_BITS), "target": Bank, "y": arch.address_bits})


def begin(arch: TrainingArch) -> data.StructLayout:
    """What a lane's sums begin with, and the element where it goes."""
    return data.StructLayout({"number": signed(arch.acc_bits), "y": arch.address_bits})


def saturated(number: Value, bits: int) -> Value:
    """A number, or the nearest one that so many bits hold."""
    high = (1 << (bits - 1)) - 1
    over = number[bits - 1 :]
    return Mux(over.any() & ~over.all(), Mux(number[-1], -high - 1, high), number)[:bits].as_signed()


def _factor(latent: Value) -> Value:
    """A latent's upper half, rounded half up: the rule of `bayestt.algebra.fixed.requantize`."""
    cut = LATENT_BITS - FACTOR_BITS
    return saturated((latent[cut - 1 :].as_signed() + 1) >> 1, FACTOR_BITS)


def _ones(bank: Bank) -> list[list[int]]:
    """The first word of the activations is a one and zeros."""
    return [[1]] if bank is Bank.ACTIVATION else []
