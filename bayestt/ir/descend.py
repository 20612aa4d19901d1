"""One step of training in integers: the definition that a fast twin and a machine must equal bit for bit.

A step runs the images one by one. Contractions of 8-bit activations, 4-bit factors and 16-bit errors are rounded by shifts that a
controller moves; every parameter's 16-bit gradients are added up. Then 8-bit latents, of which factors are the rounded upper halves, move
by the sum and by the pull of the prior, rounded stochastically. What normalises a gradient is its shift, by which the controller keeps it
near its full range. With momentum (Polyak 1964) the sum is not begun anew: most of what it was is its velocity, to which the next step's
gradients are added, so that it takes no memory but theirs; a shift that moves does not move what was added before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

import numpy as np

from bayestt.algebra.einsum import einsum
from bayestt.algebra.fixed import MAX_BITS, Fixed, requantize, rescale, saturate
from bayestt.algebra.lfsr import DRAW_BITS, draws, round_stochastically
from bayestt.algebra.reciprocal import reciprocal
from bayestt.ir.rank_scale import Scales, alive_entries, moved_scales, pulled
from bayestt.ir.training import ACTIVATION_BITS, BIAS_BITS, ERROR_FRAC, GRADIENT_BITS, IMAGE_FRAC, SCORE_FRAC, Contraction, Training

EXPONENTIAL = np.round(2.0**ERROR_FRAC * np.exp(-np.arange(128) / 2.0**SCORE_FRAC)).astype(np.int64)
"""exp(-d / 8) for scores d steps below the largest; from step 128 on it is 0."""
IMPATIENT_STEPS, IMPATIENT, PATIENT = 10, 1, 5
"""In so many first steps a shift is moved once more than one step in a row has asked for it, later once more than five have."""
MOST_MOMENTUM = 7
"""The largest `momentum`: a velocity keeps 127/128 of itself."""
IMAGE = Fixed(ACTIVATION_BITS, IMAGE_FRAC)
"""The format of pixels."""
Values = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class State:
    """All that a step changes: latents and velocities by parameter, shifts and their counts by contraction, scales by rank axis, register,
    steps done.

    A count says how many steps in a row asked for a larger shift, or, below 0, for a smaller one.
    """

    latents: Mapping[str, np.ndarray]
    velocities: Mapping[str, np.ndarray]
    shifts: Mapping[str, int]
    counts: Mapping[str, int]
    scales: Mapping[str, Scales]
    register: int
    steps: int = 0

    def __post_init__(self) -> None:
        for name in ("latents", "velocities", "shifts", "counts", "scales"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))


@dataclass(frozen=True)
class Rule:
    """What a host may change between steps: a latent moves by its gradient / 2**`rate`, 1 to 15, so that 32 bits hold every move.

    A latent w is pulled by w / s^2 * 2**`pull`, where s^2 is its rank's scale, the mean of the squares of the latents there; without a
    `pull` (-15 to 15) there is no prior. Of a sum of gradients 1 - 2**-`momentum`, 0 to 7, is kept for the next step.
    """

    rate: int
    pull: int | None = None
    momentum: int = 0

    def __post_init__(self) -> None:
        if self.rate not in range(1, DRAW_BITS):
            raise ValueError(f"a rate of {self.rate}: give a shift of 1 to {DRAW_BITS - 1}")
        if self.pull is not None and self.pull not in range(1 - DRAW_BITS, DRAW_BITS):
            raise ValueError(f"a pull of {self.pull}: give a shift of {1 - DRAW_BITS} to {DRAW_BITS - 1}, or None for no prior")
        if self.momentum not in range(MOST_MOMENTUM + 1):
            raise ValueError(f"a momentum of {self.momentum}: give a shift of 0, for none, to {MOST_MOMENTUM}")


def descend(training: Training, state: State, images: np.ndarray, labels: np.ndarray, rule: Rule) -> State:
    """The state after one step on images (n, pixels), integers of 8 bits, and their labels (n,)."""
    check(training, images, labels)
    factors = factors_of(training, state)
    fracs = fractions(training, state.shifts)
    largest = dict.fromkeys(state.shifts, 0)
    totals = dict(state.velocities)
    for image, label in zip(images, labels, strict=True):
        values = values_of(training, fracs, factors, image, label)
        for name in largest:
            largest[name] = max(largest[name], int(np.abs(values[name]).max()))
        for name, gradient in training.gradients.items():
            for part in values[gradient].reshape(-1, *totals[name].shape):
                totals[name] = saturate(totals[name] + part, GRADIENT_BITS)
    for name, gradient in training.gradients.items():
        largest[gradient] = int(np.abs(totals[name]).max())
    return moved(training, state, totals, largest, rule)


def check(training: Training, images: np.ndarray, labels: np.ndarray | None = None) -> None:
    """Refuse images, or labels of them, that a training cannot take."""
    pixels, outputs = (prod(training.shape(axes)) for axes in (training.image, training.scored.axes))
    if not len(images) or prod(images.shape[1:]) != pixels:
        raise ValueError(f"images of shape {images.shape}: the training takes at least one, of {pixels} pixels each: pad or cut them")
    low, high = IMAGE.low, IMAGE.high
    if not np.issubdtype(images.dtype, np.integer) or images.min() < low or images.max() > high:
        held = f"{images.dtype} from {images.min()} to {images.max()}"
        raise ValueError(f"images hold {held}, expected integers from {low} to {high}: use quantize(images, Fixed{IMAGE.bits, IMAGE.frac})")
    if labels is None:
        return
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= outputs:
        held = f"labels of shape {labels.shape} ({labels.dtype}) for {len(images)} images"
        raise ValueError(f"{held}: give one integer each, from 0 to {outputs - 1}")


def values_of(training: Training, fracs: Mapping[str, int], factors: Values, image: np.ndarray, label: int | None = None) -> Values:
    """Every value of one image by name: up to the scores, and with its label to the gradients."""
    values = {**factors, "image": image}
    for each in training.forward:
        values[each.name] = contracted(training, each, values, fracs)
    if label is not None:
        values["error"] = error(values[training.scored.name], label)
        for each in training.backward:
            values[each.name] = contracted(training, each, values, fracs)
    return values


def contracted(training: Training, each: Contraction, values: Values, fracs: Mapping[str, int]) -> np.ndarray:
    """A contraction's value, given those that it reads and the fractions of all."""
    total = accumulated(training, each, values, fracs)
    rounded = rescale(total, accumulator_frac(each, fracs) - fracs[each.name], each.bits)
    if each.relu:
        rounded = np.maximum(rounded, 0)
    if each.mask:
        rounded = np.where(values[each.mask].reshape(rounded.shape) == 0, 0, rounded)
    return rounded


def accumulated(training: Training, each: Contraction, values: Values, fracs: Mapping[str, int]) -> np.ndarray:
    """A contraction's sums before they are rounded. In float64, which holds every integer that 32 bits do."""
    arrays = [values[name].reshape(training.shape(axes)).astype(np.float64) for name, axes in each.args]
    total = einsum(arrays, [axes for _, axes in each.args], each.axes).astype(np.int64)
    if each.bias:
        bias = values[each.bias].reshape(total.shape)
        total = total + rescale(bias, fracs[each.bias] - accumulator_frac(each, fracs), BIAS_BITS)
    return total


def accumulator_frac(each: Contraction, fracs: Mapping[str, int]) -> int:
    """The fraction of a contraction's sums."""
    return sum(fracs[name] for name, _ in each.args)


def fractions(training: Training, shifts: Mapping[str, int]) -> dict[str, int]:
    """The fraction of every value: what it stands for is the integer / 2**fraction."""
    fracs = {name: parameter.factor.frac for name, parameter in training.parameters.items()}
    fracs |= {"image": IMAGE_FRAC, "error": ERROR_FRAC}
    for each in training.contractions:
        fracs[each.name] = accumulator_frac(each, fracs) - shifts[each.name] if each.frac is None else each.frac
    return fracs


def error(scores: np.ndarray, label: int) -> np.ndarray:
    """softmax(scores) less 1 at the label, 14 bits after the point: exponentials and the reciprocal of their sum from tables."""
    below = scores.max() - scores
    odds = np.where(below < len(EXPONENTIAL), EXPONENTIAL[np.minimum(below, len(EXPONENTIAL) - 1)], 0)
    mantissa, exponent = reciprocal(odds.sum())
    chances = requantize(odds * mantissa, int(exponent) - ERROR_FRAC, GRADIENT_BITS)
    return chances - ((np.arange(scores.size).reshape(scores.shape) == label) << ERROR_FRAC)


def factors_of(training: Training, state: State) -> Values:
    """What contractions read of the latents: their upper bits, rounded half up."""
    return {
        name: requantize(state.latents[name], parameter.latent.bits - parameter.factor.bits, parameter.factor.bits)
        for name, parameter in training.parameters.items()
    }


def moved(training: Training, state: State, totals: Values, largest: Mapping[str, int], rule: Rule) -> State:
    """The state that sums of gradients, and the largest magnitude that every contraction gave, lead to.

    Entries of ranks that are gone are zero, and draw no number, so that a smaller training without them takes the very same step.
    """
    latents, velocities, register = {}, {}, state.register
    for name, parameter in training.parameters.items():
        there = alive_entries(training, state.scales, name)
        move = totals[name] << (DRAW_BITS - rule.rate - parameter.brake)
        if parameter.rank and rule.pull is not None:
            move = move + pulled(training, state.scales, name, state.latents[name], rule.pull + DRAW_BITS - parameter.ease)
        drawn = np.zeros(there.shape, np.int64)
        drawn[there] = draws(register, np.count_nonzero(there))
        register = int(drawn[there][-1])
        left = state.latents[name] - round_stochastically(move, DRAW_BITS, drawn)
        latents[name] = np.where(there, saturate(left, parameter.latent.bits), 0)
        velocities[name] = totals[name] - requantize(totals[name], rule.momentum, GRADIENT_BITS)
    scales = moved_scales(training, state.scales, latents)
    for name in training.parameters:
        there = alive_entries(training, scales, name)
        latents[name], velocities[name] = np.where(there, latents[name], 0), np.where(there, velocities[name], 0)
    shifts, counts = controlled(training, state.shifts, state.counts, state.steps, largest)
    return State(latents, velocities, shifts, counts, scales, register, state.steps + 1)


def controlled(
    training: Training, shifts: Mapping[str, int], counts: Mapping[str, int], steps: int, largest: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int]]:
    """Shifts and counts after a step: above 7/8 of its range a result asks for a larger shift, below 5/16 for a smaller one."""
    shifts, counts = dict(shifts), dict(counts)
    patience = IMPATIENT if steps < IMPATIENT_STEPS else PATIENT
    for each in training.contractions:
        if each.frac is None:
            end = 1 << (each.bits - 1)
            asked = (8 * largest[each.name] > 7 * end) - (16 * largest[each.name] < 5 * end)
            count = asked + (counts[each.name] if asked * counts[each.name] > 0 else 0)
            moves = asked if abs(count) > patience and 0 <= shifts[each.name] + asked < MAX_BITS else 0
            shifts[each.name] += moves
            counts[each.name] = 0 if moves else max(-PATIENT - 1, min(count, PATIENT + 1))
    return shifts, counts
