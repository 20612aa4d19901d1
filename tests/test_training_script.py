"""What a host does: a script loads what a state is and asks for the same, and answers mean what they say."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learnable import as_lists, small_chain
from test_training_layout import smallest
from test_training_program import wild_state

from bayestt.algebra.formats import tt_matrix
from bayestt.ir.descend import IMPATIENT_STEPS, Rule
from bayestt.ir.rank_scale import Scales
from bayestt.ir.start import start
from bayestt.ir.training import training
from hw.training.arch import Part
from hw.training.program import memories_of
from hw.training.script import Order, in_memory_order, pixels, script, trained

MADE, IMAGES, LABELS = small_chain()
FIRST = start(MADE, IMAGES, LABELS, 0)
BATCHES = [(IMAGES[:3], LABELS[:3]), (IMAGES[3:4], LABELS[3:4])]


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 16]))
def test_answers_with_a_state_s_words_are_that_state(seed: int, lanes: int) -> None:
    """A host that was told another state, and answers with that one: so loading and reading are inverse."""
    program, random = smallest(MADE, lanes), np.random.default_rng(seed)
    state = wild_state(MADE, FIRST, seed)
    held = {(part, address): word for _, part, address, word in _orders(script(program, state, [], Rule(6)), Order.WRITE)}
    losses, counts = random.integers(-(1 << 15), 1 << 15, 4).tolist(), random.integers(0, 1000, 3).cumsum().tolist()
    given_losses, given_counts = iter(losses), iter(counts)
    answers = []
    for order, *operands in _orders(script(program, FIRST, BATCHES, Rule(6))):
        if order == Order.READ:
            answers.append(held[tuple(operands)])
        elif order != Order.WRITE:
            answers.append(next(given_losses if order == Order.IMAGE else given_counts) & 0xFFFFFFFF)
    found = trained(program, FIRST, BATCHES, np.array(answers, np.uint32))
    assert as_lists(found.state) == as_lists(state) | {"steps": FIRST.steps + len(BATCHES)}
    assert [each.tolist() for each in found.losses] == [losses[:3], losses[3:]]
    assert found.cycles == (counts[1] - counts[0], counts[2] - counts[1])


def test_the_order_of_a_script() -> None:
    """Code, where pixels lie, a state; then for each batch the rule, its images, and the cycles; last the same state, read."""
    program = smallest(MADE, 4)
    orders = [*_orders(script(program, FIRST, BATCHES, Rule(6, 4)))]
    latents = 1 + max(int(program.layout.addresses(name, each.axes).max()) for name, each in MADE.parameters.items())
    state = [(Part.REGISTER, 0)] + [(Part.LATENT, k) for k in range(latents)]
    state += [(Part.CONTROL, k) for k in range(13)] + [(Part.SCALE, k) for k in range(6)]
    load = len(program.code) * program.arch.chunks + 2 + len(state)
    assert [order for order, *_ in orders] == [Order.WRITE] * load + [Order.CYCLES] + [
        *(Order.WRITE, *[Order.IMAGE] * 3, Order.CYCLES),
        *(Order.WRITE, Order.IMAGE, Order.CYCLES),
        *[Order.READ] * len(state),
    ]
    assert [tuple(operands[:2]) for _, *operands in orders[load - len(state) : load]] == [(part.value, at) for part, at in state]
    assert [tuple(operands) for _, *operands in orders[-len(state) :]] == [(part.value, at) for part, at in state]


def test_code_is_written_in_chunks_the_lowest_bits_first() -> None:
    program = smallest(MADE, 4)
    chunks = [operands[1:] for _, *operands in _orders(script(program, FIRST, [], Rule(6)), Order.WRITE) if operands[0] == Part.CODE.value]
    words = [0] * len(program.code)
    for k, (number, chunk) in enumerate(chunks):
        words[number] |= chunk << 32 * (k % program.arch.chunks)
    assert tuple(words) == program.code


def test_an_image_comes_with_its_label_its_pixels_in_order_and_whether_it_is_the_last() -> None:
    program = smallest(MADE, 4)
    images = [operands for _, *operands in _orders(script(program, FIRST, BATCHES, Rule(6)), Order.IMAGE)]
    assert [label for label, *_ in images] == LABELS[:4].tolist()
    assert [last for _, last, *_ in images] == [0, 0, 1, 1]
    rows = in_memory_order(program, IMAGES)
    assert [np.array(row, np.uint32).view(np.int32).tolist() for *_, row in images] == rows[:4].tolist()


@pytest.mark.parametrize("lanes", [1, 4, 16])
def test_pixels_are_those_at_all_addresses_from_the_first_to_the_last(lanes: int) -> None:
    """Where lanes read an image of 5 x 6, words of it have room that no pixel takes: it is filled with zeros."""
    made = training({"fc": tt_matrix([4, 4], [5, 6], 3)})
    program, images = smallest(made, lanes), np.random.default_rng(0).integers(-128, 128, (3, 30))
    rows, places = in_memory_order(program, images), pixels(program)
    assert (rows[:, places - places.min()] == images).all() and rows.shape[1] == places.max() - places.min() + 1
    assert np.count_nonzero(np.delete(rows, places - places.min(), 1)) == 0


def test_an_old_training_is_patient_and_a_prior_pulls_where_there_is_one() -> None:
    program = smallest(MADE, 4)
    rules = {}
    for rule in (Rule(6), Rule(15, -15, 7)):
        state = replace(FIRST, steps=IMPATIENT_STEPS - 1)
        orders = _orders(script(program, state, BATCHES, rule), Order.WRITE)
        words = [program.arch.rule.from_bits(word) for _, part, _, word in orders if part == Part.RULE.value]
        rules[rule] = [(word.rate, word.momentum, word.pull, word.pulls, word.patient) for word in words]
    assert rules == {Rule(6): [(6, 0, 0, 0, 0), (6, 0, 0, 0, 1)], Rule(15, -15, 7): [(15, 7, -15, 1, 0), (15, 7, -15, 1, 1)]}


def test_images_that_do_not_fit_are_refused_before_anything_is_written() -> None:
    with pytest.raises(ValueError, match=r"images of shape \(8, 15\): the training takes at least one, of 16 pixels each"):
        script(smallest(MADE, 4), FIRST, [(IMAGES, LABELS), (IMAGES[:, 1:], LABELS)], Rule(6))


def test_pixels_go_from_the_first_address_to_the_last() -> None:
    program = smallest(MADE, 4)
    written = [operands for _, *operands in _orders(script(program, FIRST, [], Rule(6)), Order.WRITE) if operands[0] == Part.IMAGE.value]
    assert written == [[Part.IMAGE.value, 0, int(pixels(program).min())], [Part.IMAGE.value, 1, int(pixels(program).max())]]


@pytest.mark.parametrize(("fields", "words"), [
    ({"register": 0}, "the shift register goes from 0 to 0, expected 1 to 65535: give a state that steps have led to"),
    ({"register": 1 << 16}, "the shift register goes from 65536 to 65536, expected 1 to 65535"),
    ({"counts": {"fc1": 7}}, "counts go from 0 to 7, expected -6 to 6"),
    ({"latents": {"fc1.bias": np.full((2, 4), 128)}}, "latents go from -.* to 128, expected -128 to 127"),
    ({"scales": {"fc2.r1": Scales(np.array([-1, 9]), np.ones(2, bool))}}, "squares of scales go from -1 to .*, expected 0 to 16777215"),
])  # fmt: skip
def test_a_state_that_no_word_holds_is_refused_before_anything_is_written(fields: dict, words: str) -> None:
    fields = {name: value if name == "register" else {**getattr(FIRST, name), **value} for name, value in fields.items()}
    with pytest.raises(ValueError, match=words):
        script(smallest(MADE, 4), replace(FIRST, **fields), BATCHES, Rule(6))


def test_what_no_word_is_read_of_stays_as_it_was() -> None:
    """A training without ranks has the scale of none alone."""
    made = training({"fc": tt_matrix([4], [8], 1)})
    images, labels = np.random.default_rng(0).integers(-128, 128, (2, 8)), np.array([0, 3])
    program, state = smallest(made, 4), start(made, images, labels, 0)
    held = {(part, address): word for _, part, address, word in _orders(script(program, state, [], Rule(6)), Order.WRITE)}
    asked = [tuple(operands) for _, *operands in _orders(script(program, state, [], Rule(6)), Order.READ)]
    assert [at for at in asked if at[0] == Part.SCALE.value] == [(Part.SCALE.value, 0)]
    found = trained(program, state, [], np.array([0, *(held[at] for at in asked)], np.uint32))
    assert as_lists(found.state) == as_lists(state) and not found.losses and not found.cycles
    assert memories_of(program, found.state).alive.all()


def _orders(words: np.ndarray, only: Order | None = None) -> Iterator[list]:
    """The orders of a script, each with its operands; those of an image end in the list of its pixels."""
    at = iter(words.tolist())
    for order in at:
        count = {Order.WRITE: 3, Order.READ: 2, Order.IMAGE: 2, Order.CYCLES: 0}[Order(order)]
        operands = [next(at) for _ in range(count)]
        if order == Order.IMAGE:
            operands.append([next(at) for _ in range(next(at))])
        if only is None or order == only:
            yield [Order(order), *operands]
