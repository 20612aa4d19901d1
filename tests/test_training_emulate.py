"""What the machine computes in numpy against the definition of a step: every latent, shift, scale and draw, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learnable import as_lists, small_chain
from test_training_layout import smallest
from test_training_operation import TRAININGS, all_lanes

from bayestt.algebra.formats import cp, tt_matrix
from bayestt.ir.compact import compact
from bayestt.ir.descend import Rule, State, descend
from bayestt.ir.start import start
from bayestt.ir.training import Training, training
from hw.training.arch import TrainingArch
from hw.training.assemble import arch_for, assemble
from hw.training.emulate import emulate, lane_offsets
from hw.training.script import Batch

THINNING = Rule(4, 8)


@all_lanes
@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize("rule", [Rule(6, 4, 3), Rule(6, None)], ids=str)
def test_steps_are_those_of_the_definition(lanes: int, strips: bool, rule: Rule) -> None:
    made, images, labels = small_chain(strips)
    state = start(made, images, labels, 0)
    _hold_to_the_definition(made, state, [(images[k : k + 2], labels[k : k + 2]) for k in (0, 2, 4)], rule, lanes)


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_extreme_images_of_any_sign_are_taken_at_any_age(lanes: int) -> None:
    made, _, labels = small_chain()
    random = np.random.default_rng(lanes)
    images = np.where(random.random((4, 16)) < 0.5, -128, 127)
    images[:2] = [[-128], [127]]
    state = replace(start(made, images, labels[:4], 0), steps=8)
    latents = {name: random.choice([-128, 127], each.shape) for name, each in state.latents.items()}
    for each in (state, replace(state, latents=latents, shifts=dict.fromkeys(state.shifts, 0) | {"fc1": state.shifts["fc1"]})):
        _hold_to_the_definition(made, each, [(images, labels[:4])] * 2, Rule(1, 15, 1), lanes)


@pytest.fixture(scope="module")
def thinned() -> tuple[Training, list[Batch], list[State]]:
    """A training under a strong prior, four images a step, and its states by the definition: ranks go one after the other."""
    made, images, labels = small_chain()
    random, states = np.random.default_rng(0), [start(made, images, labels, 0)]
    batches = [(images[at], labels[at]) for at in (random.choice(8, 4, replace=False) for _ in range(160))]
    for batch in batches:
        states.append(descend(made, states[-1], *batch, THINNING))
    return made, batches, states


def test_ranks_go_as_the_definition_says(thinned: tuple[Training, list[Batch], list[State]]) -> None:
    """The steps in which some go, and those before and behind them."""
    made, batches, states = thinned
    there = [_there(state) for state in states]
    going = [k for k in range(len(batches)) if there[k] != there[k + 1]]
    assert there[0] == (3, 2) and there[-1] == (1, 1) and len(going) >= 3, "ranks should go one by one: the test would not see how"
    for k in sorted({near for each in going for near in (each - 1, each, each + 1)}):
        assert as_lists(emulate(smallest(made, 4), states[k], *batches[k], THINNING)) == as_lists(states[k + 1])


def test_without_the_ranks_that_are_gone_a_smaller_program_takes_the_same_steps(
    thinned: tuple[Training, list[Batch], list[State]],
) -> None:
    """From when the first rank is gone to when all but one of each are: that is seen in the smaller one, too."""
    made, batches, states = thinned
    first = next(k for k, state in enumerate(states) if _there(state) != (3, 2))
    last = next(k for k, state in enumerate(states) if _there(state) == (1, 1))
    begin = max(first, last - 8)
    smaller, state = compact(made, states[begin])
    large, small = smallest(made, 4), smallest(smaller, 4)
    assert _there(states[begin]) == (3, 1) and small.arch.ranks == large.arch.ranks - 1
    assert small.arch.latent_depth < large.arch.latent_depth
    for k in range(begin, last + 3):
        state = emulate(small, state, *batches[k], THINNING)
        assert as_lists(compact(smaller, state)[1]) == as_lists(compact(made, states[k + 1])[1])
    tiny, state = compact(smaller, state)
    for k in range(last + 3, last + 6):
        state = emulate(smallest(tiny, 4), state, *batches[k], THINNING)
        assert as_lists(state) == as_lists(compact(made, states[k + 1])[1])


@settings(max_examples=10)
@given(st.data())
def test_nets_of_any_modes_and_ranks_train_as_the_definition_says(data: st.DataObject) -> None:
    """One to three layers, whose rows are the next one's columns."""
    modes = st.lists(st.integers(1, 4), min_size=2, max_size=2)
    cols, forms = data.draw(modes), {}
    for k in range(data.draw(st.integers(1, 3))):
        rows, form = data.draw(modes), data.draw(st.sampled_from([tt_matrix, cp]))
        most = min(rows[0] * cols[0], rows[1] * cols[1])
        forms[f"fc{k}"] = form(rows, cols, data.draw(st.integers(1, min(most, 5))))
        cols = rows
    made, random = training(forms), np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    images = random.integers(-128, 128, (2, np.prod(made.shape(made.image))))
    labels = random.integers(0, np.prod(cols), 2)
    rule = Rule(data.draw(st.integers(1, 15)), data.draw(st.none() | st.integers(-15, 15)), data.draw(st.integers(0, 7)))
    state = start(made, images, labels, data.draw(st.integers(0, 99)))
    _hold_to_the_definition(made, state, [(images, labels)] * 2, rule, data.draw(st.sampled_from([1, 2, 4, 8, 16])))


@pytest.mark.parametrize("name", ["one core", "pieces", "powers"])
def test_nets_whose_axes_are_cut_train_as_the_definition_says(name: str) -> None:
    made, random = TRAININGS[name], np.random.default_rng(0)
    pixels, scores = (int(np.prod(made.shape(axes))) for axes in (made.image, made.scored.axes))
    images, labels = random.integers(-128, 128, (2, pixels)), random.integers(0, scores, 2)
    _hold_to_the_definition(made, start(made, images, labels, 0), [(images, labels)] * 2, Rule(4, 5, 7), 4)


@pytest.mark.slow
def test_the_papers_net_trains_as_the_definition_says() -> None:
    made, random = TRAININGS["paper's strips"], np.random.default_rng(0)
    images, labels = random.integers(0, 128, (4, 896)), random.integers(0, 10, 4)
    _hold_to_the_definition(made, start(made, images, labels, 0), [(images, labels)] * 3, Rule(3, 6, 3), 16)


def test_a_larger_machine_computes_the_same() -> None:
    made, images, labels = small_chain()
    state = start(made, images, labels, 0)
    rule = Rule(6, 4, 2)
    one, two = (emulate(assemble(made, arch), state, images[:2], labels[:2], rule) for arch in (arch_for(made, 8), TrainingArch(8)))
    assert as_lists(one) == as_lists(two)


def test_a_step_leaves_the_state_before_it_as_it_was() -> None:
    made, images, labels = small_chain()
    state = start(made, images, labels, 0)
    before = as_lists(state)
    emulate(smallest(made, 4), state, images, labels, Rule(1, 15, 1))
    assert as_lists(state) == before


def test_images_that_do_not_fit_are_refused() -> None:
    made, images, labels = small_chain()
    program, state = smallest(TRAININGS["strips"], 4), start(made, images, labels, 0)
    with pytest.raises(ValueError, match=r"images of shape \(8, 15\): the training takes at least one, of 16 pixels each"):
        emulate(program, state, images[:, 1:], labels, Rule(6))
    with pytest.raises(ValueError, match="give one integer each, from 0 to 3"):
        emulate(program, state, images, labels + 4, Rule(6))


def test_lanes_leave_in_three_loops() -> None:
    """12 lanes, 10 apart; every 2 of them 100 further than the one before; every 6 of them 1000."""
    fields = {"lanes": 12, "lane_y": 10, "turns": [1, 2], "jumps": [80, 980]}
    offsets = lane_offsets(TrainingArch().instruction.const(fields))
    assert offsets.tolist() == [0, 10, 100, 110, 200, 210, 1200, 1210, 1300, 1310, 1400, 1410]


def _there(state: State) -> tuple[int, ...]:
    """How many indices of each rank axis are there."""
    return tuple(int(scales.alive.sum()) for scales in state.scales.values())


def _hold_to_the_definition(made: Training, state: State, batches: list[Batch], rule: Rule, lanes: int) -> State:
    """Assert that the machine takes the steps of `descend`; the state after them."""
    program = assemble(made, arch_for(made, lanes))
    found = state
    for images, labels in batches:
        found, state = emulate(program, found, images, labels, rule), descend(made, state, images, labels, rule)
        assert as_lists(found) == as_lists(state)
    return state
