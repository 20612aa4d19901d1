"""The energy model: by hand, and in proportion to what is done."""

from dataclasses import replace

import numpy as np
import pytest
from test_datapath import FEATURES, HIDDEN, SCORES, two_layers

from bayestt.ir.nest import Loop, Nest
from bayestt.ir.schedule import Layout, Schedule
from hw.arch import Arch
from hw.assemble import assemble
from hw.energy import energy_j
from hw.program import Program

PJ = 1e-12


def dense(features: int, arch: Arch) -> Program:
    """One image times so many weights for each of as many scores as there are lanes."""
    images, lane = Loop("n", arch.rows, x=1, y=1), Loop("lane", arch.lanes, w=1, init=1, y=arch.rows)
    reduce = (Loop("j", features, x=arch.rows, w=arch.lanes),)
    at = arch.room.image.start
    nest = Nest((), reduce, (images, lane), at, 0, 0, 0, bits=32, target="scores")
    layout = {
        "x": Layout(at, ("n", "j"), (arch.rows, features), (1, arch.rows)),
        "y": Layout(0, ("n", "i"), (arch.rows, arch.lanes), (1, arch.rows)),
    }
    weights = np.ones(features * arch.lanes, np.int64)
    sizes = (0, arch.rows * arch.lanes)
    return assemble(Schedule((nest,), layout, arch.rows, "x", "y", weights, np.zeros(arch.lanes, np.int64), *sizes), arch)


def test_a_dense_layer_by_hand() -> None:
    """One row and one lane; every memory of 8 KB, so a bit costs 10/64 pJ, but for code and scores, of one byte a bit of depth."""
    arch = Arch(rows=1, lanes=1, loops=1, image_depth=4096, weight_depth=8192, init_depth=2048, score_depth=2048, code_depth=1)
    program, per_bit = dense(100, arch), 10 * PJ / 64
    code_bits = arch.instruction.size
    code = code_bits * per_bit * (code_bits / 8 / 8192) ** 0.5
    image = 100 * 8 * per_bit
    steps = 100 * (0.2 * PJ + 0.1 * PJ + 8 * per_bit + 8 * per_bit)
    init, result, sent = 32 * per_bit, 32 * per_bit, 32 * per_bit
    assert energy_j(program) == pytest.approx(image + code + steps + init + result + sent, rel=1e-12)


def test_four_times_the_memory_costs_twice_as_much_an_access() -> None:
    """The rest is the same: the data memory, the deepest, sets the width of addresses."""
    deep = Arch(rows=1, lanes=1, loops=1, data_depth=8192)
    small, middle, large = (energy_j(dense(100, replace(deep, weight_depth=depth))) for depth in (256, 1024, 4096))
    assert large - middle == pytest.approx(2 * (middle - small), rel=1e-9)


def test_a_batch_shares_its_weights_and_code() -> None:
    """Per image, more rows read the same weights once."""
    one, four = (energy_j(dense(100, Arch(rows=rows, lanes=2, loops=1, image_depth=1024 // rows))) for rows in (1, 4))
    assert four < one


def test_the_two_layers_of_a_program_cost_more_than_their_products() -> None:
    products = (FEATURES * HIDDEN + HIDDEN * SCORES) * 0.3 * PJ
    assert energy_j(two_layers(0)) > products
