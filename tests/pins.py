"""A serial port that is the pins of the simulated gateware: bits are put on its line and read from it, clock by clock."""

from collections import deque
from collections.abc import Callable

from amaranth.sim import Simulator, SimulatorContext

from hw.arch import Arch
from hw.gateware.serial import SerialDatapath
from hw.simulate import CLOCK_S

BIT_CYCLES, PATIENCE = 4, 200


class Pins:
    """The two pins of a `SerialDatapath`. `there` and `back` say what arrives of the bytes that are sent there, and of those that come."""

    def __init__(self, arch: Arch) -> None:
        self.there: Callable[[bytes], bytes] = bytes
        self.back: Callable[[bytes], bytes] = bytes
        self._machine = SerialDatapath(arch, BIT_CYCLES, PATIENCE)
        self._given: deque[int] = deque()
        self._come = bytearray()
        self._cycle = 0
        self._simulator = Simulator(self._machine)
        self._simulator.add_clock(CLOCK_S)
        self._simulator.add_testbench(self._send, background=True)
        self._simulator.add_testbench(self._take, background=True)

    def write(self, sent: bytes) -> None:
        """Put bytes on the line, each when those before have left."""
        self._given.extend(self.there(sent))

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer if no more come in twice the machine's patience."""
        still, there = 0, 0
        while len(self._come) < size and still < 2 * PATIENCE:
            self._cycle += BIT_CYCLES
            self._simulator.run_until(self._cycle * CLOCK_S)
            busy = bool(self._given) or len(self._come) > there
            still, there = 0 if busy else still + BIT_CYCLES, len(self._come)
        found = bytes(self._come[:size])
        del self._come[:size]
        return found

    async def _send(self, context: SimulatorContext) -> None:
        """Send what is given, without end."""
        while True:
            byte = self._given.popleft() if self._given else None
            for bit in (1,) if byte is None else (0, *(byte >> place & 1 for place in range(8)), 1):
                context.set(self._machine.rx, bit)
                await _pass(context, BIT_CYCLES)

    async def _take(self, context: SimulatorContext) -> None:
        """Take what comes, every bit in its middle, without end."""
        while True:
            while context.get(self._machine.tx):
                await _pass(context, 1)
            await _pass(context, BIT_CYCLES // 2)
            bits = []
            for _ in range(9):
                await _pass(context, BIT_CYCLES)
                bits.append(context.get(self._machine.tx))
            assert bits.pop() == 1
            self._come.extend(self.back(bytes([sum(bit << place for place, bit in enumerate(bits))])))


async def _pass(context: SimulatorContext, cycles: int) -> None:
    """Let so many cycles pass."""
    for _ in range(cycles):
        await context.tick()
