"""One step of integer training: its pieces against exact numbers, its ends of range, the prior that finds planted ranks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learnable import PLANTED_RANK, RANK, planted_images, small_chain

from bayestt.algebra.fixed import dequantize
from bayestt.ir.descend import EXPONENTIAL, Rule, State, descend, error, factors_of, fractions, moved, values_of
from bayestt.ir.start import start
from bayestt.ir.training import Training
from bayestt.nets.descend_batch import descend_batch


def real(training: Training, state: State, values: dict, name: str) -> np.ndarray:
    """What a value's integers stand for."""
    return np.ldexp(values[name].astype(np.float64), -fractions(training, state.shifts)[name])


def test_scores_are_those_of_the_dense_net_nearly() -> None:
    """Eight bits between contractions lose a few percent of the scores' spread, and no more."""
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    factors = factors_of(training, state)
    weight = {name: dequantize(factors[name], parameter.factor) for name, parameter in training.parameters.items()}
    x = images / 128
    hidden = np.einsum("nab,iar,rjb->nij", x.reshape(-1, 4, 4), weight["fc1.core0"], weight["fc1.core1"]).reshape(len(x), -1)
    scores = np.einsum("nab,iar,rjb->nij", hidden.clip(0).reshape(-1, 2, 4), weight["fc2.core0"], weight["fc2.core1"])
    fracs = fractions(training, state.shifts)
    found = np.stack([real(training, state, values_of(training, fracs, factors, image), "fc2") for image in images])
    assert np.abs(found - scores).max() < 0.1 * scores.std() + 2.0**-3


def test_gradients_are_those_of_the_loss_nearly() -> None:
    """Against differences of the rounded net's own forward pass in floats: the directions agree."""
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    fracs, factors = fractions(training, state.shifts), factors_of(training, state)
    weight = {name: dequantize(factors[name], parameter.factor) for name, parameter in training.parameters.items()}

    def loss(weight: dict) -> float:
        x = images.reshape(-1, 4, 4) / 128
        hidden = np.einsum("nab,iar,rjb->nij", x, weight["fc1.core0"], weight["fc1.core1"]) + weight["fc1.bias"].reshape(2, 4)
        scores = np.einsum("nab,iar,rjb->nij", hidden.clip(0), weight["fc2.core0"], weight["fc2.core1"]) + weight["fc2.bias"].reshape(2, 2)
        scores = scores.reshape(len(x), -1)
        return float((np.log(np.exp(scores).sum(1)) - scores[np.arange(len(x)), labels]).sum())

    for name, gradient in training.gradients.items():
        each = [values_of(training, fracs, factors, *pair) for pair in zip(images, labels, strict=True)]
        found = sum(real(training, state, values, gradient) for values in each)
        found = found.reshape(-1, *weight[name].shape).sum(0)
        slopes = np.zeros_like(weight[name])
        for index in np.ndindex(*slopes.shape):
            moved_by = np.zeros_like(slopes)
            moved_by[index] = 1e-4
            slopes[index] = (loss(weight | {name: weight[name] + moved_by}) - loss(weight | {name: weight[name] - moved_by})) / 2e-4
        assert (found * slopes).sum() > 0.98 * np.linalg.norm(found) * np.linalg.norm(slopes), name
        assert 0.9 < np.linalg.norm(found) / np.linalg.norm(slopes) < 1.1, name


@given(st.lists(st.integers(-128, 127), min_size=2, max_size=16), st.data())
def test_an_error_is_softmax_less_label(scores, data):
    label = data.draw(st.integers(0, len(scores) - 1))
    odds = np.exp((np.array(scores) - max(scores)) / 8)
    expected = odds / odds.sum() - (np.arange(len(scores)) == label)
    found = error(np.array(scores), label)
    assert np.abs(found / 2**14 - expected).max() < 0.012
    assert np.abs(found).max() <= 2**14 * 1.01


def test_the_table_of_exponentials_ends_in_zeros():
    assert EXPONENTIAL[0] == 2**14 and EXPONENTIAL[-1] == 0 and (np.diff(EXPONENTIAL) <= 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nothing_leaves_its_width(seed):
    """Images, factors and labels at the ends of their range: every value keeps to its bits, every sum to 32."""
    training, images, labels = small_chain()
    random = np.random.default_rng(seed)
    state = start(training, images, labels, 0)
    wild = {name: random.choice([-128, 127], latent.shape) for name, latent in state.latents.items()}
    shifts = {name: int(random.integers(0, 8)) for name in state.shifts}
    state = replace(state, latents=wild, shifts=shifts)
    values = values_of(training, fractions(training, shifts), factors_of(training, state), random.choice([-128, 127], 16), 0)
    for each in training.contractions:
        assert -(1 << (each.bits - 1)) <= values[each.name].min() and values[each.name].max() < 1 << (each.bits - 1)
        assert training.bound(each) <= 1 << 31
    after = descend(training, state, images, labels, Rule(3, 2))
    assert all(np.abs(latent + 0.5).max() <= 127.5 for latent in after.latents.values())


def test_a_training_that_may_overflow_is_refused():
    training, _, _ = small_chain()
    with pytest.raises(ValueError, match="'fc1.core0.gradient' may sum to"):
        replace(training, size={**training.size, "fc1.i2": 1, "fc1.j2": 600})


@pytest.mark.parametrize("rate", [0, 16])
def test_a_rate_that_moves_too_far_or_nowhere_is_refused(rate):
    with pytest.raises(ValueError, match="a shift of 1 to 15"):
        Rule(rate)


def test_a_rank_that_scales_too_many_entries_is_refused():
    training, _, _ = small_chain()
    with pytest.raises(ValueError, match="an index of 'fc2.r1' scales 2004 entries, expected at most 1023"):
        replace(training, size={**training.size, "fc2.i2": 500})


def test_latents_move_against_their_gradient_by_the_rate_on_average():
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    state = replace(state, latents={name: np.zeros_like(latent) for name, latent in state.latents.items()})
    zero = {name: np.zeros_like(latent) for name, latent in state.latents.items()}
    totals = zero | {"fc1.core0": np.full_like(zero["fc1.core0"], 3 << 9)}
    steps, register = [], 1
    for _ in range(400):
        after = moved(training, replace(state, register=register), totals, dict.fromkeys(state.shifts, 1 << 14), Rule(10))
        register = after.register
        steps.append(after.latents["fc1.core0"].mean())
        assert not after.latents["fc2.core0"].any()
    assert np.mean(steps) == pytest.approx(-1.5, abs=0.02)


def test_the_controller_waits_and_then_moves_a_shift():
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    zero = {name: np.zeros_like(latent) for name, latent in state.latents.items()}
    fine = {each.name: 1 << (each.bits - 2) for each in training.contractions}
    shift = state.shifts["fc1.error"]
    for steps, needed in ((0, 2), (10, 6)):
        for largest, change in ((1 << 15, 1), (1, -1), (1 << 14, 0)):
            now = replace(state, steps=steps, counts=dict.fromkeys(state.shifts, 0))
            for step in range(1, needed + 1):
                now = replace(moved(training, now, zero, {**fine, "fc1.error": largest}, Rule(11)), steps=steps)
                assert now.shifts["fc1.error"] == shift + (change if step == needed else 0)
    now = replace(state, counts={**state.counts, "fc1.error": 5}, steps=10)
    assert moved(training, now, zero, {**fine, "fc1.error": 1}, Rule(11)).counts["fc1.error"] == -1


@pytest.mark.parametrize("pull, left", [(None, RANK), (3, PLANTED_RANK)])
def test_the_prior_finds_planted_ranks(pull, left):
    """Labels from a net of rank 2, learned at rank 6: with the prior two ranks are left, without it all."""
    training, images, labels = planted_images()
    state = start(training, images[:32], labels[:32], 0)
    for _ in range(8):
        for first in range(0, len(images), 32):
            some = slice(first, first + 32)
            state = descend_batch(training, state, images[some], labels[some], Rule(13, pull))
    assert np.count_nonzero(state.scales["fc.r1"].alive) == left
