"""The driver over a serial line, to the pins of the simulated gateware: the emulator's numbers; one error for what is lost; then again."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import serial
from hypothesis import given, settings
from hypothesis import strategies as st
from pins import Pins

from bayestt.ir.nest import Loop, Nest
from bayestt.ir.schedule import Layout, Schedule
from hw.arch import Arch
from hw.assemble import assemble
from hw.driver import Driver, Status
from hw.emulate import emulate
from hw.gateware.axi import IDENTITY
from hw.gateware.registers import Register
from hw.program import Program
from hw.serial import Serial

DEPTHS = dict.fromkeys(("image_depth", "data_depth", "weight_depth", "init_depth", "score_depth", "code_depth"), 8)
ARCH = Arch(rows=2, lanes=1, loops=1, extent_bits=4, **DEPTHS)
X = np.array([[1, 2], [-128, -128], [127, 5]])


@pytest.fixture(scope="module")
def pins() -> Pins:
    return Pins(ARCH)


@pytest.fixture(scope="module")
def driver(pins: Pins) -> Driver:
    made = Driver(Serial(pins), sum_and_copy(ARCH))
    made.load()
    return made


def test_scores_are_those_of_the_emulator(driver: Driver) -> None:
    for some in (X, X[:1]):
        assert (driver.run(some) == emulate(driver.program, some)).all()
    assert driver.status() == Status(busy=False, error=False, image=True, score=False)
    assert driver.cycles() > 0


def test_a_program_of_two_segments_is_sent_with_every_batch() -> None:
    program = sum_and_copy(replace(ARCH, code_depth=1))
    assert len(program.segments) == 2
    driver = Driver(Serial(Pins(program.arch)), program)
    driver.load()
    assert (driver.run(X) == emulate(program, X)).all()


@pytest.mark.parametrize(
    ("way", "place", "error"),
    [
        ("there", 3, "has not answered about register at 0x08, a byte was lost, or there is none: look at port and baud rate"),
        ("there", 8, "got something else than was sent to the stream image: call load, which resets it, and run again"),
        ("there", 17, "has not answered about the stream image"),
        ("back", 8, "an answer about the stream image came altered or lacks a byte: call load, which resets the machine"),
    ],
)
def test_a_byte_that_is_lost_is_one_error_and_the_next_run_works(driver: Driver, pins: Pins, way: str, place: int, error: str) -> None:
    places = count()
    setattr(pins, way, lambda some: bytes(byte for byte in some if next(places) != place))
    with pytest.raises((ConnectionError, TimeoutError), match=error):
        driver.run(X[:2])
    driver.load()
    assert (driver.run(X[:2]) == emulate(driver.program, X[:2])).all()


def test_a_bit_that_is_altered_is_one_error(driver: Driver, pins: Pins) -> None:
    places = count()
    pins.there = lambda some: bytes(byte ^ (16 * (next(places) == 9)) for byte in some)
    with pytest.raises(ConnectionError, match="got something else than was sent to the stream image"):
        driver.run(X[:2])
    driver.load()
    assert (driver.run(X[:2]) == emulate(driver.program, X[:2])).all()


@settings(max_examples=5, deadline=None)
@given(st.binary(min_size=1, max_size=15))
def test_whatever_came_before_the_machine_answers_when_the_line_was_silent(driver: Driver, pins: Pins, noise: bytes) -> None:
    pins.write(noise)
    assert Serial(pins).read_register(Register.IDENTITY) == IDENTITY


def test_words_that_nobody_takes_are_refused_and_the_next_run_works(driver: Driver) -> None:
    driver.reset()
    with pytest.raises(TimeoutError, match="did not take or give a word of the stream image in time: load a program, and give whole"):
        driver.transport.write_stream("image", np.zeros(6, np.uint32))
    with pytest.raises(TimeoutError, match="did not take or give a word of the stream score"):
        driver.transport.read_stream("score", 1)
    driver.load()
    assert (driver.run(X[:2]) == emulate(driver.program, X[:2])).all()


def test_a_reset_between_two_words_of_a_score_leaves_a_machine_that_works(driver: Driver) -> None:
    driver.transport.write_stream("image", np.zeros(2, np.uint32))
    assert len(driver.transport.read_stream("score", 1)) == 1
    driver.load()
    assert (driver.run(X[:2]) == emulate(driver.program, X[:2])).all()


def test_a_register_that_is_not_there_is_refused(driver: Driver) -> None:
    for address in (0x14, 0x7C, 0x80, 0xFFC):
        with pytest.raises(ValueError, match=f"has no register at {address:#04x} to read or write, expected one of hw/README.md: take its"):
            driver.transport.read_register(address)
    with pytest.raises(ValueError, match="has no register at 0x08"):
        driver.transport.write_register(Register.STATUS, 1)


def test_a_port_with_nothing_behind_it_is_said() -> None:
    class Open:
        """A line that goes nowhere."""

        write: Callable[[bytes], None] = staticmethod(lambda sent: None)
        read: Callable[[int], bytes] = staticmethod(lambda size: b"")

    with pytest.raises(TimeoutError, match="has not answered about register at 0x00, a byte was lost, or there is none: look at port"):
        Driver(Serial(Open()), sum_and_copy(ARCH)).load()


def test_pyserial_has_such_ports_and_a_line_that_goes_back_is_no_machine() -> None:
    port = serial.serial_for_url("loop://", timeout=0.05)
    with pytest.raises(RuntimeError, match="the register at 0x00 says 0x00000000, expected 0x04747462: give the address of a bayestt"):
        Driver(Serial(port), sum_and_copy(ARCH)).load()


def sum_and_copy(arch: Arch) -> Program:
    """The program that adds an image's two features, and gives the sum, saturated, and the second feature."""
    images, at = (Loop("n", 2, x=1, y=1),), arch.room.image.start
    total = Nest((), (Loop("j", 2, x=2),), images, at, 0, 0, 0)
    scores = Nest((Loop("i", 2, x=at + 2, y=2),), (), images, 0, 0, 0, 0, bits=32, target="scores")
    layout = {"x": Layout(at, ("n", "j"), (2, 2), (1, 2)), "y": Layout(0, ("n", "i"), (2, 2), (1, 2))}
    return assemble(Schedule((total, scores), layout, 2, "x", "y", np.ones(1, np.int64), np.zeros(1, np.int64), 2, 4), arch)
