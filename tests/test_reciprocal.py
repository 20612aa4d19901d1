"""Reciprocals from a table, against exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayestt.algebra.reciprocal import TABLE, reciprocal


@given(st.integers(1, 2**40))
def test_a_reciprocal_is_close(value):
    mantissa, exponent = (int(part) for part in reciprocal(np.array(value)))
    found = Fraction(mantissa) / Fraction(2) ** exponent * value
    assert Fraction(507, 512) <= found <= Fraction(130, 128)
    assert 128 <= mantissa <= 256


def test_powers_of_two_are_exact():
    mantissa, exponent = reciprocal(2 ** np.arange(40))
    assert (mantissa == 256).all() and (exponent == 8 + np.arange(40)).all()


def test_the_table_is_the_nearest_integers():
    """No quotient of them is a half."""
    assert TABLE.tolist() == [round(Fraction(2**15, m)) for m in range(128, 256)]


def test_what_has_no_reciprocal_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        reciprocal(np.array([3, 0]))
