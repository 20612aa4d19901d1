"""Fixed-point numbers against exact fractions: one rounding rule, saturation, wrap-around."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bayestt.algebra.fixed import Fixed, dequantize, quantize, requantize, rescale, saturate, wrap

LOW, HIGH = -(2**31), 2**31 - 1
accumulators = st.lists(st.integers(LOW, HIGH) | st.sampled_from([LOW, LOW + 1, -1, 0, 1, HIGH - 1, HIGH]), min_size=1)
formats = st.builds(Fixed, bits=st.integers(2, 32), frac=st.integers(-8, 40))


def nearest(value: Fraction) -> int:
    """The nearest integer; halves go up."""
    return floor(value + Fraction(1, 2))


@given(accumulators, st.integers(0, 31), st.integers(2, 32), st.booleans())
def test_requantize_rounds_as_exact_fractions_do(values, shift, bits, relu):
    low, high = 0 if relu else -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    expected = [min(max(nearest(Fraction(value, 2**shift)), low), high) for value in values]
    found = requantize(np.array(values, np.int32), shift, bits, relu)
    assert found.dtype == np.int64
    assert found.tolist() == expected


def test_requantize_of_known_numbers():
    assert requantize(np.array([-6, -5, -3, -2, -1, 1, 2, 3, 5, 6]), 2, 8).tolist() == [-1, -1, -1, 0, 0, 0, 1, 1, 1, 2]
    assert requantize(np.array([1000, -1000]), 1, 8).tolist() == [127, -128]
    assert requantize(np.array([1000, -1000]), 1, 8, relu=True).tolist() == [127, 0]
    assert requantize(np.array([HIGH, LOW]), 31, 8).tolist() == [1, -1]


@given(st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=1), formats)
def test_quantize_is_nearest_and_saturates(values, fixed):
    expected = [min(max(nearest(Fraction(value) * Fraction(2) ** fixed.frac), fixed.low), fixed.high) for value in values]
    assert quantize(np.array(values), fixed).tolist() == expected


def test_quantize_of_known_numbers():
    assert quantize(np.array([0.5, -0.5, 0.25, 100.0, -100.0, np.inf, -np.inf]), Fixed(8, 1)).tolist() == [1, -1, 1, 127, -128, 127, -128]
    assert quantize(np.array([12.0, 13.0]), Fixed(4, -3)).tolist() == [2, 2]
    assert dequantize(np.array([2, -3]), Fixed(4, -3)).tolist() == [16.0, -24.0]


@given(formats, st.data())
def test_integers_survive_the_round_trip(fixed, data):
    integers = data.draw(st.lists(st.integers(fixed.low, fixed.high) | st.sampled_from([fixed.low, fixed.high]), min_size=1))
    assert quantize(dequantize(np.array(integers), fixed), fixed).tolist() == integers


@given(formats, st.data())
def test_a_number_within_range_moves_by_half_a_step_at_most(fixed, data):
    step = 2.0**-fixed.frac
    values = np.array(data.draw(st.lists(st.floats(fixed.low * step, fixed.high * step), min_size=1)))
    assert np.all(np.abs(dequantize(quantize(values, fixed), fixed) - values) <= step / 2)


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1), st.integers(2, 32))
def test_wrap_keeps_the_low_bits(values, bits):
    wrapped = wrap(np.array(values), bits).tolist()
    for value, kept in zip(values, wrapped, strict=True):
        assert (value - kept) % 2**bits == 0
        assert -(2 ** (bits - 1)) <= kept < 2 ** (bits - 1)


def test_wrap_of_known_numbers():
    assert wrap(np.array([127, 128, 255, 256, -128, -129]), 8).tolist() == [127, -128, -1, 0, -128, 127]


def test_the_range_of_a_format():
    assert (Fixed(8, 3).low, Fixed(8, 3).high) == (-128, 127)
    assert (Fixed(2, 0).low, Fixed(2, 0).high) == (-2, 1)


@pytest.mark.parametrize("bits", [-8, 0, 1, 33, 64])
def test_bits_out_of_range_are_refused(bits):
    with pytest.raises(ValueError, match=rf"{bits} bits.*2 to 32"):
        Fixed(bits, 0)


@pytest.mark.parametrize(("shift", "bits"), [(-1, 8), (32, 8), (4, 1), (4, 0), (4, 33)])
def test_requantize_refuses_what_the_circuit_cannot_do(shift, bits):
    with pytest.raises(ValueError, match=rf"{shift if bits == 8 else bits}.* to 3[12]"):
        requantize(np.array([5]), shift, bits)


def test_what_is_no_number_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        quantize(np.array([0.0, np.nan]), Fixed(8, 4))


@given(accumulators, st.integers(-40, 31), st.integers(2, 32))
def test_rescale_is_exact_to_both_sides(values, shift, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    expected = [min(max(nearest(Fraction(value) / Fraction(2) ** shift), low), high) for value in values]
    assert rescale(np.array(values), shift, bits).tolist() == expected
    assert saturate(np.array(values), bits).tolist() == rescale(np.array(values), 0, bits).tolist()
