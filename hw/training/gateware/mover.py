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

    Latency: 8 cycles from a step to its latent, 10 to when its square is added. Throughput: 1 latent a cycle, those of another mode 8
    cycles later.
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
        given, mode = self.i.payload, Signal(self.arch.mode)
        moves, cleans = (self.i.valid & (given.mode.kind == kind) for kind in (Kind.MOVE, Kind.CLEAN))
        with m.If(self.i.valid):
            m.d.sync += mode.eq(given.mode)
        m.d.comb += [self.ranks.own.eq(given.w), self.ranks.other.eq(given.init)]
        x = delayed(m, given.x[:LATENT_BITS].as_signed(), READ_CYCLES)

        # The gradient goes as far up as a move has bits below the point; the latent is multiplied by its rank's strength.
        up, coarse, fine = Signal(range(DRAW_BITS)), Signal(signed(MOVE_BITS)), Signal(signed(MOVE_BITS))
        first = delayed(m, given.total)
        total = delayed(m, first)
        m.d.sync += [
            up.eq(DRAW_BITS - self.rate - mode.brake),
            coarse.eq(total << (up[FINE_BITS:] << FINE_BITS)),
            fine.eq(coarse << up[:FINE_BITS]),
        ]
        m.submodules.pull = pull = Multiplier(LATENT_BITS, STRENGTH_BITS)
        m.d.comb += [pull.a.eq(x), pull.b.eq(self.ranks.strength)]

        # What is left of the gradient: less a part of it, rounded half up.
        part, velocity = Signal(signed(GRADIENT_BITS + 1)), Signal(signed(GRADIENT_BITS))
        m.d.sync += [part.eq((total << 1) >> self.momentum), velocity.eq(delayed(m, total) - ((part + 1) >> 1))]

        # The draw decides whether what is below the point counts.
        m.submodules.draws = draws = Draws()
        move, rounded, left = Signal(signed(MOVE_BITS)), Signal(signed(MOVE_BITS + 1)), Signal(signed(MOVE_BITS - DRAW_BITS + 2))
        there = delayed(m, self.ranks.there, Multiplier.latency + 1)
        m.d.comb += [
            draws.advance.eq(delayed(m, moves, READ_CYCLES + Multiplier.latency + 1) & there),
            draws.written.eq(self.written),
            draws.en.eq(self.en),
            self.register.eq(draws.register),
        ]
        m.d.sync += [
            move.eq(fine + Mux(mode.pulled, pull.product, 0)),
            rounded.eq(move + Mux(there, draws.draw, 0)),
            left.eq(delayed(m, x, Multiplier.latency + 2) - (rounded >> DRAW_BITS)),
        ]

        # What the entry becomes.
        stays = delayed(m, there, 2)
        keeps, stayed, moved = stays & (mode.kind == Kind.MOVE), delayed(m, stays), delayed(m, moves, self.latency)
        latent = delayed(m, Mux(keeps, saturated(left, LATENT_BITS), 0))
        m.d.comb += [
            self.o.valid.eq(moved | (delayed(m, cleans, self.latency) & ~stayed)),
            self.o.payload.y.eq(delayed(m, given.y, self.latency)),
            self.o.payload.latent.eq(latent),
            self.o.payload.velocity.eq(delayed(m, Mux(keeps, delayed(m, velocity, 3), 0))),
            self.peak.valid.eq(delayed(m, moves)),
            self.peak.payload.number.eq(mode.number),
            self.peak.payload.magnitude.eq(abs(first)),
        ]

        m.submodules.square = square = Multiplier(LATENT_BITS, LATENT_BITS)
        m.d.comb += [
            square.a.eq(latent),
            square.b.eq(latent),
            self.ranks.square.eq(square.product),
            self.ranks.to.eq(delayed(m, given.w, self.latency + Multiplier.latency)),
            self.ranks.adds.eq(delayed(m, moved & stayed, Multiplier.latency)),
        ]
        return m
