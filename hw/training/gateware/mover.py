"""What moves latents: the circuit of a step of training for one latent after the other."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bayestt.algebra.lfsr import DRAW_BITS
from bayestt.ir.rank_scale import STRENGTH_BITS
from bayestt.ir.training import GRADIENT_BITS, LATENT_BITS
from hw.gateware.delay import delayed
from hw.gateware.multiplier import Multiplier
from hw.training.arch import MOMENTUM_BITS, RATE_BITS, Kind, TrainingArch
from hw.training.gateware.banks import saturated
from hw.training.gateware.draws import Draws
from hw.training.gateware.ranks import READ_CYCLES, entry_port
from hw.training.gateware.unit_step import peak, unit_step

MOVE_BITS = GRADIENT_BITS + DRAW_BITS
"""Width of a move, of which the lower `DRAW_BITS` are rounded away."""
FINE_BITS = 2
"""Bits of a shift that the second of two stages looks at: by less than 4."""


class Mover(wiring.Component):
    """Move the latent of a MOVE step by its gradient / 2**`rate` and by the pull of its rank, rounded by a draw; 0 where a rank is gone.

    Its rank is the index at `w`, the other one that at `init`. Of the gradient 1 - 2**-`momentum` is left: its velocity. A CLEAN step only
    makes latents and velocities of ranks that are gone 0. `o` is what both become; `peak` the magnitude of the gradient. Draws are taken
    for latents that are there, whose squares are added to `ranks`. The shift `register` of draws becomes `written` with `en`.
    `bayestt.ir.descend.moved` is its definition in software.

    Latency: 8 cycles from a step to its latent, 10 to when its square is added. Throughput: 1 latent in 8 cycles.
    """

    latency = READ_CYCLES + Multiplier.latency + 4

    def __init__(self, arch: TrainingArch) -> None:
        self.arch = arch
        entry = data.StructLayout({"y": arch.address_bits, **arch.entry.members})
        super().__init__(
            {
                "i": In(stream.Signature(unit_step(arch), always_ready=True)),
                "rate": In(RATE_BITS),
                "momentum": In(MOMENTUM_BITS),
                "ranks": Out(entry_port(arch)),
                "o": Out(stream.Signature(entry, always_ready=True)),
                "peak": Out(stream.Signature(peak(arch), always_ready=True)),
                "register": Out(DRAW_BITS),
                "written": In(DRAW_BITS),
                "en": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        moves, cleans = (self.i.valid & (self.i.payload.mode.kind == kind) for kind in (Kind.MOVE, Kind.CLEAN))
        step = Signal(unit_step(self.arch))
        with m.If(self.i.valid):
            m.d.sync += step.eq(self.i.payload)
        m.d.comb += [self.ranks.own.eq(self.i.payload.w), self.ranks.other.eq(self.i.payload.init), self.ranks.asks.eq(moves | cleans)]
        there = self.ranks.there

        # The gradient goes as far up as a move has bits below the point; the latent is multiplied by its rank's strength.
        up, coarse, fine = Signal(range(DRAW_BITS)), Signal(signed(MOVE_BITS)), Signal(signed(MOVE_BITS))
        m.d.sync += [
            up.eq(DRAW_BITS - self.rate - step.mode.brake),
            coarse.eq(step.total << (up[FINE_BITS:] << FINE_BITS)),
            fine.eq(coarse << up[:FINE_BITS]),
        ]

        # What is left of the gradient: less a part of it, rounded half up.
        part, velocity = Signal(signed(GRADIENT_BITS + 1)), Signal(signed(GRADIENT_BITS))
        m.d.sync += [part.eq((step.total << 1) >> self.momentum), velocity.eq(step.total - ((part + 1) >> 1))]

        m.submodules.pull = pull = Multiplier(LATENT_BITS, STRENGTH_BITS)
        m.d.comb += [pull.a.eq(step.x), pull.b.eq(self.ranks.strength)]

        # The draw decides whether what is below the point counts.
        m.submodules.draws = draws = Draws()
        move, rounded, left = Signal(signed(MOVE_BITS)), Signal(signed(MOVE_BITS + 1)), Signal(signed(MOVE_BITS - DRAW_BITS + 2))
        drawn = delayed(m, moves, READ_CYCLES + Multiplier.latency + 1) & there
        m.d.comb += [draws.advance.eq(drawn), draws.written.eq(self.written), draws.en.eq(self.en), self.register.eq(draws.register)]
        m.d.sync += [
            move.eq(fine + Mux(step.mode.pulled, pull.product, 0)),
            rounded.eq(move + Mux(there, draws.draw, 0)),
            left.eq(step.x - (rounded >> DRAW_BITS)),
        ]
        stays = there & (step.mode.kind == Kind.MOVE)
        latent = delayed(m, Mux(stays, saturated(left, LATENT_BITS), 0))
        moved = delayed(m, moves, self.latency)
        m.d.comb += [
            self.o.valid.eq(moved | (delayed(m, cleans, self.latency) & ~there)),
            self.o.payload.y.eq(step.y),
            self.o.payload.latent.eq(latent),
            self.o.payload.velocity.eq(delayed(m, Mux(stays, velocity, 0))),
            self.peak.valid.eq(delayed(m, moves)),
            self.peak.payload.number.eq(step.mode.number),
            self.peak.payload.magnitude.eq(abs(step.total)),
        ]

        m.submodules.square = square = Multiplier(LATENT_BITS, LATENT_BITS)
        m.d.comb += [
            square.a.eq(latent),
            square.b.eq(latent),
            self.ranks.square.eq(square.product),
            self.ranks.to.eq(delayed(m, step.w, Multiplier.latency)),
            self.ranks.adds.eq(delayed(m, moved & there, Multiplier.latency)),
        ]
        return m
