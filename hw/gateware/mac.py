"""The array of multipliers and accumulators, with the register that drains it."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch


class Mac(wiring.Component):
    """Multiply every row by every lane and sum from `first` to `last`, beginning with `init`; sums wrap around.

    In mode `maximum` the first lane keeps the larger of what it has and each product instead of their sum; the others then mean nothing.
    After `last` the sums of the mode's `lanes` leave on `o`, one lane of all rows a cycle, while the next reduction runs: so a `last` must
    be at least as many cycles behind the `last` before it as that one has lanes. The first lane's sums go to `y`, each next lane's
    `lane_y` further.

    Latency: 4 cycles from `last` to the first lane's sums. Throughput: 1 step a cycle.
    """

    latency = 4

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        super().__init__(
            {
                "i": In(stream.Signature(operands(arch), always_ready=True)),
                "o": Out(stream.Signature(results(arch), always_ready=True)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.arch
        rows, lanes = range(arch.rows), range(arch.lanes)
        step = data.StructLayout({"valid": 1, "first": 1, "last": 1, "y": arch.address_bits, "mode": arch.mode})

        # Operands: memory outputs are registered before they reach a multiplier.
        x = [Signal(signed(arch.data_bits), name=f"x_{row}") for row in rows]
        w = [Signal(signed(arch.weight_bits), name=f"w_{lane}") for lane in lanes]
        init = Signal(data.ArrayLayout(signed(arch.acc_bits), arch.lanes))
        read = Signal(step)
        given = self.i.payload
        m.d.sync += read.eq(Cat(self.i.valid, given.first, given.last, given.y, given.mode))
        with m.If(self.i.valid):
            m.d.sync += [x[row].eq(given.x[row]) for row in rows]
            m.d.sync += [w[lane].eq(given.w[lane]) for lane in lanes]
            m.d.sync += init.eq(given.init)

        # Products: a multiplier's own output register.
        product = [[Signal(signed(arch.data_bits + arch.weight_bits), name=f"product_{row}_{lane}") for lane in lanes] for row in rows]
        start = Signal.like(init)
        multiplied = Signal(step)
        m.d.sync += multiplied.eq(read)
        with m.If(read.valid):
            m.d.sync += [product[row][lane].eq(x[row] * w[lane]) for row in rows for lane in lanes]
            m.d.sync += start.eq(init)

        # Sums. Windows share their elements, never lanes: the largest of one needs a comparator in the first lane only.
        acc = [[Signal(signed(arch.acc_bits), name=f"acc_{row}_{lane}") for row in rows] for lane in lanes]
        summed = Signal(step)
        m.d.sync += summed.eq(multiplied)
        with m.If(multiplied.valid):
            before = [[Mux(multiplied.first, start[lane], acc[lane][row]) for row in rows] for lane in lanes]
            m.d.sync += [acc[lane][row].eq(before[lane][row] + product[row][lane]) for row in rows for lane in lanes]
            with m.If(multiplied.mode.maximum):
                m.d.sync += [acc[0][row].eq(Mux(before[0][row] > product[row][0], before[0][row], product[row][0])) for row in rows]

        # Drain: the lane that leaves is the first; the others move up behind it.
        drain = [Signal(arch.rows * arch.acc_bits, name=f"drain_{lane}") for lane in lanes]
        left = Signal(range(arch.lanes + 1))
        tile = self.o.payload
        m.d.comb += [tile.numbers.eq(drain[0]), self.o.valid.eq(left != 0)]
        with m.If(summed.valid & summed.last):
            m.d.sync += [drain[lane].eq(Cat(acc[lane])) for lane in lanes]
            m.d.sync += [left.eq(summed.mode.lanes), tile.y.eq(summed.y), tile.mode.eq(summed.mode)]
        with m.Elif(left != 0):
            m.d.sync += [drain[lane].eq(drain[lane + 1]) for lane in lanes[:-1]]
            m.d.sync += [left.eq(left - 1), tile.y.eq(tile.y + tile.mode.lane_y)]
        return m


def operands(arch: Arch) -> data.StructLayout:
    """What one step multiplies: an element of every image, a weight of every lane, and the lanes' initial sums; and what for."""
    return data.StructLayout(
        {
            "x": data.ArrayLayout(signed(arch.data_bits), arch.rows),
            "w": data.ArrayLayout(signed(arch.weight_bits), arch.lanes),
            "init": data.ArrayLayout(signed(arch.acc_bits), arch.lanes),
            "first": 1,
            "last": 1,
            "y": arch.address_bits,
            "mode": arch.mode,
        }
    )


def results(arch: Arch) -> data.StructLayout:
    """A number of every image, where these go, and the mode in which they were made."""
    return data.StructLayout({"numbers": data.ArrayLayout(signed(arch.acc_bits), arch.rows), "y": arch.address_bits, "mode": arch.mode})
