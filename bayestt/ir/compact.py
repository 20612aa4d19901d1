"""Ranks that are gone, really removed: a smaller training, and its state."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bayestt.ir.descend import State
from bayestt.ir.rank_scale import Scales
from bayestt.ir.training import Training


def compact(training: Training, state: State) -> tuple[Training, State]:
    """The training without the rank indices that are gone, contractions in the same order; its steps give the same numbers."""
    kept = {axis: np.flatnonzero(scales.alive) for axis, scales in state.scales.items()}
    smaller = replace(training, size={**training.size, **{axis: len(indices) for axis, indices in kept.items()}})

    def left(entries: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        of = {name: [kept.get(axis, range(training.size[axis])) for axis in training.parameters[name].axes] for name in entries}
        return {name: entries[name][np.ix_(*of[name])] for name in entries}

    scales = {axis: Scales(scales.squares[kept[axis]], scales.alive[kept[axis]]) for axis, scales in state.scales.items()}
    return smaller, replace(state, latents=left(state.latents), velocities=left(state.velocities), scales=scales)
