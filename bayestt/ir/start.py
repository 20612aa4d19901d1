"""Where integer training begins: random latents, and shifts at which a few images' results fill their range."""

import numpy as np

from bayestt.algebra.fixed import MAX_BITS
from bayestt.ir.descend import State, Values, accumulated, check, contracted, error, factors_of
from bayestt.ir.rank_scale import Scales, best_squares
from bayestt.ir.training import ERROR_FRAC, IMAGE_FRAC, SPREAD, Training

REGISTER = 0xACE1
"""What the shift register holds first."""
FULL = 0.7
"""The part of its range that a result shall fill at most."""


def start(training: Training, images: np.ndarray, labels: np.ndarray, seed: int) -> State:
    """The first state: cores uniform in part of their range by a seed, biases 0, scales at their best, shifts that suit a first step.

    `images` (n, pixels), integers of 8 bits, and their labels are those of that step.
    """
    check(training, images, labels)
    generator = np.random.default_rng(seed)
    latents, biases = {}, {each.bias for each in training.forward}
    for name, parameter in training.parameters.items():
        end = 0 if name in biases else int(SPREAD * parameter.latent.high)
        latents[name] = generator.integers(-end, end, training.shape(parameter.axes), endpoint=True)
    ranks = dict.fromkeys(parameter.rank for parameter in training.parameters.values() if parameter.rank)
    scales = {axis: Scales(np.zeros(training.size[axis], np.int64), np.ones(training.size[axis], bool)) for axis in ranks}
    scales = {axis: Scales(best_squares(training, scales, latents, axis), there.alive) for axis, there in scales.items()}
    velocities = {name: np.zeros_like(latent) for name, latent in latents.items()}
    shifts = _fitting(training, State(latents, velocities, {}, {}, scales, REGISTER), images, labels)
    return State(latents, velocities, shifts, dict.fromkeys(shifts, 0), scales, REGISTER)


def _fitting(training: Training, state: State, images: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """The smallest shifts, found one contraction after the other, at which no result leaves the part of its range."""
    shifts: dict[str, int] = {}
    fracs = {name: parameter.factor.frac for name, parameter in training.parameters.items()} | {"image": IMAGE_FRAC, "error": ERROR_FRAC}
    several: list[Values] = [{**factors_of(training, state), "image": image} for image in images]
    added = {gradient: training.shape(training.parameters[name].axes) for name, gradient in training.gradients.items()}
    for each in training.contractions:
        sums = [accumulated(training, each, values, fracs) for values in several]
        frac = sum(fracs[name] for name, _ in each.args)
        if each.frac is None:
            results = np.stack(sums)
            largest = np.abs(results.reshape(-1, *added[each.name]).sum(0) if each.name in added else results).max()
            shifts[each.name] = next(k for k in range(MAX_BITS) if largest <= FULL * 2.0 ** (each.bits - 1 + k))
        fracs[each.name] = frac - shifts[each.name] if each.frac is None else each.frac
        for values, label in zip(several, labels, strict=True):
            values[each.name] = contracted(training, each, values, fracs)
            if each is training.scored:
                values["error"] = error(values[each.name], label)
    return shifts
