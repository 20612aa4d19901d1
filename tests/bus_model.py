"""What cocotb runs on the Verilog of the machine behind AXI: two layers, by cocotbext-axi's models of the buses."""

from collections.abc import Iterator

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.handle import HierarchyObject
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp, AxiStreamBus, AxiStreamSink, AxiStreamSource
from test_datapath import ARCH, FEATURES, SCORES, two_layers

from hw.emulate import emulate
from hw.gateware.axi import IDENTITY, fingerprint
from hw.gateware.registers import CONTROL, STATUS, Register
from hw.program import in_memory_order


@cocotb.test()
@cocotb.parametrize(paused=[False, True])
async def the_machine_serves_every_bus(dut: HierarchyObject, paused: bool) -> None:
    """Registers answer, scores are the emulator's, in a packet for every batch, also after a reset in the middle of an image."""
    cocotb.start_soon(Clock(dut.aclk, 10, unit="ns").start())
    reset = {"clock": dut.aclk, "reset": dut.aresetn, "reset_active_level": False}
    processor = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), **reset)
    load, image = (AxiStreamSource(AxiStreamBus.from_prefix(dut, f"s_axis_{name}"), byte_lanes=4, **reset) for name in ("load", "image"))
    score = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis_score"), byte_lanes=4, **reset)
    reads, writes = processor.read_if, processor.write_if
    if paused:
        for seed, channel in enumerate(
            (reads.ar_channel, reads.r_channel, writes.aw_channel, writes.w_channel, writes.b_channel, load, image, score)
        ):
            channel.set_pause_generator(_pauses(seed))
    dut.aresetn.value = 0
    await ClockCycles(dut.aclk, 5)
    dut.aresetn.value = 1

    program = two_layers(1)
    x = np.random.default_rng(1).integers(-128, 128, (4, 2, FEATURES))
    assert await processor.read_dword(Register.IDENTITY) == IDENTITY
    assert await processor.read_dword(Register.ARCH) == fingerprint(ARCH)
    assert (await processor.read(Register.CONTROL + 4, 4)).resp == AxiResp.SLVERR
    assert (await processor.write(Register.STATUS, bytes(4))).resp == AxiResp.SLVERR

    await load.send(program.loads[0].tobytes())
    await image.send(np.zeros(FEATURES - 1, "<u4").tobytes())
    await image.wait()
    await processor.write_dword(Register.CONTROL, CONTROL.const({"reset": 1}).as_bits())
    await processor.write_dword(Register.CONTROL, 0)

    await load.send(program.loads[0].tobytes())
    for batch in x:
        # Two elements of 8 bits are a word, and a beat has room for four.
        words = np.zeros((FEATURES, 4), np.int8)
        words[:, :2] = in_memory_order(batch, program)
        await image.send(words.tobytes())
    for batch in x:
        frame = await score.recv()
        found = np.frombuffer(bytes(frame.tdata), "<i4").reshape(SCORES, 2)
        assert found[program.score - program.score.min()].T.tolist() == emulate(program, batch).tolist()
    assert score.empty()
    status = STATUS.from_bits(await processor.read_dword(Register.STATUS))
    assert (status.busy, status.error, status.image, status.score) == (0, 0, 1, 0)


def _pauses(seed: int) -> Iterator[bool]:
    """Whether a channel pauses, cycle by cycle: two cycles of five."""
    random = np.random.default_rng(seed)
    while True:
        yield bool(random.random() < 0.4)
