"""The wires of a serial port: bytes come as they were sent, on clocks that differ; one without its stop bit is dropped."""

import gc

import numpy as np
import pytest
from amaranth import Module
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.gateware.receiver import Receiver
from hw.gateware.transmitter import Transmitter
from hw.simulate import put


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 255), st.booleans(), st.integers(0, 30)), max_size=8), st.integers(4, 30), st.floats(-0.035, 0.035)
)
def test_bytes_come_as_they_were_sent_but_those_without_a_stop_bit(frames: list[tuple[int, bool, int]], cycles: int, drift: float) -> None:
    """Every edge lies where another clock has it, rounded to ours: only slow lines leave room for that."""
    drift = drift if cycles >= 20 else 0
    bits, came = [1] * 5, []
    for byte, stops, pause in frames:
        # A line that stays low without a stop bit rises before the next byte.
        frame = [0, *(byte >> place & 1 for place in range(8)), int(stops), *([] if stops else [1])]
        edges = np.rint(np.arange(len(frame) + 1) * cycles * (1 + drift)).astype(int)
        bits += np.repeat(frame, np.diff(edges)).tolist() + [1] * pause
    receiver = Receiver(cycles)

    async def line(context: SimulatorContext) -> None:
        for bit in bits + [1] * 2 * cycles:
            context.set(receiver.rx, bit)
            _, _, valid, payload = await context.tick().sample(receiver.o.valid, receiver.o.payload)
            came.extend([payload] * valid)

    _run(receiver, line)
    assert came == [byte for byte, stops, _ in frames if stops]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 60)), max_size=6), st.integers(4, 9))
def test_a_receiver_takes_what_a_transmitter_sends(sent: list[tuple[int, int]], cycles: int) -> None:
    module = Module()
    module.submodules.transmitter = transmitter = Transmitter(cycles)
    module.submodules.receiver = receiver = Receiver(cycles)
    module.d.comb += receiver.rx.eq(transmitter.tx)
    came = []

    async def sender(context: SimulatorContext) -> None:
        await put(context, transmitter.i, [byte for byte, _ in sent], iter([pause for _, pause in sent]))
        await context.tick().repeat(12 * cycles)

    async def reader(context: SimulatorContext) -> None:
        while True:
            _, _, valid, payload = await context.tick().sample(receiver.o.valid, receiver.o.payload)
            came.extend([payload] * valid)

    _run(module, sender, reader)
    assert came == [byte for byte, _ in sent]


@pytest.mark.parametrize("low", [1, 3, 2000])
def test_what_is_no_start_bit_is_no_byte(low: int) -> None:
    """A glitch, and a line that is held low: nothing comes, and then the next byte does."""
    receiver, came = Receiver(8), []

    async def line(context: SimulatorContext) -> None:
        byte = [0, *[1] * 8, 1]
        for bit in [1] * 5 + [0] * low + [1] * 100 + np.repeat(byte, 8).tolist() + [1] * 20:
            context.set(receiver.rx, bit)
            _, _, valid, payload = await context.tick().sample(receiver.o.valid, receiver.o.payload)
            came.extend([payload] * valid)

    _run(receiver, line)
    assert came == [255]


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize("component", [Receiver, Transmitter])
def test_bits_too_short_are_refused(component: type) -> None:
    with pytest.raises(ValueError, match="a bit takes 3 cycles, expected at least 4: choose a slower line or a faster clock"):
        component(3)
    gc.collect()  # what was refused goes here, unused, and not with a warning in another test


def _run(circuit: Module | Receiver, bench, watch=None) -> None:
    """Simulate a circuit under a testbench, watched by another."""
    simulator = Simulator(circuit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    if watch is not None:
        simulator.add_testbench(watch, background=True)
    simulator.run()
