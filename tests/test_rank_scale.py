"""Scales of ranks in integers against the prior's closed form in exact numbers."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from learnable import small_chain

from bayestt.ir.rank_scale import Scales, alive_entries, best_squares, moved_scales, pulled
from bayestt.ir.start import start

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


@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_scales_come_nearer_to_their_best(seed, damping):
    latents = wild(seed)
    before = STATE.scales["fc1.r1"].squares
    best = best_squares(TRAINING, STATE.scales, latents, "fc1.r1")
    after = moved_scales(TRAINING, STATE.scales, latents, damping, 0)["fc1.r1"].squares
    assert np.abs(after - (before + (best - before) / 2**damping)).max() <= 0.5


def test_small_scales_are_gone_for_good_and_the_largest_never_is():
    nothing = {name: np.zeros_like(latent) for name, latent in STATE.latents.items()}
    after = moved_scales(TRAINING, STATE.scales, nothing, 0, 64)["fc1.r1"]
    assert after.alive.sum() == 1
    latents = {name: np.full_like(latent, 100) for name, latent in STATE.latents.items()}
    again = moved_scales(TRAINING, {**STATE.scales, "fc1.r1": after}, latents, 0, 64)["fc1.r1"]
    assert (again.alive == after.alive).all() and not again.squares[~again.alive].any()


@given(st.integers(0, 2**32 - 1), st.integers(-4, 4))
def test_a_pull_is_the_latent_over_the_square(seed, pull):
    latents = wild(seed)["fc1.core0"]
    squares = np.random.default_rng(seed).integers(64 << 8, 128**2 << 8, 3)
    scales = {**STATE.scales, "fc1.r1": replace(STATE.scales["fc1.r1"], squares=squares)}
    found = pulled(TRAINING, scales, "fc1.core0", latents, pull + 16)
    strength = 2.0 ** (pull + 16) / (squares / 256)
    assert (np.abs(found - latents * strength) <= np.abs(latents) * (strength / 64 + 0.5)).all()
