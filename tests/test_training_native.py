"""The compiled step against the definition: every number of the state, step after step."""

import os
import shutil
from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learnable import as_lists, planted_images, small_chain
from test_training_operation import TRAININGS

from bayestt.algebra.formats import cp, tt_matrix
from bayestt.ir.descend import Rule, State, descend
from bayestt.ir.start import start
from bayestt.ir.training import Training, training
from hw.training.native import descend_natively, library

pytestmark = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="there is no C++ compiler: install g++ or clang")


@pytest.mark.parametrize("strips", [True, False])
def test_three_hundred_steps_are_the_same_while_ranks_go(strips: bool) -> None:
    made, images, labels = small_chain(strips)
    state = twin = start(made, images, labels, 0)
    random = np.random.default_rng(0)
    for step in range(300):
        images, labels = random.integers(-128, 128, (4, 16)), random.integers(0, 4, 4)
        state, twin = _both(made, state, twin, images, labels, Rule(10 + step // 60, 6 if step > 100 else None, step // 20 % 8))
    assert not all(scales.alive.all() for scales in state.scales.values())


@pytest.mark.parametrize("strips", [True, False])
def test_extreme_images_are_taken(strips: bool) -> None:
    made, _, labels = small_chain(strips)
    random = np.random.default_rng(0)
    images = np.where(random.random((8, 16)) < 0.5, -128, 127)
    images[:2] = [[-128], [127]]
    state = twin = start(made, random.integers(-3, 4, (8, 16)), labels, 0)
    for _ in range(20):
        state, twin = _both(made, state, twin, images, labels, Rule(1, None))


def test_formats_whose_ranks_run_around_a_product_or_end_within_a_vector() -> None:
    """CP cores share their rank with what is summed already; 18 and 5 columns fill no vector."""
    made = training({"fc1": cp([3, 6], [4, 5], 4), "fc2": tt_matrix([1, 5], [3, 6], 3)})
    random = np.random.default_rng(0)
    images, labels = random.integers(-128, 128, (6, 20)), random.integers(0, 5, 6)
    state = twin = start(made, images, labels, 0)
    for _ in range(10):
        state, twin = _both(made, state, twin, images, labels, Rule(6, 4, 2))


@pytest.mark.parametrize("name", TRAININGS)
def test_a_step_of_every_training_of_these_tests_is_the_same(name: str) -> None:
    made, random = TRAININGS[name], np.random.default_rng(0)
    images = random.integers(-128, 128, (3, prod(made.shape(made.image))))
    labels = random.integers(0, prod(made.shape(made.scored.axes)), 3)
    state = start(made, images, labels, 0)
    _both(made, state, state, images, labels, Rule(6, 4, 2))


def test_an_epoch_in_one_call_is_the_same_though_its_last_batch_is_smaller() -> None:
    made, images, labels = planted_images(300)
    state = twin = start(made, images[:32], labels[:32], 0)
    batches = [(images[k : k + 32], labels[k : k + 32]) for k in range(0, 300, 32)]
    for batch in batches:
        state = descend(made, state, *batch, Rule(9, 2, 3))
    assert as_lists(descend_natively(made, twin, batches, Rule(9, 2, 3))) == as_lists(state)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_shifts_of_any_size_round_the_same(seed: int, most: int) -> None:
    """Results saturate at small shifts, and scores are multiplied where the sums' fraction is below theirs."""
    made, images, labels = small_chain()
    state = start(made, images, labels, 0)
    random = np.random.default_rng(seed)
    shifts = {name: int(random.integers(0, most, endpoint=True)) for name in state.shifts}
    state = replace(state, shifts=shifts)
    _both(made, state, state, images, labels, Rule(6, 4, 2))


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _, _ = small_chain()
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(FileNotFoundError, match="no C\\+\\+ compiler no-such-compiler: install one"):
        library(made)


def _both(made: Training, state: State, twin: State, images: np.ndarray, labels: np.ndarray, rule: Rule) -> tuple[State, State]:
    """A step of the definition and of the compiled one, which are the same."""
    state, twin = descend(made, state, images, labels, rule), descend_natively(made, twin, [(images, labels)], rule)
    assert as_lists(twin) == as_lists(state)
    return state, twin
