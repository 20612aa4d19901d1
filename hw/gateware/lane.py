"""One column of the array: a multiplier and an accumulator for every row."""

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.arch import Arch
from hw.gateware.delay import delayed
from hw.gateware.multiplier import Multiplier


class Lane(wiring.Component):
    """Multiply an element of every row by this lane's weight, and sum from `first` on, beginning with `init`; sums wrap around.

    What it multiplies it hands on to the next lane a cycle later. Behind a step that this and further lanes, `leave` in all, are to give
    their sums after, it does so for one cycle in which `leaves`. In mode `maximum`, where the circuit `compares`, it keeps the larger of
    what it has and each product instead of their sum.

    Latency: 5 cycles from a step to the sums with it. Throughput: 1 step a cycle.
    """

    latency = Multiplier.latency + 3

    def __init__(self, arch: Arch, compares: bool) -> None:
        self.arch, self.compares = arch, compares
        sums = data.ArrayLayout(signed(arch.acc_bits), arch.rows)
        super().__init__(
            {
                "i": In(step(arch)),
                "o": Out(step(arch)),
                "w": In(signed(arch.weight_bits)),
                "init": In(signed(arch.acc_bits)),
                "sums": Out(sums),
                "leaves": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.arch
        left = self.i.leave
        m.d.sync += [self.o.eq(self.i), self.o.leave.eq(Mux(left == 0, 0, left - 1))]

        # What goes with a step through the multipliers and the register behind them, to the sum, and to where it may leave.
        marks = data.StructLayout({"valid": 1, "first": 1, "maximum": 1, "leaves": 1})
        at = [Signal(marks, name=f"at_{stage}") for stage in range(self.latency)]
        init = [Signal(signed(arch.acc_bits), name=f"init_{stage}") for stage in range(self.latency - 1)]
        m.d.sync += [at[0].eq(Cat(self.i.valid, self.i.first, self.i.maximum, left != 0)), init[0].eq(self.init)]
        m.d.sync += [after.eq(before) for stages in (at, init) for before, after in pairwise(stages)]
        m.d.comb += self.leaves.eq(at[-1].leaves)
        opens, compared = at[2], at[3]
        opened = delayed(m, opens.valid & opens.first)
        opened_before = delayed(m, opened)

        for row in range(arch.rows):
            m.submodules[f"multiplier_{row}"] = multiplier = Multiplier(arch.data_bits, arch.weight_bits)
            product = Signal.like(multiplier.product, name=f"product_{row}")
            m.d.comb += [multiplier.a.eq(self.i.x[row]), multiplier.b.eq(self.w)]
            m.d.sync += product.eq(multiplier.product)
            acc, total = (Signal(signed(arch.acc_bits), name=f"{name}_{row}") for name in ("acc", "sum"))
            with m.If(opens.valid):
                m.d.sync += acc.eq(Mux(opens.first, init[2], acc) + product)
            m.d.sync += total.eq(acc)
            m.d.comb += self.sums[row].eq(total)
            if self.compares:
                # A product is compared a cycle before with all that the largest so far may be then; in the cycle itself only chosen from.
                late, best = Signal.like(product, name=f"late_{row}"), Signal.like(acc, name=f"best_{row}")
                above = {what: Signal(name=f"above_{what}_{row}") for what in ("init", "init_before", "late", "best")}
                replaces, replaced = (Signal(name=f"{name}_{row}") for name in ("replaces", "replaced"))
                m.d.sync += [
                    late.eq(product),
                    above["init"].eq(product > init[2]),
                    above["init_before"].eq(product > init[3]),
                    above["late"].eq(product > late),
                    above["best"].eq(product > best),
                    replaced.eq(replaces),
                ]
                further = Mux(replaced, above["late"], Mux(opened_before, above["init_before"], above["best"]))
                m.d.comb += [
                    replaces.eq(compared.valid & Mux(opened, above["init"], further)),
                    self.sums[row].eq(Mux(at[-1].maximum, best, total)),
                ]
                with m.If(replaces | opened):
                    m.d.sync += best.eq(Mux(replaces, late, init[3]))
        return m


def step(arch: Arch) -> data.StructLayout:
    """What a lane multiplies, if it is `valid`, and what for."""
    elements = data.ArrayLayout(signed(arch.data_bits), arch.rows)
    return data.StructLayout({"x": elements, "valid": 1, "first": 1, "maximum": 1, "leave": bits_for(arch.lanes)})
