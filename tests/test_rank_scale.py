"""Scales of ranks in integers against the prior's closed form in exact numbers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learnable import small_chain

from bayestt.algebra.formats import tt_matrix
from bayestt.ir.rank_scale import Scales, alive_entries, best_squares, moved_scales, pulled
from bayestt.ir.start import start
from bayestt.ir.training import training

TRAINING, IMAGES, LABELS = small_chain()
STATE = start(TRAINING, IMAGES, LABELS, 0)


def wild(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.integers(-128, 128, latent.shape) for name, latent in STATE.latents.items()}


@given(st.integers(0, 2**32 - 1))
def test_the_best_scale_is_the_log_uniform_priors(seed):
    """energy / (entries + 1), of both cores that the rank scales; the table's reciprocal is within 1 / 64."""
    latents = wild(seed)
    energy = np.square(latents["fc1.core0"]).sum((0, 1)) + np.square(latents["fc1.core1"]).sum((1, 2))
    expected = energy / (8 + 16 + 1)
    assert np.abs(best_squares(TRAINING, STATE.scales, latents, "fc1.r1") / 256 - expected).max() <= expected.max() / 64


def test_entries_of_ranks_that_are_gone_do_not_count():
    gone = {**STATE.scales, "fc2.r1": Scales(np.array([0, 9999]), np.array([False, True]))}
    assert alive_entries(TRAINING, gone, "fc2.core0").sum() == 4 and alive_entries(TRAINING, gone, "fc1.core0").all()
    assert not alive_entries(TRAINING, gone, "fc2.core1")[0].any()


def test_a_best_scale_counts_the_entries_that_are_there():
    """An index of r2 scales 3 * 2 * 2 entries of core1 and 2 * 4 of core2; of three indices of r1 one is left, so 4 and 8."""
    chain = training({"fc": tt_matrix([2, 2, 2], [2, 2, 4], 3)})
    scales = {axis: Scales(np.full(3, 4096 << 8), np.ones(3, bool)) for axis in ("fc.r1", "fc.r2")}
    scales["fc.r1"] = Scales(np.array([0, 4096 << 8, 0]), np.array([False, True, False]))
    latents = {name: 64 * alive_entries(chain, scales, name) for name in chain.parameters}
    found = best_squares(chain, scales, latents, "fc.r2")
    assert found.tolist() == [12 * 4096 * round(2**15 / 208) >> 3] * 3 and found[0] / 256 == pytest.approx(4096 * 12 / 13, rel=1 / 64)


@given(st.integers(0, 2**32 - 1))
def test_scales_come_a_sixteenth_nearer_to_their_best(seed):
    latents = wild(seed)
    before = STATE.scales["fc1.r1"].squares
    best = best_squares(TRAINING, STATE.scales, latents, "fc1.r1")
    after = moved_scales(TRAINING, STATE.scales, latents)["fc1.r1"].squares
    assert np.abs(after - (before + (best - before) / 16)).max() <= 0.5


def test_small_scales_are_gone_for_good_and_the_largest_never_is():
    nothing = {name: np.zeros_like(latent) for name, latent in STATE.latents.items()}
    scales = {**STATE.scales, "fc1.r1": Scales(np.array([68 << 8, (69 << 8) + 128, 70 << 8]), np.ones(3, bool))}
    once = moved_scales(TRAINING, scales, nothing)
    after = moved_scales(TRAINING, once, nothing)["fc1.r1"]
    assert once["fc1.r1"].alive.tolist() == [False, True, True] and after.alive.tolist() == [False, False, True]
    assert (after.squares < 64 << 8).all()
    latents = {name: np.full_like(latent, 100) for name, latent in STATE.latents.items()}
    again = moved_scales(TRAINING, {**STATE.scales, "fc1.r1": after}, latents)["fc1.r1"]
    assert (again.alive == after.alive).all() and not again.squares[~again.alive].any()


@given(st.integers(0, 2**32 - 1), st.integers(-4, 4))
def test_a_pull_is_the_latent_over_the_square(seed, pull):
    latents = wild(seed)["fc1.core0"]
    squares = np.random.default_rng(seed).integers(64 << 8, 128**2 << 8, 3)
    scales = {**STATE.scales, "fc1.r1": replace(STATE.scales["fc1.r1"], squares=squares)}
    found = pulled(TRAINING, scales, "fc1.core0", latents, pull + 16)
    strength = 2.0 ** (pull + 16) / (squares / 256)
    assert (np.abs(found - latents * strength) <= np.abs(latents) * (strength / 64 + 0.5)).all()
