"""A state as the machine holds it, and back; and the parts of a program."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learnable import as_lists, small_chain
from test_training_layout import smallest
from test_training_operation import TRAININGS, every_training

from bayestt.ir.descend import PATIENT, State, accumulator_frac, fractions
from bayestt.ir.rank_scale import Scales
from bayestt.ir.start import start
from bayestt.ir.training import Training
from hw.training.arch import Kind
from hw.training.program import Memories, memories_of, state_of

MADE, IMAGES, LABELS = small_chain()
FIRST = start(MADE, IMAGES, LABELS, 0)


def wild_state(made: Training, first: State, seed: int) -> State:
    """A state with anything that a machine can hold, but the shifts of contractions before the scores."""
    random = np.random.default_rng(seed)
    backward = {each.name for each in made.backward}
    scales = {}
    for axis, before in first.scales.items():
        alive = random.random(len(before.alive)) < 0.7
        scales[axis] = Scales(np.where(alive, random.integers(0, 1 << 22, len(alive)), 0), alive)
    return State(
        {name: random.integers(-128, 128, latents.shape) for name, latents in first.latents.items()},
        {name: random.integers(-1 << 15, 1 << 15, latents.shape) for name, latents in first.latents.items()},
        {name: int(random.integers(0, 32)) if name in backward else shift for name, shift in first.shifts.items()},
        {name: int(random.integers(-PATIENT - 1, PATIENT + 2)) for name in first.counts},
        scales,
        int(random.integers(1, 1 << 16)),
        int(random.integers(0, 1000)),
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 16]))
def test_a_state_comes_back_from_memories_as_it_went(seed: int, lanes: int) -> None:
    program, state = smallest(MADE, lanes), wild_state(MADE, FIRST, seed)
    memories = memories_of(program, state)
    found = state_of(program, memories)
    assert as_lists(found) == as_lists(state)
    again = memories_of(program, found)
    assert all(np.array_equal(getattr(again, field.name), getattr(memories, field.name)) for field in fields(Memories))


def test_a_state_shares_nothing_with_the_memories_that_it_was_read_from() -> None:
    program = smallest(MADE, 4)
    memories = memories_of(program, FIRST)
    state = state_of(program, memories)
    for array in (memories.latents, memories.velocities, memories.squares, memories.alive):
        array[:] = 0
    assert as_lists(state) == as_lists(FIRST)


def test_shifts_of_scores_and_of_biases_are_differences_of_fractions() -> None:
    program, fracs = smallest(MADE, 4), fractions(MADE, FIRST.shifts)
    memories = memories_of(program, FIRST)
    for number, each in enumerate(MADE.contractions):
        sums = accumulator_frac(each, fracs)
        assert memories.shifts[number] == sums - fracs[each.name]
        assert memories.bias_shifts[number] == (fracs[each.bias] - sums if each.bias else 0)
    number = MADE.contractions.index(MADE.scored)
    assert MADE.scored.name not in FIRST.shifts and memories.shifts[number] > 0 and memories.bias_shifts[number] < 0


def test_the_first_rank_index_is_of_none_and_there() -> None:
    memories = memories_of(smallest(MADE, 4), wild_state(MADE, FIRST, 3))
    assert memories.alive[0] and memories.squares[0] == 0


@pytest.mark.parametrize("beyond", [1, 4])
def test_scores_that_would_be_shifted_to_the_left_are_refused(beyond: int) -> None:
    """Every step to the right of the hidden layer's is one to the left of the scores."""
    program = smallest(MADE, 4)
    right = int(memories_of(program, FIRST).shifts[MADE.contractions.index(MADE.scored)])
    at_most = replace(FIRST, shifts={**FIRST.shifts, "fc1": FIRST.shifts["fc1"] + right})
    assert memories_of(program, at_most).shifts[MADE.contractions.index(MADE.scored)] == 0
    state = replace(at_most, shifts={**FIRST.shifts, "fc1": FIRST.shifts["fc1"] + right + beyond})
    with pytest.raises(ValueError, match=f"contraction 'fc2' is shifted by -{beyond}, expected 0 to 31: start again from other images"):
        memories_of(program, state)


def test_a_shift_beyond_a_word_is_refused() -> None:
    """What a machine cannot hold is said, though no step leads there."""
    program = smallest(MADE, 4)
    assert memories_of(program, replace(FIRST, shifts={**FIRST.shifts, "fc1.error": 31})).shifts.max() == 31
    with pytest.raises(ValueError, match="contraction 'fc1.error' is shifted by 32, expected 0 to 31"):
        memories_of(program, replace(FIRST, shifts={**FIRST.shifts, "fc1.error": 32}))


def test_a_program_for_a_machine_too_small_for_it_is_refused() -> None:
    program = smallest(MADE, 4)
    with pytest.raises(ValueError, match="the training needs 13 contractions, there is room for 12: raise TrainingArch.contractions"):
        replace(program, arch=replace(program.arch, contractions=12))


@every_training
def test_the_parts_are_all_of_the_code_and_only_their_last_ends(made: Training) -> None:
    program = smallest(made, 4)
    parts = program.image_part, program.batch_part
    assert tuple(each.as_bits() for part in parts for each in part) == program.code
    assert all([each.end for each in part] == [0] * (len(part) - 1) + [1] for part in parts)
    for_images = {Kind.MULTIPLY, Kind.BIAS, Kind.PEAK, Kind.ODDS, Kind.CHANCE, Kind.MASK}
    assert {Kind(each.kind) for each in program.image_part} <= for_images
    assert not {Kind(each.kind) for each in program.batch_part} & for_images


def test_what_is_needed_counted_by_hand() -> None:
    """In words of one lane: a one, 16 pixels, a strip of the first partial's 24 elements, 8 activations, the second's 8, 4 scores."""
    needed = smallest(TRAININGS["strips"], 1).needed
    assert needed["latent_depth"] == 24 + 48 + 8 + 16 + 12
    assert needed["activation_depth"] == 1 + 16 + 24 // 2 + 8 + 8 + 4
    assert needed["init_depth"] == 1 + 8 + 4 and needed["ranks"] == 1 + 3 + 2 and needed["contractions"] == 13
