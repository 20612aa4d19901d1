"""The emulator against the meaning of nests and of graphs, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import extremes, features, float_graphs, images
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import cases, graph_cases
from test_room import ROOMS, lowered

from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.quantize import quantize
from bayestt.ir.room import Room
from bayestt.ir.schedule import Layout, Schedule, execute
from hw.arch import Arch
from hw.assemble import assemble
from hw.emulate import BLOCK, IMAGES, emulate


@settings(max_examples=150, deadline=None)
@given(cases(most_nests=5))
def test_a_program_computes_what_its_schedule_means(case: tuple[Arch, Schedule, np.ndarray]) -> None:
    arch, schedule, x = case
    assert (emulate(assemble(schedule, arch), x) == execute(schedule, x)).all()


@settings(max_examples=60, deadline=None)
@given(graph_cases())
def test_a_program_computes_what_its_graph_means(case: tuple[Graph, Arch, np.ndarray]) -> None:
    integer, arch, x = case
    assert (emulate(assemble(lower(integer, arch.tile, arch.room), arch), x) == interpret(integer, x)).all()


@settings(max_examples=60, deadline=None)
@given(graph=float_graphs(windows=True), room=ROOMS, rows=st.integers(1, 3), lanes=st.sampled_from([1, 3, 4]), seed=st.integers(0, 99))
def test_what_lower_cuts_for_a_room_fits_the_machine_that_has_it(graph: Graph, room: Room, rows: int, lanes: int, seed: int) -> None:
    integer = extremes(quantize(fold(graph), np.random.default_rng(seed).normal(size=(20, features(graph))), 8), seed)
    arch = Arch(rows=rows, lanes=lanes, image_depth=8192, score_depth=8192, code_depth=16, external_depth=1 << 16)
    schedule, room = lowered(integer, arch.tile, replace(room, image=arch.room.image))
    depths = {"data_depth": -(-room.data // rows), "weight_depth": -(-room.weights // lanes), "init_depth": -(-room.inits // lanes)}
    x = images(integer, 4, seed, extreme=bool(seed % 2))
    assert (emulate(assemble(schedule, replace(arch, **depths)), x) == interpret(integer, x)).all()


def test_more_images_than_one_pass_takes() -> None:
    arch = Arch(rows=2, lanes=2)
    schedule = _identity(arch, features=3)
    x = np.random.default_rng(0).integers(-128, 128, (2 * IMAGES + 1, 3))
    assert (emulate(assemble(schedule, arch), x) == x).all()


@pytest.mark.parametrize("bits", [8, 32])
def test_more_work_than_one_block_and_wider_sums_than_a_float(bits: int) -> None:
    arch = Arch(rows=1, lanes=1, data_bits=bits, weight_bits=bits, weight_depth=1 << 15)
    random, features, scores = np.random.default_rng(bits), 300, 64
    x, w = (random.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape) for shape in ((IMAGES, features), (features, scores)))
    assert x.shape[0] * w.size > BLOCK
    outer, reduce = (Loop("s", scores, w=1, y=1),), (Loop("f", features, x=1, w=scores),)
    nest = Nest(outer, reduce, (Loop("n", 1, x=1, y=1),), arch.image_address, 0, 0, 0, bits=32, target="scores")
    layout = {"x": Layout(arch.image_address, ("n", "f"), (1, features), (1, 1)), "y": Layout(0, ("n", "s"), (1, scores), (1, 1))}
    schedule = Schedule((nest,), layout, 1, "x", "y", w.ravel(), np.zeros(1, np.int64), 0, scores)
    # Python's integers have no width at all.
    assert (emulate(assemble(schedule, arch), x) == (x.astype(object) @ w.astype(object) + 2**31) % 2**32 - 2**31).all()


def test_no_images_give_no_scores() -> None:
    arch = Arch(rows=2, lanes=2)
    assert emulate(assemble(_identity(arch, features=3), arch), np.zeros((0, 3), np.int64)).shape == (0, 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 4), np.int64), r"images of shape \(2, 4\) have 4 features, expected 3: give images like those for which the program"),
        (np.zeros((2, 3)), "float64.*expected integers"),
        (np.full((2, 3), 128), "128, expected -128 to 127"),
    ],
)
def test_images_that_do_not_fit_are_refused(x: np.ndarray, message: str) -> None:
    arch = Arch(rows=2, lanes=2)
    with pytest.raises(ValueError, match=message):
        emulate(assemble(_identity(arch, features=3), arch), x)


def _identity(arch: Arch, features: int) -> Schedule:
    """The schedule that gives every feature as a score."""
    loop = Loop("f", features, x=arch.rows, y=arch.rows)
    at = arch.room.image.start
    nest = Nest((loop,), (), (Loop("n", arch.rows, x=1, y=1),), at, 0, 0, 0, bits=arch.acc_bits, target="scores")
    scores = Layout(0, ("n", "f"), (arch.rows, features), (1, arch.rows))
    ones, zeros = np.ones(arch.lanes, np.int64), np.zeros(arch.lanes, np.int64)
    return Schedule((nest,), {"x": replace(scores, address=at), "y": scores}, arch.rows, "x", "y", ones, zeros, 0, features * arch.rows)
