"""Sizes of the training machine: those that cannot be are refused, and every word holds all that a training puts in it."""

from dataclasses import replace

import pytest
from amaranth.utils import bits_for
from hypothesis import given
from hypothesis import strategies as st

from bayestt.ir.descend import EXPONENTIAL, PATIENT, Rule
from bayestt.ir.rank_scale import SCALE_BITS, SCALE_FRAC
from bayestt.ir.training import LATENT_BITS, MOST_EASE
from hw.training.arch import CLASSES, EASE_BITS, TrainingArch

AT_LEAST = dict.fromkeys(
    ("lanes", "loops", "extent_bits", "activation_depth", "error_depth", "latent_depth", "init_depth", "code_depth"), 1
) | {"ranks": 2, "contractions": 2}
DEPTHS = ("activation_depth", "error_depth", "latent_depth", "init_depth")
COUNTS = ("code_depth", "ranks", "contractions")


@pytest.mark.parametrize(("field", "least"), AT_LEAST.items(), ids=AT_LEAST)
def test_a_machine_without_something_is_refused(field: str, least: int) -> None:
    assert getattr(TrainingArch(**{field: least}), field) == least
    with pytest.raises(ValueError, match=f"TrainingArch.{field} is {least - 1}, expected at least {least}: give the machine some"):
        TrainingArch(**{field: least - 1})


@pytest.mark.parametrize("lanes", [3, 6, 12, 24])
def test_lanes_that_are_no_power_of_two_are_refused(lanes: int) -> None:
    with pytest.raises(ValueError, match=f"TrainingArch.lanes is {lanes}, expected a power of two: choose the next larger one"):
        TrainingArch(lanes=lanes)


@given(
    st.sampled_from([1, 2, 4, 8, 16]),
    st.fixed_dictionaries({field: st.integers(1, 5000) for field in DEPTHS}),
    st.fixed_dictionaries({field: st.integers(2, 9000) for field in COUNTS}),
)
def test_an_address_reaches_all_of_everything_and_has_no_bit_more(lanes: int, depths: dict[str, int], counts: dict[str, int]) -> None:
    arch = TrainingArch(lanes, **depths, **counts)
    largest = max(lanes * max(depths.values()), *counts.values())
    assert 1 << (arch.address_bits - 1) < largest <= 1 << arch.address_bits


@given(st.integers(1, 12), st.integers(1, 16), st.sampled_from([1, 4, 16]))
def test_chunks_of_32_bits_hold_an_instruction_and_none_is_too_many(loops: int, extent_bits: int, lanes: int) -> None:
    arch = TrainingArch(lanes, loops, extent_bits)
    assert 32 * (arch.chunks - 1) < arch.instruction.size <= 32 * arch.chunks
    more = extent_bits + 4 * arch.address_bits + bits_for(loops + 1) - bits_for(loops)
    assert replace(arch, loops=loops + 1).instruction.size == arch.instruction.size + more


def test_a_word_of_the_rule_holds_every_rule() -> None:
    arch = TrainingArch()
    for rule in (*map(Rule, range(1, 16)), *(Rule(1, pull) for pull in range(-15, 16))):
        word = arch.rule.const({"rate": rule.rate, "pull": rule.pull or 0, "pulls": rule.pull is not None, "patient": 1})
        assert (word.rate, word.pull, word.pulls, word.patient) == (rule.rate, rule.pull or 0, rule.pull is not None, 1)


def test_a_word_of_a_contraction_holds_every_shift_and_every_count() -> None:
    arch = TrainingArch()
    for shift, bias_shift, count in zip((0, 31, 7), (-128, 127, -1), (-PATIENT - 1, PATIENT + 1, 0), strict=True):
        word = arch.control.from_bits(arch.control.const({"shift": shift, "bias_shift": bias_shift, "count": count}).as_bits())
        assert (word.shift, word.bias_shift, word["count"]) == (shift, bias_shift, count)


def test_the_largest_square_ease_and_sum_of_odds_fit() -> None:
    assert bits_for((1 << 2 * (LATENT_BITS - 1)) << SCALE_FRAC) <= SCALE_BITS
    assert bits_for(MOST_EASE) <= EASE_BITS
    assert bits_for(CLASSES * int(EXPONENTIAL.max())) <= 23
