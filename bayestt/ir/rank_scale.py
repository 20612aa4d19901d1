"""The prior inside integer training: every rank has a scale, which moves to its closed form, pulls on latents, and is gone when small."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bayestt.algebra.einsum import spread
from bayestt.algebra.fixed import requantize, rescale
from bayestt.algebra.reciprocal import reciprocal
from bayestt.ir.training import Training

SCALE_BITS, SCALE_FRAC = 24, 8
"""The squares of scales, of latents as integers: at most 2**14, so unsigned and 8 bits after the point they take 23."""
STRENGTH_BITS = 16
"""Width of what a latent is multiplied by to be pulled."""
DAMPING, THRESHOLD = 4, 64
"""Scales go 2**-4 of the way to their best in a step; an index whose square is below 64 is gone for good."""


@dataclass(frozen=True, eq=False)
class Scales:
    """The squares of the scales of one rank axis, 8 bits after the point, and which of its indices are still there."""

    squares: np.ndarray
    alive: np.ndarray


def alive_entries(training: Training, scales: Mapping[str, Scales], name: str) -> np.ndarray:
    """Which entries of a parameter are there: those whose rank indices all are."""
    axes = training.parameters[name].axes
    there = np.ones(training.shape(axes), bool)
    for axis in axes:
        if axis in scales:
            there &= spread(scales[axis].alive, (axis,), axes).astype(bool)
    return there


def best_squares(training: Training, scales: Mapping[str, Scales], latents: Mapping[str, np.ndarray], axis: str) -> np.ndarray:
    """For every index of a rank axis the best square of its scale under the log-uniform prior: energy / (entries + 1).

    The energy is the sum of the squares of the latents that the rank scales, 24 bits; its product with the reciprocal has 33.
    """
    energy, entries = (np.zeros(training.size[axis], np.int64) for _ in range(2))
    for name, parameter in training.parameters.items():
        if parameter.rank == axis:
            others = tuple(k for k, other in enumerate(parameter.axes) if other != axis)
            energy += np.square(latents[name].astype(np.int64)).sum(others)
            entries += alive_entries(training, scales, name).sum(others)
    mantissa, exponent = reciprocal(entries + 1)
    return np.array([requantize(e * m, int(x) - SCALE_FRAC, 32) for e, m, x in zip(energy, mantissa, exponent, strict=True)])


def moved_scales(training: Training, scales: Mapping[str, Scales], latents: Mapping[str, np.ndarray]) -> dict[str, Scales]:
    """Scales nearer to their best, and without the indices whose square is below the threshold; the largest always stays."""
    made = {}
    for axis, before in scales.items():
        best = best_squares(training, scales, latents, axis)
        squares = np.where(before.alive, before.squares + requantize(best - before.squares, DAMPING, 32), 0)
        largest = np.arange(len(squares)) == squares.argmax()
        alive = before.alive & ((squares >= THRESHOLD << SCALE_FRAC) | largest)
        made[axis] = Scales(np.where(alive, squares, 0), alive)
    return made


def pulled(training: Training, scales: Mapping[str, Scales], name: str, latents: np.ndarray, pull: int) -> np.ndarray:
    """What the prior takes from every entry of a core: the latent times its rank's 2**pull / square, which is rounded to 16 bits."""
    parameter = training.parameters[name]
    mantissa, exponent = reciprocal(np.maximum(scales[parameter.rank].squares, 1))
    shifts = exponent - SCALE_FRAC - pull
    strength = np.array([rescale(m, int(shift), STRENGTH_BITS) for m, shift in zip(mantissa, shifts, strict=True)])
    return latents * spread(strength, (parameter.rank,), parameter.axes).astype(np.int64)
