"""The machine behind AXI from a host: a driver, the four calls that it needs of a board, and these for the simulated gateware."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Protocol

import numpy as np
from amaranth.lib import data, stream
from amaranth.sim import Simulator, SimulatorContext
from tqdm import tqdm

from bayestt.ir.schedule import batches
from hw.arch import Arch
from hw.gateware.axi import IDENTITY, AxiDatapath, fingerprint
from hw.gateware.registers import CONTROL, OKAY, STATUS, Register
from hw.gateware.widen import beats
from hw.program import Program, check_images, in_memory_order, packed, unpacked
from hw.simulate import CLOCK_S

PATIENCE_CYCLES = 100_000
"""For how long a simulated bus may stand still."""


class Transport(Protocol):
    """The way to a machine; streams are `load`, `image` and `score`, words are 32 bits, addresses are in bytes from the first register."""

    def write_stream(self, name: str, words: np.ndarray) -> None:
        """Send uint32 words, and return when the machine has taken them."""

    def read_stream(self, name: str, count: int) -> np.ndarray:
        """So many words, or fewer where their packet ends before: a uint32 array; waits for them."""

    def read_register(self, address: int) -> int:
        """What a register holds."""

    def write_register(self, address: int, value: int) -> None:
        """Write a register."""


@dataclass(frozen=True)
class Status:
    """What a machine says of itself: it computes; it was given no program; it takes images; a score waits."""

    busy: bool
    error: bool
    image: bool
    score: bool


@dataclass(frozen=True)
class Driver:
    """A program and the way to a machine to run it on."""

    transport: Transport
    program: Program

    def load(self) -> None:
        """Reset the machine and bring the program to it, where it stays, if it can: others are sent with every batch, by `run`."""
        register, arch = self.transport.read_register, self.program.arch
        if (found := register(Register.IDENTITY)) != IDENTITY:
            raise RuntimeError(f"the register at 0x00 says {found:#010x}, expected {IDENTITY:#010x}: give the address of a bayestt machine")
        if (found := register(Register.ARCH)) != fingerprint(arch):
            raise RuntimeError(
                f"the machine's Arch has the checksum {found:#010x}, expected {fingerprint(arch):#010x}: "
                "assemble the program for the Arch of the machine, or make axi_verilog of the program's"
            )
        self.reset()
        if self.program.resident:
            self.transport.write_stream("load", self.program.loads[0])
            self._polled(lambda status: not status.busy)

    def run(self, x: np.ndarray) -> np.ndarray:
        """Scores of integer images (n, features), any n: int64 (n, scores), the numbers of `hw.emulate`. The program must be loaded."""
        program = self.program
        groups = list(batches(check_images(x, program), program.arch.rows))
        if program.resident and not self._polled(lambda status: status.image or not status.busy).image:
            raise RuntimeError("the machine takes no images, expected one with a program: call load first")
        scores = [np.zeros((0, len(program.score)), np.int64)]
        with tqdm(total=len(groups), desc="run", unit="batch", delay=3, leave=False) as bar:
            # A resident machine takes the next batch while it computes one.
            ahead = int(program.resident)
            for number in range(len(groups) + ahead):
                if number < len(groups):
                    self._sent(groups[number][0])
                if number >= ahead:
                    scores.append(self._taken(groups[number - ahead][1]))
                    bar.update()
        return np.concatenate(scores)

    def status(self) -> Status:
        """What the machine says of itself now."""
        found = STATUS.from_bits(self.transport.read_register(Register.STATUS))
        return Status(**{name: bool(found[name]) for name, _ in STATUS})

    def cycles(self) -> int:
        """For how many cycles the machine has been busy since its reset, modulo 2^32."""
        return self.transport.read_register(Register.CYCLES)

    def reset(self) -> None:
        """Bring the machine to where it was when it was switched on, at any time; scores that wait are thrown away."""
        self.transport.write_register(Register.CONTROL, CONTROL.const({"reset": 1}).as_bits())
        while self.status().score:
            self.transport.read_stream("score", self._score_beats)
        self.transport.write_register(Register.CONTROL, 0)

    @property
    def _score_beats(self) -> int:
        """How many 32-bit words the scores of a batch are."""
        return self._score_words * beats(self.program.arch.rows * self.program.arch.acc_bits)

    @property
    def _score_words(self) -> int:
        """How many score words a batch has."""
        return int(self.program.score.max() - self.program.score.min()) + 1

    def _polled(self, enough: Callable[[Status], bool]) -> Status:
        """The first status that is enough; an error is raised."""
        while not (status := self.status()).error:
            if enough(status):
                return status
        raise RuntimeError("the machine found that what it was given is no program for it: call load, which resets it, and run again")

    def _sent(self, batch: np.ndarray) -> None:
        """Send a batch (rows, features), and all segments of a program that does not stay."""
        arch = self.program.arch
        words = packed(in_memory_order(batch, self.program), arch.data_bits, beats(arch.rows * arch.data_bits)).ravel()
        loads = () if self.program.resident else self.program.loads
        for load in loads[:1]:
            self.transport.write_stream("load", load)
        self.transport.write_stream("image", words)
        for load in loads[1:]:
            self.transport.write_stream("load", load)

    def _taken(self, count: int) -> np.ndarray:
        """The scores of so many images of a batch."""
        arch, first = self.program.arch, self.program.score.min()
        self._polled(lambda status: status.score or not status.busy)
        words = self.transport.read_stream("score", self._score_beats).reshape(self._score_words, -1)
        return unpacked(words, arch.rows, arch.acc_bits)[self.program.score - first, :count].T


class Simulated:
    """The transport to the gateware of an Arch, simulated clock by clock.

    `pauses` says, over and over, for how many cycles each transfer of each channel is kept waiting.
    """

    def __init__(self, arch: Arch, pauses: Sequence[int] = (0,)) -> None:
        machine = AxiDatapath(arch)
        bus = machine.s_axi
        senders = {"load": machine.s_axis_load.t, "image": machine.s_axis_image.t, "aw": bus.aw, "w": bus.w, "ar": bus.ar}
        takers = {"score": machine.m_axis_score.t, "b": bus.b, "r": bus.r}
        self._given: dict[str, deque[dict[str, int]]] = {name: deque() for name in senders}
        self._wanted = dict.fromkeys(takers, 0)
        self._taken: dict[str, list[data.Const]] = {name: [] for name in takers}
        self._cycle = 0
        self._simulator = Simulator(machine)
        self._simulator.add_clock(CLOCK_S)
        for name, port in senders.items():
            self._simulator.add_testbench(partial(self._send, name=name, port=port, pauses=cycle(pauses)), background=True)
        for name, port in takers.items():
            self._simulator.add_testbench(partial(self._take, name=name, port=port, pauses=cycle(pauses)), background=True)

    def write_stream(self, name: str, words: np.ndarray) -> None:
        """Send uint32 words, and return when the machine has taken them."""
        self._given[name].extend({"data": word} for word in words.tolist())
        self._run(name, lambda: len(self._given[name]))

    def read_stream(self, name: str, count: int) -> np.ndarray:
        """So many words, or fewer where their packet ends before: a uint32 array; waits for them."""
        return np.array([beat.data for beat in self._answers(name, count)], np.uint32)

    def read_register(self, address: int) -> int:
        """What a register holds."""
        self._given["ar"].append({"addr": address})
        (answer,) = self._answers("r", 1)
        _check_response(address, answer.resp)
        return answer.data

    def write_register(self, address: int, value: int) -> None:
        """Write a register."""
        self._given["aw"].append({"addr": address})
        self._given["w"].append({"data": value, "strb": 0b1111})
        (answer,) = self._answers("b", 1)
        _check_response(address, answer.resp)

    def _answers(self, name: str, count: int) -> list[data.Const]:
        """So many payloads of a channel, or those up to the end of a packet."""
        self._taken[name].clear()
        self._wanted[name] = count
        self._run(name, lambda: self._wanted[name])
        return list(self._taken[name])

    def _run(self, name: str, left: Callable[[], int]) -> None:
        """Simulate until nothing is left to pass a channel."""
        still = 0
        with tqdm(total=left(), desc=name, unit="word", delay=3, leave=False) as bar:
            while expected := left():
                if still == PATIENCE_CYCLES:
                    raise TimeoutError(
                        f"the stream {name} stood still for {still} cycles, expected {expected} more words: "
                        "load a program, and give whole batches"
                    )
                self._cycle += 1
                self._simulator.run_until(self._cycle * CLOCK_S)
                passed = expected - left()
                still = 0 if passed else still + 1
                bar.update(passed)

    async def _send(self, context: SimulatorContext, name: str, port: stream.Interface, pauses: Iterator[int]) -> None:
        """Send what is given to a channel, without end."""
        given, wait = self._given[name], next(pauses)
        while True:
            offers = bool(given) and wait == 0
            context.set(port.valid, offers)
            if offers:
                context.set(port.payload, given[0])
            _, _, ready = await context.tick().sample(port.ready)
            passed = offers and ready
            wait = next(pauses) if passed else max(wait - 1, 0)
            if passed:
                given.popleft()

    async def _take(self, context: SimulatorContext, name: str, port: stream.Interface, pauses: Iterator[int]) -> None:
        """Take what is wanted of a channel, without end."""
        wait = next(pauses)
        while True:
            takes = self._wanted[name] > 0 and wait == 0
            context.set(port.ready, takes)
            _, _, valid, payload = await context.tick().sample(port.valid, port.payload)
            passed = takes and valid
            wait = next(pauses) if passed else max(wait - 1, 0)
            if passed:
                self._taken[name].append(payload)
                ends = "last" in payload.shape().members and payload.last
                self._wanted[name] = 0 if ends else self._wanted[name] - 1


def _check_response(address: int, response: int) -> None:
    """Refuse what the machine refused."""
    if response != OKAY:
        raise ValueError(f"the machine has no register to read or write at {address:#04x}, expected one of hw/README.md: take its address")
