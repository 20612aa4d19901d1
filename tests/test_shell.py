"""The shell: a program, images and scores as bytes, and the same scores."""

import numpy as np
from amaranth.sim import Simulator, SimulatorContext
from test_datapath import SCORES, two_layers

from hw.emulate import emulate
from hw.gateware.shell import Shell
from hw.simulate import put, take


def test_the_machine_behind_bytes_gives_its_scores() -> None:
    program = two_layers(0, final_shift=3)
    arch = program.arch
    x = np.random.default_rng(0).integers(-128, 128, (4, len(program.image)))
    shell = Shell(arch)
    seen: list[int] = []

    async def host(context: SimulatorContext) -> None:
        await put(context, shell.load, program.loads[0].astype("<u4").tobytes())
        for batch in (x[:2], x[2:]):
            await put(context, shell.image, batch.T.astype("<i1").tobytes())

    async def reader(context: SimulatorContext) -> None:
        seen.extend(await take(context, shell.score, 2 * SCORES * arch.rows * arch.acc_bits // 8))

    simulator = Simulator(shell)
    simulator.add_clock(1e-6)
    for bench in (host, reader):
        simulator.add_testbench(bench)
    simulator.run()
    scores = np.frombuffer(bytes(seen), "<i4").reshape(2, SCORES, 2).transpose(0, 2, 1).reshape(4, SCORES)
    assert scores.tolist() == emulate(program, x).tolist()


def test_every_stream_is_a_byte_wide_and_external_ones_are_there_with_an_external_memory() -> None:
    for depth, expected in ((0, {"load", "image", "score"}), (64, {"load", "image", "score", "read", "answer", "write"})):
        shell = Shell(two_layers(0).arch.__class__(rows=2, lanes=2, external_depth=depth))
        Simulator(shell)
        widths = {path[0]: len(port) for path, _, port in shell.signature.flatten(shell) if path[-1] == "payload"}
        assert widths == dict.fromkeys(expected, 8)
