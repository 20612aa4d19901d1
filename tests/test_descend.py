"""One step of integer training: its pieces against exact numbers, its ends of range, the prior that finds planted ranks."""

import math
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
from bayestt.nets.descend_batch import descend_batch, scores


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


def test_known_errors():
    """Four equal scores are a quarter each; of 8, 0 and -120 the last is nothing, the sum 22411 counts as 175 * 2**7."""
    assert error(np.full(4, -7), 2).tolist() == [4096, 4096, 4096 - 16384, 4096]
    assert error(np.array([8, 0, -120]), 1).tolist() == [16384 * 187 >> 8, round(6027 * 187 / 256) - 16384, 0]


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
        assert training.bound(each) < 1 << 31
    after = descend(training, state, images, labels, Rule(3, 2))
    assert all(np.abs(latent + 0.5).max() <= 127.5 for latent in after.latents.values())


def test_a_training_that_may_overflow_is_refused():
    training, _, _ = small_chain()
    with pytest.raises(ValueError, match="'fc1.core0.gradient' may sum to"):
        replace(training, size={**training.size, "fc1.i2": 1, "fc1.j2": 600})


def test_a_sum_one_beyond_the_largest_integer_is_refused():
    """512 products of 2**22 make 2**31; 511 do not."""
    training, _, _ = small_chain()
    size = {**training.size, "fc1.i2": 1, "fc1.j1": 1}
    with pytest.raises(ValueError, match="may sum to 2147483648, beyond 32 bits"):
        replace(training, size={**size, "fc1.j2": 512})
    fits = replace(training, size={**size, "fc1.j2": 511})
    assert max(fits.bound(each) for each in fits.contractions) == 511 << 22


TAKES = {
    "descend": descend,
    "descend_batch": descend_batch,
    "start": lambda training, state, images, labels, rule: start(training, images, labels, 0),
    "scores": lambda training, state, images, labels, rule: scores(training, state, images),
}
UNFIT_IMAGES = {
    "none": (np.zeros((0, 16), int), r"images of shape \(0, 16\): the training takes at least one, of 16 pixels each: pad or cut"),
    "too few pixels": (np.zeros((8, 15), int), r"images of shape \(8, 15\): .* of 16 pixels each"),
    "too bright": (np.full((8, 16), 128), "int64 from 128 to 128, expected integers from -128 to 127: use quantize.images, Fixed.8, 7."),
    "too dark": (np.full((8, 16), -129), "from -129 to -129, expected integers from -128 to 127"),
    "floats": (np.zeros((8, 16)), "images hold float64 from 0.0 to 0.0"),
}
UNFIT_LABELS = {
    "too few": (np.zeros(7, int), r"labels of shape \(7,\) .int64. for 8 images: give one integer each, from 0 to 3"),
    "too large": (np.full(8, 4), "from 0 to 3"),
    "below 0": (np.full(8, -1), "from 0 to 3"),
    "floats": (np.zeros(8), "float64"),
}


@pytest.mark.parametrize("verb", TAKES.values(), ids=TAKES)
@pytest.mark.parametrize(("unfit", "words"), UNFIT_IMAGES.values(), ids=UNFIT_IMAGES)
def test_images_that_do_not_fit_are_refused(verb, unfit, words):
    training, images, labels = small_chain()
    with pytest.raises(ValueError, match=words):
        verb(training, start(training, images, labels, 0), unfit, labels[: len(unfit)], Rule(11))


@pytest.mark.parametrize("verb", ["descend", "descend_batch", "start"])
@pytest.mark.parametrize(("unfit", "words"), UNFIT_LABELS.values(), ids=UNFIT_LABELS)
def test_labels_that_do_not_fit_are_refused(verb, unfit, words):
    training, images, labels = small_chain()
    with pytest.raises(ValueError, match=words):
        TAKES[verb](training, start(training, images, labels, 0), images, unfit, Rule(11))


@pytest.mark.parametrize("rate", [0, 16])
def test_a_rate_that_moves_too_far_or_nowhere_is_refused(rate):
    with pytest.raises(ValueError, match="a shift of 1 to 15"):
        Rule(rate)


@pytest.mark.parametrize("pull", [-16, 16, 0.5])
def test_a_pull_by_no_shift_of_a_draw_is_refused(pull):
    with pytest.raises(ValueError, match=f"a pull of {pull}: give a shift of -15 to 15, or None for no prior"):
        Rule(11, pull)


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


def test_a_bias_moves_half_as_far():
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    state = replace(state, latents={name: np.zeros_like(latent) for name, latent in state.latents.items()})
    totals = {name: np.full_like(latent, 4 << 10) for name, latent in state.latents.items()}
    after = moved(training, state, totals, dict.fromkeys(state.shifts, 1 << 14), Rule(10))
    assert {name: {*latent.flat} for name, latent in after.latents.items()} == {
        name: {-2 if name.endswith("bias") else -4} for name in training.parameters
    }


def test_a_layers_cores_are_pulled_less_by_its_ease():
    """64 / 256 * 2**4 is 4, which the prior takes from the first layer's latents; the second's ease is 1; biases have no prior."""
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    scales = {axis: replace(scales, squares=np.full_like(scales.squares, 256 << 8)) for axis, scales in state.scales.items()}
    state = replace(state, scales=scales, latents={name: np.full_like(latent, 64) for name, latent in state.latents.items()})
    zero = {name: np.zeros_like(latent) for name, latent in state.latents.items()}
    after = moved(training, state, zero, dict.fromkeys(state.shifts, 1 << 14), Rule(10, 4))
    left = {"fc1.core0": 60, "fc1.core1": 60, "fc2.core0": 62, "fc2.core1": 62, "fc1.bias": 64, "fc2.bias": 64}
    assert {name: {*latent.flat} for name, latent in after.latents.items()} == {name: {value} for name, value in left.items()}


@pytest.mark.parametrize("sixteenths, asked", [((5, 0), 0), ((5, -1), -1), ((14, 0), 0), ((14, 1), 1)])
def test_the_controller_asks_below_five_sixteenths_and_above_seven_eighths(sixteenths, asked):
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    zero = {name: np.zeros_like(latent) for name, latent in state.latents.items()}
    part, more = sixteenths
    largest = {each.name: (part << (each.bits - 1 - 4)) + more for each in training.contractions}
    assert {*moved(training, state, zero, largest, Rule(11)).counts.values()} == {asked}


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


@given(st.integers(-(1 << 15), (1 << 15) - 1), st.integers(0, 7))
def test_a_velocity_is_a_sum_less_its_part(total: int, momentum: int) -> None:
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    totals = {name: np.full_like(latent, total) for name, latent in state.latents.items()}
    after = moved(training, state, totals, dict.fromkeys(state.shifts, 1 << 14), Rule(10, None, momentum))
    left = total - math.floor(total / (1 << momentum) + 0.5)
    assert all((velocity == left).all() for velocity in after.velocities.values())


def test_a_step_adds_its_gradients_to_velocities() -> None:
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    before = {name: np.full_like(latent, 100) for name, latent in state.latents.items()}
    fracs, factors = fractions(training, state.shifts), factors_of(training, state)
    several = [values_of(training, fracs, factors, *each) for each in zip(images, labels, strict=True)]
    after = descend(training, replace(state, velocities=before), images, labels, Rule(15, None, 3))
    for name, gradient in training.gradients.items():
        total = 100 + sum(values[gradient].reshape(-1, *before[name].shape).sum(0) for values in several)
        assert (after.velocities[name] == total - np.floor(total / 8 + 0.5)).all()


@pytest.mark.parametrize("momentum", [-1, 8])
def test_a_momentum_that_is_none_is_refused(momentum: int) -> None:
    with pytest.raises(ValueError, match=f"a momentum of {momentum}: give a shift of 0, for none, to 7"):
        Rule(10, None, momentum)
