"""The machine at its AXI ports: scores in packets, packets that end when a reset comes in between, and what a bus costs."""

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext
from test_datapath import ARCH, FEATURES, SCORES, two_layers

from hw.cycles import cycles
from hw.driver import Driver, Simulated
from hw.gateware.axi import AxiDatapath
from hw.gateware.registers import CONTROL, Register
from hw.gateware.widen import beats
from hw.program import in_memory_order, packed
from hw.simulate import put, take

BEATS = beats(ARCH.rows * ARCH.acc_bits)
"""Of a score word."""


def test_the_scores_of_a_batch_are_a_packet() -> None:
    transport = _with_a_program()
    for _ in range(3):
        transport.write_stream("image", np.zeros(FEATURES, np.uint32))
        # More than a packet is wanted, but it ends.
        assert len(transport.read_stream("score", 2 * SCORES * BEATS)) == SCORES * BEATS


@pytest.mark.parametrize("taken", range(1, SCORES * BEATS + 1))
def test_a_packet_that_has_begun_ends_with_a_reset(taken: int) -> None:
    transport = _with_a_program()
    transport.write_stream("image", np.full(FEATURES, 0x0101, np.uint32))
    transport.read_stream("score", taken)
    transport.write_register(Register.CONTROL, CONTROL.const({"reset": 1}).as_bits())
    left = SCORES * BEATS - taken
    if left:
        # The beat that waits, and another that ends the packet, unless that one does.
        found = transport.read_stream("score", 99).tolist()
        assert len(found) == min(left, 2) and found[1:] == [0] * (len(found) - 1)
    assert transport.read_register(Register.STATUS) == 0


def test_a_bus_costs_a_cycle_for_every_beat_of_scores_but_the_last_word_s() -> None:
    program = two_layers(0)
    machine = AxiDatapath(ARCH)
    x = np.random.default_rng(0).integers(-128, 128, (2, FEATURES))
    image = packed(in_memory_order(x, program), ARCH.data_bits, 1).ravel()
    counts = []

    async def host(context: SimulatorContext) -> None:
        await put(context, machine.s_axis_load.t, [{"data": word} for word in program.loads[0].tolist()])
        await context.tick().repeat(9)
        counts.append(await _count(context, machine))
        await put(context, machine.s_axis_image.t, [{"data": word} for word in image.tolist()])

    async def reader(context: SimulatorContext) -> None:
        await take(context, machine.m_axis_score.t, SCORES * BEATS)
        await context.tick()
        counts.append(await _count(context, machine))

    simulator = Simulator(machine)
    simulator.add_clock(1e-6)
    simulator.add_testbench(host)
    simulator.add_testbench(reader)
    simulator.run()
    # While the beats of the first word leave, the second waits in the datapath, and so on; the last one leaves it at once.
    assert counts[1] - counts[0] == cycles(program) + (SCORES - 1) * BEATS


async def _count(context: SimulatorContext, machine: AxiDatapath) -> int:
    """What the register of cycles says."""
    await put(context, machine.s_axi.ar, [{"addr": Register.CYCLES}])
    (answer,) = await take(context, machine.s_axi.r, 1)
    return answer.data


def _with_a_program() -> Simulated:
    """A machine that waits for images."""
    transport = Simulated(ARCH)
    Driver(transport, two_layers(0)).load()
    return transport
