"""The Verilog text: plain port names, a module for every component, and the same text every time."""

import re
import subprocess
import sys

import pytest

from hw.arch import Arch
from hw.verilog import axi_verilog, verilog

SMALL = {"image_depth": 16, "data_depth": 16, "weight_depth": 16, "init_depth": 16, "score_depth": 16, "code_depth": 16}


CHANNELS = {
    "s_axi_aw": {"addr": 12},
    "s_axi_w": {"data": 32, "strb": 4},
    "s_axi_b": {"resp": 2},
    "s_axi_ar": {"addr": 12},
    "s_axi_r": {"data": 32, "resp": 2},
    "s_axis_load_t": {"data": 32},
    "s_axis_image_t": {"data": 32},
    "m_axis_score_t": {"data": 32, "last": 1},
}
SENT = ("s_axi_b", "s_axi_r", "m_axis_score_t")
"""The channels on which the machine sends."""
LANES = ("mac", "mac.lane_0", "mac.lane_1", *(f"mac.lane_{lane}.multiplier_{row}" for lane in (0, 1) for row in (0, 1)))
COMPONENTS = {"loader", "fetcher", "walker", "tile_0", *(f"tile_0.{part}" for part in ("requantize", *LANES))}
"""The parts of a machine of two rows and two lanes."""


def test_axi_ports_have_the_names_by_which_tools_know_them() -> None:
    text = axi_verilog(Arch(rows=2, lanes=2, **SMALL))
    top = re.search(r"^module axi_datapath\(.*?^endmodule", text, re.DOTALL | re.MULTILINE)[0]
    expected = {"aclk": ("input", 1), "aresetn": ("input", 1)}
    for channel, fields in CHANNELS.items():
        there, back = ("output", "input") if channel in SENT else ("input", "output")
        expected |= {f"{channel}{name}": (there, bits) for name, bits in {**fields, "valid": 1}.items()} | {f"{channel}ready": (back, 1)}
    assert _widths(top) == expected
    buses = "ASSOCIATED_BUSIF s_axi:s_axis_load:s_axis_image:m_axis_score, ASSOCIATED_RESET aresetn"
    assert f'X_INTERFACE_PARAMETER = "{buses}" *)\n  input aclk;' in top
    assert 'X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)\n  input aresetn;' in top


def test_axi_comes_around_the_same_modules() -> None:
    modules = set(re.findall(r"^module \\?(\S+?) ?\(", axi_verilog(Arch(rows=2, lanes=2, **SMALL)), re.MULTILINE))
    parts = {"registers", "load", "image", "score", "datapath", *(f"datapath.{part}" for part in COMPONENTS)}
    assert modules == {"axi_datapath", "axi_datapath.axi", *(f"axi_datapath.axi.{part}" for part in parts)}


def test_ports_have_plain_names_and_the_widths_of_the_arch() -> None:
    arch = Arch(rows=2, lanes=3, data_bits=6, acc_bits=20, **SMALL)
    top = re.search(r"^module datapath\((.*?)\);(.*?)^endmodule", verilog(arch), re.DOTALL | re.MULTILINE)
    ports = set(top[1].replace(" ", "").split(","))
    widths = _widths(top[2])
    streams = {
        "load_payload": ("input", 32),
        "load_valid": ("input", 1),
        "load_ready": ("output", 1),
        "image_payload": ("input", 2 * 6),
        "image_valid": ("input", 1),
        "image_ready": ("output", 1),
        "score_payload": ("output", 2 * 20),
        "score_valid": ("output", 1),
        "score_ready": ("input", 1),
    }
    status = {"last": ("output", 1), "busy": ("output", 1), "error": ("output", 1), "cycles": ("output", 32)}
    assert widths == {"clk": ("input", 1), "rst": ("input", 1), **streams, **status}
    assert ports == set(widths)


def test_a_machine_with_external_memory_has_its_three_streams() -> None:
    text = verilog(Arch(rows=2, lanes=3, data_bits=6, external_depth=1000, **SMALL))
    ports = re.search(r"^module datapath\((.*?)\);", text, re.DOTALL | re.MULTILINE)[1].replace("\n", "").split(", ")
    names = [name for name in ports if name.startswith(("read", "answer", "write"))]
    assert sorted(names) == sorted(f"{stream}_{part}" for stream in ("read", "answer", "write") for part in ("payload", "valid", "ready"))


def test_every_component_is_a_module() -> None:
    copies = {"external", *(f"external.{queue}" for queue in ("questions", "places", "words"))}
    for depth, expected in ((0, COMPONENTS), (8, COMPONENTS | copies)):
        text = verilog(Arch(rows=2, lanes=2, **SMALL, external_depth=depth))
        modules = set(re.findall(r"^module \\?(\S+?) ?\(", text, re.MULTILINE))
        assert {f"datapath.{name}" for name in expected} | {"datapath"} == modules


def test_the_text_is_the_same_in_another_process() -> None:
    program = f"from hw.arch import Arch; from hw.verilog import verilog; print(verilog(Arch(rows=2, lanes=2, **{SMALL})), end='')"
    texts = {
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert texts == {verilog(Arch(rows=2, lanes=2, **SMALL))}


@pytest.mark.parametrize("arch", [Arch(), Arch(rows=1, lanes=1, data_bits=4, weight_bits=4, acc_bits=16, loops=2, **SMALL)])
def test_every_machine_converts(arch: Arch) -> None:
    assert f"input [{arch.rows * arch.data_bits - 1}:0] image_payload" in verilog(arch)


def _widths(text: str) -> dict[str, tuple[str, int]]:
    """The direction and the width of each port that a module's text declares."""
    found = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", text, re.MULTILINE)
    return {name: (direction, int(high or 0) + 1) for direction, high, name in found}
