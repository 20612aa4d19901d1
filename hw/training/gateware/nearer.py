"""A step of the prior: the circuit that moves the square of a scale towards what the latents say."""

from amaranth import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from bayestt.ir.rank_scale import DAMPING, SCALE_BITS, SCALE_FRAC
from bayestt.ir.training import LATENT_BITS, MOST_SCALED
from hw.gateware.delay import delayed
from hw.gateware.multiplier import Multiplier
from hw.training.gateware.reciprocal import Reciprocal
from hw.training.gateware.rescale import Rescale

SQUARE_BITS, ENTRIES_BITS = 2 * LATENT_BITS - 1, bits_for(MOST_SCALED)
"""Widths of a latent's square, and of how many latents an index scales."""
ENERGY_BITS = bits_for(MOST_SCALED << SQUARE_BITS - 1)
"""Width of the sum of the squares of all latents that an index scales."""
HALF_BITS = ENERGY_BITS // 2


class Nearer(wiring.Component):
    """The `square` of a scale after a step: 2**-`DAMPING` of the way nearer to `energy` / (`entries` + 1).

    `bayestt.ir.rank_scale.moved_scales` is its definition in software, for at most `MOST_SCALED` entries.

    Latency: 14 cycles. Throughput: 1 square a cycle.
    """

    latency = 1 + Reciprocal.latency + Multiplier.latency + 1 + Rescale.latency + 2

    def __init__(self) -> None:
        super().__init__({"square": In(SCALE_BITS), "energy": In(ENERGY_BITS), "entries": In(ENTRIES_BITS), "nearer": Out(SCALE_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.reciprocal = reciprocal = Reciprocal(ENTRIES_BITS + 1)
        entries = Signal(ENTRIES_BITS + 1)
        m.d.sync += entries.eq(self.entries + 1)
        m.d.comb += reciprocal.value.eq(entries)

        # The energy times the reciprocal's mantissa, in two halves.
        energy = delayed(m, self.energy, 1 + Reciprocal.latency)
        mantissa_bits = len(reciprocal.mantissa)
        m.submodules.low = low = Multiplier(HALF_BITS + 1, mantissa_bits + 1)
        m.submodules.high = high = Multiplier(ENERGY_BITS - HALF_BITS + 1, mantissa_bits + 1)
        product = Signal(signed(ENERGY_BITS + mantissa_bits + 1))
        m.d.comb += [
            low.a.eq(energy[:HALF_BITS]),
            high.a.eq(energy[HALF_BITS:]),
            *(half.b.eq(reciprocal.mantissa) for half in (low, high)),
        ]
        m.d.sync += product.eq((high.product << HALF_BITS) + low.product)

        m.submodules.rescale = rescale = Rescale(len(product), len(reciprocal.exponent), SCALE_BITS + 1)
        exponent = delayed(m, reciprocal.exponent, Multiplier.latency + 1)
        m.d.comb += [rescale.value.eq(product), rescale.shift.eq(exponent - SCALE_FRAC)]

        # The way there, and the part of it that a step goes.
        square = delayed(m, self.square, self.latency - 2)
        way = Signal(signed(SCALE_BITS + 2))
        m.d.sync += [
            way.eq(rescale.number - square),
            self.nearer.eq(delayed(m, square) + (((way >> DAMPING - 1) + 1) >> 1)),
        ]
        return m
