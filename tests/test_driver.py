"""The driver on the simulated gateware behind AXI: the numbers of the emulator, whatever waits; errors and resets on the way."""

import gc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import cases
from test_datapath import ARCH, BAD, FEATURES, SCORES, two_layers
from test_simulate import stalls

from bayestt.ir.schedule import Schedule
from hw.arch import Arch
from hw.assemble import assemble
from hw.cycles import cycles
from hw.driver import Driver, Simulated, Status
from hw.emulate import emulate
from hw.gateware.axi import AxiDatapath
from hw.gateware.registers import Register


@settings(max_examples=8, deadline=None)
@given(cases(external=False), st.integers(0, 2**32 - 1))
def test_scores_are_those_of_the_emulator_whatever_waits(case: tuple[Arch, Schedule, np.ndarray], seed: int) -> None:
    arch, schedule, x = case
    program = assemble(schedule, arch)
    driver = Driver(Simulated(arch, stalls(seed)), program)
    driver.load()
    for some in (x, x[:1]):
        assert (driver.run(some) == emulate(program, some)).all()
    assert not driver.status().busy


def test_a_program_of_two_segments_is_sent_with_every_batch() -> None:
    arch = replace(ARCH, code_depth=1)
    program = two_layers(3, arch=arch)
    assert len(program.segments) == 2
    x = np.random.default_rng(3).integers(-128, 128, (5, FEATURES))
    for pauses in ([0], [0, 2, 1]):
        driver = Driver(Simulated(arch, pauses), program)
        driver.load()
        assert (driver.run(x) == emulate(program, x)).all()
        assert not driver.status().busy


def test_a_batch_comes_in_while_the_one_before_is_computed() -> None:
    """Were every batch to wait for the scores before, each would take as many cycles as the first one."""
    program = two_layers(1)
    x = np.random.default_rng(1).integers(-128, 128, (8, FEATURES))
    driver = Driver(Simulated(ARCH), program)
    driver.load()
    counts = [driver.cycles()]
    for some in (x[:2], x):
        assert (driver.run(some) == emulate(program, some)).all()
        counts.append(driver.cycles())
    one, four = np.diff(counts).tolist()
    assert cycles(program) <= one
    assert cycles(program, 4) <= four < 4 * one


@pytest.mark.parametrize("sent", [1, FEATURES - 1, FEATURES])
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_reset_at_any_time_leaves_a_machine_that_works(sent: int, taken: int) -> None:
    """Between two beats of the image, while it computes, while a score waits, between two beats of a score."""
    program = two_layers(9)
    x = np.random.default_rng(5).integers(-128, 128, (4, FEATURES))
    transport = Simulated(ARCH, [0, 3, 1])
    driver = Driver(transport, program)
    driver.load()
    transport.write_stream("image", np.arange(sent, dtype=np.uint32))
    if sent == FEATURES and taken:
        assert len(transport.read_stream("score", taken)) == taken
    driver.reset()
    assert driver.status() == Status(busy=False, error=False, image=False, score=False)
    driver.load()
    assert (driver.run(x) == emulate(program, x)).all()


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
def test_what_is_no_program_is_an_error_until_it_is_loaded_again(spoil: Callable[[list[int]], list[int]]) -> None:
    program = two_layers(8)
    x = np.random.default_rng(4).integers(-128, 128, (2, FEATURES))
    transport = Simulated(ARCH)
    driver = Driver(transport, program)
    driver.reset()
    transport.write_stream("load", np.array(spoil(program.loads[0].tolist()), np.uint32))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="is no program for it: call load, which resets it"):
            driver.run(x)
        assert driver.status().error
    driver.load()
    assert (driver.run(x) == emulate(program, x)).all()


def test_a_bit_that_is_lost_on_the_way_is_noticed() -> None:
    class Noisy(Simulated):
        def write_stream(self, name: str, words: np.ndarray) -> None:
            super().write_stream(name, words ^ (np.arange(len(words)) == 30).astype(np.uint32))

    with pytest.raises(RuntimeError, match="is no program for it"):
        Driver(Noisy(ARCH), two_layers(8)).load()


def test_a_machine_without_its_program_or_for_another_arch_is_refused() -> None:
    driver = Driver(Simulated(ARCH), two_layers(0))
    with pytest.raises(RuntimeError, match="takes no images, expected one with a program: call load first"):
        driver.run(np.zeros((1, FEATURES), np.int64))
    with pytest.raises(RuntimeError, match="Arch has the checksum 0x.*, expected 0x.*: assemble the program for the Arch of the machine"):
        Driver(Simulated(replace(ARCH, loops=4)), two_layers(0)).load()


def test_what_is_no_machine_is_refused() -> None:
    class Elsewhere(Simulated):
        def read_register(self, address: int) -> int:
            return super().read_register(Register.CONTROL)

    with pytest.raises(RuntimeError, match="at 0x00 says 0x00000000, expected 0x04747462: give the address of a bayestt machine"):
        Driver(Elsewhere(ARCH), two_layers(0)).load()


@pytest.mark.parametrize("address", [Register.CONTROL + 4, 0xFFC])
def test_a_register_that_is_not_there_is_refused(address: int) -> None:
    transport = Simulated(ARCH)
    with pytest.raises(ValueError, match=f"no register to read or write at {address:#04x}"):
        transport.read_register(address)
    with pytest.raises(ValueError, match="no register to read or write at 0x08"):
        transport.write_register(Register.STATUS, 1)
    assert transport.read_register(Register.STATUS) == 0


def test_a_stream_that_stands_still_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw.driver.PATIENCE_CYCLES", 50)
    with pytest.raises(TimeoutError, match="the stream image stood still for 50 cycles, expected 3 more words: load a program"):
        # The first word goes no further than the register in front of the machine.
        Simulated(ARCH).write_stream("image", np.zeros(4, np.uint32))


def test_no_images_are_no_scores_and_other_images_are_refused() -> None:
    driver = Driver(Simulated(ARCH), two_layers(0))
    driver.load()
    assert driver.run(np.zeros((0, FEATURES), np.int64)).shape == (0, SCORES)
    with pytest.raises(ValueError, match="have 4 features, expected 5"):
        driver.run(np.zeros((1, FEATURES - 1), np.int64))


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_an_arch_with_an_external_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="Arch.external_depth is 8, expected 0 behind AXI"):
        AxiDatapath(replace(ARCH, external_depth=8))
    gc.collect()  # what was refused goes here, unused, and not with a warning in another test
