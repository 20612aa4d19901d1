"""The board: its pins and its clock are what the tools are told; a baud rate that its clock does not give is refused."""

import gc
import sys
from pathlib import Path

import pytest
from amaranth_boards.ulx3s import ULX3S_85F_Platform
from test_serial import ARCH

from hw.board import BAUD, Board, bitstream
from hw.synthesize import PARTS


def test_the_tools_are_told_the_pins_of_the_port_and_the_clock() -> None:
    """By the board's own constraints: M1 is where the USB chip sends, L4 where it listens, G2 the oscillator."""
    platform = ULX3S_85F_Platform()
    plan = platform.prepare(Board(ARCH, platform.default_clk_frequency), "machine")
    places = plan.files["machine.lpf"]
    for port, site in (("uart_0__rx__io", "M1"), ("uart_0__tx__io", "L4"), ("clk25_0__io", "G2")):
        assert f'LOCATE COMP "{port}" SITE "{site}";' in places
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;' in places
    part = " ".join(PARTS["ecp5-85f"].place)
    assert part in plan.files["build_machine.sh"]


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_a_baud_rate_that_the_clock_does_not_give_is_refused() -> None:
    assert Board(ARCH, 25e6, BAUD).serial.bit_cycles == 25
    assert Board(ARCH, 25e6, 115_200).serial.bit_cycles == 217
    with pytest.raises(ValueError, match="3000000 baud are 8.33 cycles a bit, expected a whole number within 2 %: choose one like 1000000"):
        Board(ARCH, 25e6, 3_000_000)
    gc.collect()  # what was refused goes here, unused, and not with a warning in another test


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "amaranth_boards.ulx3s", None)
    with pytest.raises(ModuleNotFoundError, match=r"the package amaranth-boards is not installed: pip install 'bayestt\[fpga\]'"):
        bitstream(ARCH, tmp_path / "board")


@pytest.mark.slow
def test_a_bitstream_is_built_for_the_boards_clock(tmp_path: Path) -> None:
    built = bitstream(ARCH, tmp_path / "board")
    assert b"LFE5U-85F-6CABGA381" in built.bitstream.read_bytes()[:64]
    assert built.fastest_hz > built.clock_hz == 25e6
    assert built.used["DSP"] == ARCH.rows * ARCH.lanes
    assert set(built.used) == set(built.there)
