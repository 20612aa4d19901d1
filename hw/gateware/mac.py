"""The array of multipliers and accumulators: its lanes one behind the other."""

from functools import reduce
from operator import or_

from amaranth import Cat, Module, Mux, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.arch import Arch
from hw.gateware.delay import delayed
from hw.gateware.lane import Lane


class Mac(wiring.Component):
    """Multiply every row by every lane and sum from `first` to `last`, beginning with `init`; sums wrap around.

    In mode `maximum` the first lane keeps the larger of what it has and each product instead of their sum; the others then mean nothing.
    A lane works a cycle behind the one before it. So after `last` the sums of the mode's `lanes` leave on `o`, one lane of all rows a
    cycle, while the next reduction runs: a `last` must be at least as many cycles behind the `last` before it as that one has lanes. The
    first lane's sums go to `y`, each next lane's `lane_y` further.

    Latency: 6 cycles from `last` to the first lane's sums. Throughput: 1 step a cycle.
    """

    latency = Lane.latency + 1

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
        given, made = self.i.payload, self.o.payload
        lanes = [Lane(self.arch, compares=number == 0) for number in range(self.arch.lanes)]
        m.d.comb += [
            lanes[0].i.x.eq(given.x),
            lanes[0].i.valid.eq(self.i.valid),
            lanes[0].i.first.eq(given.first),
            lanes[0].i.maximum.eq(given.mode.maximum),
            lanes[0].i.leave.eq(Mux(self.i.valid & given.last, given.mode.lanes, 0)),
        ]
        for number, lane in enumerate(lanes):
            m.submodules[f"lane_{number}"] = lane
            if number:
                m.d.comb += lane.i.eq(lanes[number - 1].o)
            m.d.comb += [lane.w.eq(delayed(m, given.w[number], number)), lane.init.eq(delayed(m, given.init[number], number))]

        # No two lanes leave at once; those behind the first go where it went, and on.
        y, mode = delayed(m, given.y, Lane.latency), delayed(m, given.mode, Lane.latency)
        leaving = [lane.sums.as_value() & lane.leaves.replicate(lane.sums.as_value().shape().width) for lane in lanes]
        m.d.sync += [made.numbers.eq(reduce(or_, leaving)), self.o.valid.eq(Cat(lane.leaves for lane in lanes).any())]
        with m.If(lanes[0].leaves):
            m.d.sync += [made.y.eq(y), made.mode.eq(mode)]
        with m.Else():
            m.d.sync += made.y.eq(made.y + made.mode.lane_y)
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
