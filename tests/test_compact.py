"""Removed ranks: the smaller training goes on with the very numbers of the masked one."""

from dataclasses import replace

import numpy as np
from learnable import as_lists, small_chain

from bayestt.algebra.formats import tt_matrix
from bayestt.ir.compact import compact
from bayestt.ir.descend import Rule, State, descend
from bayestt.ir.rank_scale import Scales, alive_entries
from bayestt.ir.start import start
from bayestt.ir.training import Training, training


def masked(training: Training, state: State, gone: dict[str, list[int]]) -> State:
    """The state without some indices of its ranks."""
    scales = dict(state.scales)
    for axis, indices in gone.items():
        alive = np.isin(np.arange(training.size[axis]), indices, invert=True)
        scales[axis] = Scales(np.where(alive, scales[axis].squares, 0), alive)
    there = {name: alive_entries(training, scales, name) for name in training.parameters}
    left = {kind: {n: np.where(there[n], w, 0) for n, w in getattr(state, kind).items()} for kind in ("latents", "velocities")}
    return replace(state, scales=scales, **left)


def test_a_smaller_training_takes_the_same_steps():
    training, images, labels = small_chain()
    large = masked(training, start(training, images, labels, 0), {"fc1.r1": [0, 2], "fc2.r1": [1]})
    smaller, small = compact(training, large)
    assert smaller.size["fc1.r1"] == 1 and smaller.size["fc2.r1"] == 1
    assert small.latents["fc1.core0"].shape == (2, 4, 1)
    for _ in range(20):
        large, small = descend(training, large, images, labels, Rule(10, 2, 3)), descend(smaller, small, images, labels, Rule(10, 2, 3))
        _, found = compact(training, large)
        assert as_lists(found) == as_lists(small)


def test_ranks_that_go_in_one_step_are_gone_in_the_next():
    """Three cores, of which r2 scales one that r1 thins: made compact after every step, the training takes the masked one's steps."""
    chain, random = training({"fc": tt_matrix([2, 2, 2], [2, 2, 4], 3)}), np.random.default_rng(0)
    images, labels = random.integers(-128, 128, (8, 16)), random.integers(0, 8, 8)
    large = start(chain, images, labels, 0)
    squares = {"fc.r1": np.array([1000, 70, 1000]) << 8, "fc.r2": np.array([1000, 200, 1000]) << 8}
    smaller_by = {"fc.core0": [1, 8, 1], "fc.core1": [1, 8, 1], "fc.core2": np.reshape([1, 8, 1], (3, 1, 1)), "fc.bias": 1}
    latents = {name: latent // smaller_by[name] for name, latent in large.latents.items()}
    large = replace(large, latents=latents, scales={axis: Scales(each, np.ones(3, bool)) for axis, each in squares.items()})
    smaller, small, left = chain, large, []
    for _ in range(40):
        large = descend(chain, large, images, labels, Rule(14, 2))
        smaller, small = compact(smaller, descend(smaller, small, images, labels, Rule(14, 2)))
        assert not any(large.latents[name][~alive_entries(chain, large.scales, name)].any() for name in chain.parameters)
        _, found = compact(chain, large)
        assert as_lists(found) == as_lists(small)
        left.append((smaller.size["fc.r1"], smaller.size["fc.r2"]))
    assert list(dict.fromkeys(left)) == [(3, 3), (2, 3), (2, 2)]


def test_nothing_gone_is_nothing_changed():
    training, images, labels = small_chain()
    state = start(training, images, labels, 0)
    same, after = compact(training, state)
    assert same.size == training.size
    assert all((after.latents[name] == latent).all() for name, latent in state.latents.items())
