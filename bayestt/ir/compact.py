"""Ranks that are gone, really removed: a smaller training, and its state."""

from dataclasses import replace

import numpy as np

from bayestt.ir.descend import State
from bayestt.ir.rank_scale import Scales
from bayestt.ir.training import Training


def compact(training: Training, state: State) -> tuple[Training, State]:
    """The training without the rank indices that are gone, contractions in the same order; its steps give the same numbers."""
    kept = {axis: np.flatnonzero(scales.alive) for axis, scales in state.scales.items()}
    smaller = replace(training, size={**training.size, **{axis: len(indices) for axis, indices in kept.items()}})
    latents = {}
    for name, parameter in training.parameters.items():
        latent = state.latents[name]
        for k, axis in enumerate(parameter.axes):
            if axis in kept:
                latent = latent.take(kept[axis], k)
        latents[name] = latent
    scales = {axis: Scales(scales.squares[kept[axis]], scales.alive[kept[axis]]) for axis, scales in state.scales.items()}
    return smaller, replace(state, latents=latents, scales=scales)
