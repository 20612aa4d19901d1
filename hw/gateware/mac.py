"""The array of multipliers and accumulators, with the register that drains it."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch


class Mac(wiring.Component):
    """Multiply every row by every lane and sum from `first` to `last`, beginning with `init`; sums wrap around.

    With `maximum` the first lane keeps the larger of what it has and each product instead of their sum; the others then mean nothing.
    After `last` the sums of the first `lanes` lanes leave on `o`, one lane of all rows a cycle, while the next reduction runs: so two
    `last`s must be at least `lanes` cycles apart. `lanes` and `maximum` are steady from a reduction's first step to its first sum.

    Latency: 4 cycles from `last` to the first lane's sums. Throughput: 1 step a cycle.
    """

    latency = 4

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        sums = data.ArrayLayout(signed(arch.acc_bits), arch.rows)
        super().__init__(
            {
                "i": In(stream.Signature(operands(arch), always_ready=True)),
                "lanes": In(range(arch.lanes + 1)),
                "maximum": In(1),
                "o": Out(stream.Signature(sums, always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.arch
        rows, lanes = range(arch.rows), range(arch.lanes)
        marks = data.StructLayout({"valid": 1, "first": 1, "last": 1})

        # Operands: memory outputs are registered before they reach a multiplier.
        x = [Signal(signed(arch.data_bits), name=f"x_{row}") for row in rows]
        w = [Signal(signed(arch.weight_bits), name=f"w_{lane}") for lane in lanes]
        init = Signal(data.ArrayLayout(signed(arch.acc_bits), arch.lanes))
        read = Signal(marks)
        m.d.sync += read.eq(Cat(self.i.valid, self.i.payload.first, self.i.payload.last))
        with m.If(self.i.valid):
            m.d.sync += [x[row].eq(self.i.payload.x[row]) for row in rows]
            m.d.sync += [w[lane].eq(self.i.payload.w[lane]) for lane in lanes]
            m.d.sync += init.eq(self.i.payload.init)

        # Products: a multiplier's own output register.
        product = [[Signal(signed(arch.data_bits + arch.weight_bits), name=f"product_{row}_{lane}") for lane in lanes] for row in rows]
        start = Signal.like(init)
        multiplied = Signal(marks)
        m.d.sync += multiplied.eq(read)
        with m.If(read.valid):
            m.d.sync += [product[row][lane].eq(x[row] * w[lane]) for row in rows for lane in lanes]
            m.d.sync += start.eq(init)

        # Sums. Windows share their elements, never lanes: the largest of one needs a comparator in the first lane only.
        acc = [[Signal(signed(arch.acc_bits), name=f"acc_{row}_{lane}") for row in rows] for lane in lanes]
        complete = Signal()
        m.d.sync += complete.eq(multiplied.valid & multiplied.last)
        with m.If(multiplied.valid):
            before = [[Mux(multiplied.first, start[lane], acc[lane][row]) for row in rows] for lane in lanes]
            m.d.sync += [acc[lane][row].eq(before[lane][row] + product[row][lane]) for row in rows for lane in lanes]
            with m.If(self.maximum):
                m.d.sync += [acc[0][row].eq(Mux(before[0][row] > product[row][0], before[0][row], product[row][0])) for row in rows]

        # Drain: the lane that leaves is the first; the others move up behind it.
        drain = [Signal(arch.rows * arch.acc_bits, name=f"drain_{lane}") for lane in lanes]
        left = Signal(range(arch.lanes + 1))
        m.d.comb += [self.o.payload.eq(drain[0]), self.o.valid.eq(left != 0)]
        with m.If(complete):
            m.d.sync += [drain[lane].eq(Cat(acc[lane])) for lane in lanes]
            m.d.sync += left.eq(self.lanes)
        with m.Elif(left != 0):
            m.d.sync += [drain[lane].eq(drain[lane + 1]) for lane in lanes[:-1]]
            m.d.sync += left.eq(left - 1)
        return m


def operands(arch: Arch) -> data.StructLayout:
    """What one step multiplies: an element of every image, a weight of every lane, and the lanes' initial sums."""
    return data.StructLayout(
        {
            "x": data.ArrayLayout(signed(arch.data_bits), arch.rows),
            "w": data.ArrayLayout(signed(arch.weight_bits), arch.lanes),
            "init": data.ArrayLayout(signed(arch.acc_bits), arch.lanes),
            "first": 1,
            "last": 1,
        }
    )
