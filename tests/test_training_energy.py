"""The energy model of the machine that trains: by hand, and in proportion to what is done."""

from math import prod

import pytest
from learnable import small_chain

from hw.energy import DRAM_J, access_j, multiply_add_j
from hw.training.assemble import arch_for, assemble
from hw.training.energy import training_energy_j

PJ = 1e-12
TRAINING, _, _ = small_chain(strips=False)


def test_an_access_and_a_product_by_hand() -> None:
    """A word of 64 bits of 8 KB is 10 pJ, a byte of it an eighth; four times the memory is twice that."""
    assert access_j(64, 1024) == pytest.approx(10 * PJ)
    assert access_j(8, 1024, 64) == pytest.approx(1.25 * PJ)
    assert access_j(64, 4096) == pytest.approx(20 * PJ)
    assert multiply_add_j(16, 16, 32) == pytest.approx(0.9 * PJ)


def test_all_products_count() -> None:
    """One lane's machine multiplies as often as the contractions say; of steps of units two: 12 biases, 4 scores three times, 8 masks, and
    behind a batch of 2 images 108 entries twice, 5 rank indices three times, 13 contractions."""
    contracted = sum(prod(TRAINING.shape(tuple({axis for _, axes in each.args for axis in axes}))) for each in TRAINING.contractions)
    units = 12 + 3 * 4 + 8 + (2 * 108 + 3 * 5 + 13) / 2
    found = training_energy_j(assemble(TRAINING, arch_for(TRAINING, 1)), 2)
    assert found["arithmetic"] == pytest.approx((contracted + 2 * units) * 0.9 * PJ)


def test_pixels_come_from_outside() -> None:
    program = assemble(TRAINING, arch_for(TRAINING, 1))
    written = access_j(8, program.arch.activation_depth)
    assert training_energy_j(program, 1)["pixels"] == pytest.approx(16 * (DRAM_J / 8 + written))


def test_a_batch_shares_its_end() -> None:
    program = assemble(TRAINING, arch_for(TRAINING, 4))
    one, two, four = (sum(training_energy_j(program, images).values()) for images in (1, 2, 4))
    assert one - two == pytest.approx(2 * (two - four)) and four < two
