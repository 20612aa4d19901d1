"""The circuit that moves latents, with that of scales, against the definition of a step: whole ends of batches, and moves of every size."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.sim import SimulatorContext
from learnable import small_chain
from test_training_assemble import FREE
from test_training_ranks import hold_scales, machine_of, simulate, step, write_scales

from bayestt.ir.descend import Rule
from bayestt.ir.rank_scale import SCALE_BITS, SCALE_FRAC, THRESHOLD
from bayestt.ir.start import start
from hw.emulate import walk
from hw.training.arch import SPACING, Bank, Kind, TrainingArch
from hw.training.assemble import arch_for, assemble
from hw.training.emulate import _KINDS, _Machine
from hw.training.gateware.mover import Mover
from hw.training.gateware.ranks import Ranks
from hw.training.program import memories_of

ARCH = TrainingArch(lanes=8, latent_depth=64, ranks=12)
UNITS = (Kind.STRENGTH, Kind.MOVE, Kind.SCALE, Kind.SURVIVE, Kind.CLEAN)
PAUSE = 24
"""Cycles from the last step of a walk to the first of the next."""
Walk = tuple[dict, dict[str, np.ndarray]]
"""What an instruction is, and the addresses of its steps in each stream."""


@pytest.mark.parametrize(("rule", "spread", "goes"), [
    (Rule(4, 9, 3), 3000, False), (Rule(1, 15, 7), 32768, False), (Rule(6, None), 600, True), (Rule(15, -3, 1), 32768, True),
], ids=str)  # fmt: skip
def test_ends_of_batches_are_those_of_the_definition(rule: Rule, spread: int, goes: bool) -> None:
    """Its own instructions behind random sums of gradients; latents begin small, one rank at the threshold, one below, one gone."""
    made, images, labels = small_chain()
    random, program = np.random.default_rng(spread), assemble(made, arch_for(made, 4))
    memories = memories_of(program, start(made, images, labels, 0))
    memories.squares[1:4], memories.alive[3] = [THRESHOLD << SCALE_FRAC, 5 << SCALE_FRAC, 0], False
    machine = machine_of(program.arch, memories.squares, memories.alive, memories.latents // 8)
    walks = []
    for instruction in program.batch_part:
        if Kind(instruction.kind) in UNITS:
            at = {stream: where[:, 0] for stream, where in walk(instruction, program.arch).items()}
            walks.append(({name: instruction[name] for name in program.arch.mode.members}, at))
    _hold_to_the_machine(machine, rule, walks * 2, random, lambda count: random.integers(-spread, spread, count))
    assert (machine.memories.alive.sum() < memories.alive.sum()) == goes


@pytest.mark.parametrize(("rate", "brake"), [(1, 0), (1, 1), (6, 0), (15, 0), (15, 1)])
def test_moves_of_every_size(rate: int, brake: int) -> None:
    """Gradients and latents at the ends of their ranges; ranks that are there or not, of every strength, in any order, also none."""
    random = np.random.default_rng(2 * rate + brake)
    latents = random.choice([-128, -127, -1, 0, 1, 127, *range(-120, 120, 11)], ARCH.latent_depth * ARCH.lanes)
    squares = random.choice([0, 1, 40, 3000, 70000, (1 << SCALE_BITS) - 1], ARCH.ranks)
    alive = random.random(ARCH.ranks) < 0.7
    alive[1] = True
    machine, indices = machine_of(ARCH, squares, alive, latents.astype(np.int64)), np.arange(1, ARCH.ranks)

    def entries(kind: Kind, own: np.ndarray, **fields: int) -> Walk:
        at = random.choice(len(latents), len(own), replace=False)
        return {"kind": kind, "brake": brake, **fields}, {"x": at, "y": at, "w": own, "init": random.integers(0, ARCH.ranks, len(own))}

    walks = [
        ({"kind": Kind.STRENGTH, "ease": 2}, {"w": indices}),
        entries(Kind.MOVE, random.integers(1, ARCH.ranks, 90), pulled=1, number=3),
        entries(Kind.MOVE, random.integers(0, ARCH.ranks, 40), number=31),
        entries(Kind.MOVE, np.zeros(12, np.int64), number=5),
        ({"kind": Kind.SCALE}, {"w": indices}),
        ({"kind": Kind.SURVIVE}, {"w": indices}),
        entries(Kind.CLEAN, random.integers(0, ARCH.ranks, 60)),
    ]
    totals = [-32768, -32767, -1, 0, 1, 32767, *random.integers(-999, 999, 6)]
    rule = Rule(rate, int(random.integers(-15, 16)), rate // 2)
    _hold_to_the_machine(machine, rule, walks, random, lambda count: random.choice(totals, count))


def test_a_draw_is_taken_by_a_latent_that_is_there_and_moves() -> None:
    mover, ranks, circuit = _units(ARCH)
    machine = machine_of(ARCH, np.zeros(ARCH.ranks), np.arange(ARCH.ranks) < 2)

    async def bench(context: SimulatorContext) -> None:
        await write_scales(context, ranks, machine, range(ARCH.ranks))
        await _write_register(context, mover, 0xACE1)
        context.set(mover.rate, 1)
        context.set(ranks.running, 1)
        for kind, own, other, draws in (
            (Kind.MOVE, 1, 2, False),
            (Kind.MOVE, 2, 1, False),
            (Kind.CLEAN, 1, 1, False),
            (Kind.SCALE, 1, 1, False),
            (Kind.MOVE, 0, 1, True),
            (Kind.MOVE, 1, 0, True),
        ):
            before = context.get(mover.register)
            await step(context, mover.i, {"w": own, "init": other, "x": 5, "mode": {"kind": kind}}, PAUSE)
            assert (context.get(mover.register) != before) == draws

    simulate(circuit, bench)


def _hold_to_the_machine(
    machine: _Machine, rule: Rule, walks: Sequence[Walk], random: np.random.Generator, totals: Callable[[int], np.ndarray]
) -> None:
    """Assert that the circuits do what the machine in software does: latents and peaks in their cycles, draws, and the scales.

    There are new `totals` of gradients behind every walk that finds strengths.
    """
    mover, ranks, circuit = _units(machine.arch)
    cycle, steps, latents, peaks = 0, [], [], []

    async def watch(context: SimulatorContext) -> None:
        nonlocal cycle
        watched = (mover.i.valid, mover.o.valid, mover.o.payload, mover.peak.valid, mover.peak.payload)
        async for _, _, is_step, is_latent, latent, is_peak, peak in context.tick().sample(*watched):
            if is_step:
                steps.append(cycle)
            if is_latent:
                latents.append((cycle - Mover.latency, latent.y, latent.latent, latent.velocity))
            if is_peak:
                peaks.append((cycle - 1, peak.number, peak.magnitude))
            cycle += 1

    async def bench(context: SimulatorContext) -> None:
        machine.rule = rule
        await write_scales(context, ranks, machine, range(machine.arch.ranks))
        await _write_register(context, mover, machine.memories.register)
        context.set(mover.rate, rule.rate)
        context.set(mover.momentum, rule.momentum)
        context.set(ranks.pull, rule.pull or 0)
        context.set(ranks.pulls, rule.pull is not None)
        for fields, at in walks:
            given = machine.banks[Bank.GRADIENT]
            if fields["kind"] == Kind.STRENGTH:
                given[:] = totals(len(given))
            x, total = (machine.banks[bank][at.get("x", at["w"])].tolist() for bank in (Bank.LATENT, Bank.GRADIENT))
            for results in (steps, latents, peaks):
                results.clear()
            context.set(ranks.running, 1)
            apart = 1 if fields["kind"] in FREE else SPACING
            for k, operands in enumerate(zip(x, total, strict=True)):
                addresses = {stream: int(at[stream][k]) for stream in ("w", "init", "y") if stream in at}
                last = k + 1 == len(x)
                payload = {"x": operands[0], "total": operands[1], **addresses, "complete": last, "mode": fields}
                await step(context, mover.i, payload, PAUSE if last else apart + int(random.choice([0, 0, 0, 3])))

            _KINDS[Kind(fields["kind"])](machine, machine.arch.instruction.const(fields), at)
            assert (latents, peaks) == _expected(machine, fields, at, steps, total)
            assert context.get(mover.register) == machine.memories.register
            if fields["kind"] == Kind.SURVIVE:
                await hold_scales(context, ranks, machine)

    simulate(circuit, bench, watch)


def _expected(machine: _Machine, fields: dict, at: dict[str, np.ndarray], steps: list[int], total: list[int]) -> tuple[list, list]:
    """Behind a walk whose steps came in these cycles: what becomes of which latents, and the magnitudes of their gradients."""
    kind = Kind(fields["kind"])
    if kind not in (Kind.MOVE, Kind.CLEAN):
        return [], []
    left = (machine.banks[bank][at["y"]].tolist() for bank in (Bank.LATENT, Bank.GRADIENT))
    made = [*zip(steps, at["y"].tolist(), *left, strict=True)]
    if kind is Kind.CLEAN:
        return [each for each, there in zip(made, machine.there(at), strict=True) if not there], []
    return made, [(cycle, fields["number"], abs(each)) for cycle, each in zip(steps, total, strict=True)]


def _units(arch: TrainingArch) -> tuple[Mover, Ranks, Module]:
    """Both units, which see the same steps."""
    m = Module()
    m.submodules.mover, m.submodules.ranks = mover, ranks = Mover(arch), Ranks(arch)
    wiring.connect(m, mover.ranks, ranks.entry)
    m.d.comb += [ranks.i.payload.eq(mover.i.payload), ranks.i.valid.eq(mover.i.valid)]
    return mover, ranks, m


async def _write_register(context: SimulatorContext, mover: Mover, register: int) -> None:
    """The shift register from a host."""
    context.set(mover.written, register)
    context.set(mover.en, 1)
    await context.tick()
    context.set(mover.en, 0)
    context.set(mover.written, register ^ 9)
    assert context.get(mover.register) == register
