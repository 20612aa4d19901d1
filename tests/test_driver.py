"""The driver on the simulated gateware behind AXI: the numbers of the emulator, whatever waits; errors and resets on the way."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import cases, images
from test_datapath import ARCH, FEATURES, SCORES, two_layers
from test_simulate import stalls

from bayestt.ir.schedule import Schedule
from hw.arch import Arch
from hw.assemble import assemble
from hw.cycles import cycles
from hw.driver import Driver, Simulated
from hw.emulate import emulate
from hw.gateware.axi import AxiDatapath
from hw.gateware.registers import Register


@settings(max_examples=12, deadline=None)
@given(cases(external=False), st.integers(0, 2**32 - 1))
def test_scores_are_those_of_the_emulator_whatever_waits(case: tuple[Arch, Schedule, np.ndarray], seed: int) -> None:
    arch, schedule, x = case
    program = assemble(schedule, arch)
    driver = Driver(Simulated(arch, stalls(seed)), program)
    driver.load()
    for some in (x, x[:1]):
        assert (driver.run(some) == emulate(program, some)).all()
    assert not driver.status().busy
