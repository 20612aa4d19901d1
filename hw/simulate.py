"""A program on the gateware itself, clock by clock."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

import numpy as np
from amaranth.lib import stream
from amaranth.sim import Simulator, SimulatorContext
from tqdm import tqdm

from bayestt.ir.schedule import batches
from hw.cycles import cycles
from hw.gateware.datapath import Datapath
from hw.program import Program, check_images

AT_ONCE = repeat(0)
"""No pauses."""

CLOCK_S = 1e-6
GLANCE_CYCLES = 200
"""From one look at the progress bar to the next."""


@dataclass(frozen=True)
class Simulation:
    """Scores (n, scores) int64, and how many cycles each batch took the gateware by its own count, from the end of the one before."""

    y: np.ndarray
    cycles: tuple[int, ...]


def simulate(program: Program, x: np.ndarray, pauses: Iterator[int] = AT_ONCE) -> Simulation:
    """Load a program into the gateware and run integer images through it: (n, features), any n, in batches of `rows`.

    `pauses` says, without end, for how many cycles each transfer of each stream is kept waiting: scores must not depend on it.
    """
    arch = program.arch
    words, groups = program.encode().tolist(), list(batches(check_images(x, program), arch.rows))
    machine = Datapath(arch)
    scores, ends = [], [0]

    async def host(context: SimulatorContext) -> None:
        await put(context, machine.load, words, pauses)
        for batch, _ in groups:
            await put(context, machine.image, _in_memory_order(batch, program).tolist(), pauses)

    async def reader(context: SimulatorContext) -> None:
        for _, count in groups:
            taken = await take(context, machine.score, program.score.max() - program.score.min() + 1, pauses)
            ends.append(context.get(machine.cycles))
            scores.append(np.array(taken, np.int64)[program.score - program.score.min(), :count].T)

    simulator = Simulator(machine)
    simulator.add_clock(CLOCK_S)
    simulator.add_testbench(host)
    simulator.add_testbench(reader)
    with tqdm(total=len(words) + cycles(program, len(groups)), desc="simulate", unit=" cycles", delay=3, leave=False) as bar:
        while len(scores) < len(groups):
            simulator.run_until((bar.n + GLANCE_CYCLES) * CLOCK_S)
            bar.update(GLANCE_CYCLES)
    y = np.concatenate(scores or [np.zeros((0, len(program.score)), np.int64)])
    return Simulation(y, tuple(np.diff(ends).tolist()))


async def put(context: SimulatorContext, port: stream.Interface, payloads: Iterable[Any], pauses: Iterator[int] = AT_ONCE) -> None:
    """Send payloads into a stream, each after a pause."""
    for payload, pause in zip(payloads, pauses, strict=False):
        for _ in range(pause):
            await context.tick()
        context.set(port.payload, payload)
        context.set(port.valid, 1)
        await context.tick().until(port.ready)
        context.set(port.valid, 0)


async def take(context: SimulatorContext, port: stream.Interface, count: int, pauses: Iterator[int] = AT_ONCE) -> list[Any]:
    """Take so many payloads from a stream, each after a pause."""
    payloads = []
    for pause in islice(pauses, int(count)):
        for _ in range(pause):
            await context.tick()
        context.set(port.ready, 1)
        (payload,) = await context.tick().sample(port.payload).until(port.valid)
        context.set(port.ready, 0)
        payloads.append(payload)
    return payloads


def _in_memory_order(batch: np.ndarray, program: Program) -> np.ndarray:
    """A batch (images, features) as the data words that hold it: (words, images), zero where no feature lies."""
    places = program.image - program.image.min()
    words = np.zeros((places.max() + 1, len(batch)), np.int64)
    words[places] = batch.T
    return words
