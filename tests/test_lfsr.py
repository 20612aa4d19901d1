"""The shift register: its period, a known sequence, and what its rounding adds up to over a period."""

from math import gcd

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayestt.algebra.lfsr import DRAW_BITS, PERIOD, draw, draws, round_stochastically, shifted


def test_the_register_passes_through_all_numbers_but_zero():
    seen, register = set(), 1
    for _ in range(PERIOD):
        register = shifted(register)
        seen.add(register)
    assert seen == set(range(1, PERIOD + 1)) and register == 1


def test_known_clocks():
    """The sequence that Wikipedia's example of this register, bits 0, 2, 3 and 5 from 0xACE1, gives."""
    register, found = 0xACE1, []
    for _ in range(4):
        register = shifted(register)
        found.append(register)
    assert found == [0x5670, 0xAB38, 0x559C, 0x2ACE]
    assert [draw(0xACE1), draw(draw(0xACE1))] == draws(0xACE1, 2).tolist()


@given(st.integers(1, PERIOD), st.integers(0, 40))
def test_many_draws_are_one_after_the_other(register, count):
    expected = []
    for _ in range(count):
        expected.append(draw(expected[-1] if expected else register))
    assert draws(register, count).tolist() == expected


def test_draws_come_again_after_a_period_and_not_before():
    drawn = draws(0xACE1, 2 * PERIOD)
    assert (drawn[:PERIOD] == drawn[PERIOD:]).all()
    assert len(set(drawn[:PERIOD].tolist())) == PERIOD


@pytest.mark.parametrize("taken", [21845, 13107, 3855, 255, 256, 14800, 65535])
def test_who_takes_some_draws_a_time_gives_an_entry_a_part_of_all(taken):
    """An entry meets 65535 / gcd(entries, 65535) different draws, in turns; here as far as 600 turns go."""
    turns, register, met = PERIOD // gcd(taken, PERIOD), 1, []
    for _ in range(min(turns + 3, 600)):
        drawn = draws(register, taken)
        met.append(int(drawn[0]))
        register = int(drawn[-1])
    assert len({*met[:turns]}) == min(turns, 600)
    assert met[turns:] == met[: max(0, len(met) - turns)]


@given(st.integers(-(2**31), 2**31))
def test_over_a_period_a_rounding_adds_exactly_what_is_cut_off(value):
    rounded = round_stochastically(np.full(PERIOD, value), DRAW_BITS, draws(1, PERIOD))
    floor, remainder = divmod(value, 1 << DRAW_BITS)
    assert set(rounded.tolist()) <= {floor, floor + 1}
    assert rounded.sum() == floor * PERIOD + remainder


@given(st.integers(-(2**31), 2**31), st.integers(0, DRAW_BITS))
def test_a_rounding_by_fewer_bits_misses_its_mean_by_one_draw(value, shift):
    """The number 0 is never drawn: of 65535 draws, one fewer rounds down than the odds say, whatever the value."""
    rounded = round_stochastically(np.full(PERIOD, value), shift, draws(1, PERIOD))
    assert rounded.sum() == (value << (DRAW_BITS - shift)) - (value >> shift)


@pytest.mark.parametrize("register", [0, -1, PERIOD + 1])
def test_a_register_that_would_stand_still_is_refused(register):
    with pytest.raises(ValueError, match="start it at 1 to 65535"):
        draw(register)


def test_a_rounding_by_more_bits_than_a_draw_has_is_refused():
    with pytest.raises(ValueError, match="0 to 16"):
        round_stochastically(np.zeros(1), 17, np.ones(1, np.int64))
