"""The gateware against the emulator, bit for bit, and against the cycle formula, to the cycle."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import cases, graph_cases

from bayestt.ir.graph import Graph
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.schedule import Layout, Schedule, execute
from hw.arch import Arch
from hw.assemble import assemble
from hw.cycles import cycles
from hw.emulate import emulate
from hw.program import Program
from hw.simulate import simulate


@settings(max_examples=40, deadline=None)
@given(cases())
def test_the_gateware_computes_what_the_schedule_means_in_the_cycles_of_the_formula(case: tuple[Arch, Schedule, np.ndarray]) -> None:
    arch, schedule, x = case
    program = assemble(schedule, arch)
    simulation = simulate(program, x)
    assert (simulation.y == execute(schedule, x)).all()
    assert (simulation.y == emulate(program, x)).all()
    expected = [cycles(program, batches) for batches in range(1, len(simulation.cycles) + 1)]
    assert np.cumsum(simulation.cycles).tolist() == expected


@settings(max_examples=15, deadline=None)
@given(cases(), st.integers(0, 2**32 - 1))
def test_streams_that_stall_change_nothing(case: tuple[Arch, Schedule, np.ndarray], seed: int) -> None:
    arch, schedule, x = case
    program = assemble(schedule, arch)
    simulation = simulate(program, x, stalls(seed))
    assert (simulation.y == emulate(program, x)).all()
    assert sum(simulation.cycles) >= cycles(program, len(simulation.cycles))


@settings(max_examples=15, deadline=None)
@given(graph_cases())
def test_the_gateware_computes_what_the_graph_means(case: tuple[Graph, Arch, np.ndarray]) -> None:
    integer, arch, x = case
    program = assemble(lower(integer, arch.tile, arch.room), arch)
    simulation = simulate(program, x)
    assert (simulation.y == interpret(integer, x)).all()
    assert sum(simulation.cycles) == cycles(program, len(simulation.cycles))


def test_a_short_simulation_is_silent_and_images_that_do_not_fit_are_refused(capsys: pytest.CaptureFixture) -> None:
    assert simulate(_sum_of_two(), np.array([[1, 2], [-128, -128], [127, 127]])).y.tolist() == [[3], [-256], [254]]
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="the images go from -129 to 0, expected -128 to 127"):
        simulate(_sum_of_two(), np.array([[-129, 0]]))


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no engine 'vvp', expected one of amaranth, verilator: choose"):
        simulate(_sum_of_two(), np.array([[1, 2]]), engine="vvp")


def _sum_of_two() -> Program:
    """The program that adds an image's two features."""
    nest = Nest((), (Loop("j", 2, x=2),), (Loop("n", 2, x=1, y=1),), 0, 0, 0, 0, bits=32, target="scores")
    arch = Arch(rows=2, lanes=1)
    at = arch.room.image.start
    layout = {"x": Layout(at, ("n", "j"), (2, 2), (1, 2)), "y": Layout(0, ("n",), (2,), (1,))}
    return assemble(Schedule((replace(nest, x=at),), layout, 2, "x", "y", np.ones(1, np.int64), np.zeros(1, np.int64), 0, 2), arch)


def stalls(seed: int) -> list[int]:
    """Pauses: mostly none, now and then some cycles."""
    return np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 7], 997).tolist()
