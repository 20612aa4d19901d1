"""The machine on a board that can be bought: a bitstream for a ULX3S with the 85F chip, which is asked over its USB-serial port."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from amaranth import Module
from amaranth.build import Platform
from amaranth.lib import io, wiring
from tqdm import tqdm

from hw.arch import Arch
from hw.gateware.serial import SerialDatapath
from hw.synthesize import PARTS, absorbed, called, check_part, collisions_do_not_matter, placed, used

PART = "ecp5-85f"
BAUD = 1_000_000
"""Bits a second: a whole number of the board's clock cycles, and fast enough for a word in 60 us."""
PATIENCE_S = 1.0
"""For how long the machine waits for a word, or for the rest of a request."""


@dataclass(frozen=True)
class Built:
    """A bitstream's file, the clock that it runs by, the fastest that it could, and what of the chip it takes, `used` of `there`."""

    bitstream: Path
    clock_hz: float
    fastest_hz: float
    used: Mapping[str, int]
    there: Mapping[str, int]


class Board(wiring.Component):
    """A `SerialDatapath` at the pins of a board's USB-serial port, by the board's clock as it is."""

    def __init__(self, arch: Arch, clock_hz: float, baud: int = BAUD) -> None:
        bit_cycles = round(clock_hz / baud)
        if abs(bit_cycles * baud / clock_hz - 1) > 0.02:
            raise ValueError(
                f"{baud} baud are {clock_hz / baud:.2f} cycles a bit, expected a whole number within 2 %: choose one like {BAUD}"
            )
        self.serial = SerialDatapath(arch, bit_cycles, round(PATIENCE_S * clock_hz))
        super().__init__({})

    def elaborate(self, platform: Platform) -> Module:
        m = Module()
        m.submodules.serial = self.serial
        pins = platform.request("uart", dir="-")
        m.submodules.rx, m.submodules.tx = rx, tx = io.Buffer("i", pins.rx), io.Buffer("o", pins.tx)
        m.d.comb += [self.serial.rx.eq(rx.i), tx.o.eq(self.serial.tx)]
        return m


def bitstream(arch: Arch, folder: str | Path, baud: int = BAUD, seed: int = 0) -> Built:
    """Build the machine for the board in a folder, by Amaranth's plan for it: `machine.bit`, and what the tools write on the way.

    A machine that does not fit is refused, and one that is too slow for the board's clock. None was ever loaded into a board.
    """
    platform = _ulx3s()
    clock_hz = platform.default_clk_frequency
    options = f"--report timing.json --seed {seed}"
    plan = platform.prepare(Board(arch, clock_hz, baud), "machine", nextpnr_opts=options)
    plan.files["machine.il"] = collisions_do_not_matter(plan.files["machine.il"])
    folder = plan.extract(folder)
    commands = json.loads(plan.files["build_machine.json"])["commands"]
    with tqdm(total=len(commands), leave=False, unit="tool") as bar:
        for tool, *arguments in commands:
            called(tool, arguments, folder, bar)
            if tool == "yosys":
                absorbed(folder / "machine.json")
                netlist = json.loads((folder / "machine.json").read_text())["modules"]["machine"]
                check_part(used(netlist, PARTS[PART]), PART)
    taken, fastest_hz = placed(json.loads((folder / "timing.json").read_text()))
    return Built(folder / "machine.bit", clock_hz, fastest_hz, taken, PARTS[PART].there)


def _ulx3s() -> Platform:
    """The board, as amaranth-boards describes it."""
    try:
        from amaranth_boards.ulx3s import ULX3S_85F_Platform
    except ModuleNotFoundError as fault:
        raise ModuleNotFoundError("the package amaranth-boards is not installed: pip install 'bayestt[fpga]'") from fault
    return ULX3S_85F_Platform()
