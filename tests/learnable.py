"""Trainings small enough for tests, and images from which they can learn."""

import numpy as np

from bayestt.algebra.fixed import Fixed, quantize
from bayestt.algebra.formats import tt_matrix
from bayestt.data.planted import planted
from bayestt.ir.descend import State
from bayestt.ir.training import Training, training

PLANTED_RANK, RANK = 2, 6


def small_chain(strips: bool = True) -> tuple[Training, np.ndarray, np.ndarray]:
    """Two layers, 16-8-4, and eight random images with labels."""
    random = np.random.default_rng(1)
    forms = {"fc1": tt_matrix([2, 4], [4, 4], 3), "fc2": tt_matrix([2, 2], [2, 4], 2)}
    images = random.integers(-128, 128, (8, 16))
    return training(forms, {"fc2": 1}, {"fc1": "i1"} if strips else {}), images, random.integers(0, 4, 8)


def planted_images(images: int = 2000) -> tuple[Training, np.ndarray, np.ndarray]:
    """A layer of rank 6, and images whose labels one of rank 2 has given."""
    data = planted(tt_matrix([4, 4], [8, 8], PLANTED_RANK), images, gain=2.0)
    return training({"fc": tt_matrix([4, 4], [8, 8], RANK)}), quantize(data.train.images, Fixed(8, 6)), data.train.labels


def as_lists(state: State) -> dict[str, object]:
    """All that a state is, as values that == compares."""
    return {
        "latents": {name: latents.tolist() for name, latents in state.latents.items()},
        "velocities": {name: velocities.tolist() for name, velocities in state.velocities.items()},
        "shifts": dict(state.shifts),
        "counts": dict(state.counts),
        "squares": {axis: scales.squares.tolist() for axis, scales in state.scales.items()},
        "alive": {axis: scales.alive.tolist() for axis, scales in state.scales.items()},
        "register": state.register,
        "steps": state.steps,
    }
