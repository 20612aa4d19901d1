"""Where training begins: shifts at which no result of the first step leaves its range, and that are the smallest such."""

import numpy as np
from learnable import small_chain

from bayestt.ir.descend import Rule, descend, factors_of, fractions, values_of
from bayestt.ir.start import start


def test_results_of_the_first_step_fill_their_range_and_do_not_leave_it():
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    given = fractions(training, state.shifts), factors_of(training, state)
    each = [values_of(training, *given, *pair) for pair in zip(images, labels, strict=True)]
    for contraction in training.contractions:
        if contraction.frac is None and contraction.name not in training.gradients.values():
            largest = max(np.abs(values[contraction.name]).max() for values in each) / 2 ** (contraction.bits - 1)
            assert (largest > 0.3 or state.shifts[contraction.name] == 0 or contraction.relu) and largest <= 0.71


def test_the_seed_decides_latents_and_nothing_else_does():
    training, images, labels = small_chain()
    once, again, other = (start(training, images, labels, seed) for seed in (0, 0, 1))
    assert all((once.latents[name] == again.latents[name]).all() for name in once.latents)
    assert any((once.latents[name] != other.latents[name]).any() for name in once.latents)
    assert all(np.abs(latent).max() <= 88 for latent in once.latents.values())


def test_scales_begin_at_their_best():
    """So without a step of the latents they stay there: energy / (entries + 1), to the reciprocal's precision."""
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    energy = sum((state.latents[f"fc1.core{k}"] ** 2).sum((0, 1) if k == 0 else (1, 2)) for k in range(2))
    assert np.abs(state.scales["fc1.r1"].squares / 256 - energy / 25).max() < 0.01 * energy.max() / 25
    assert descend(training, state, images, labels, Rule(15)).steps == 1
