"""The IDX format: a round trip, a known header, and whatever is broken is refused."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bayestt.data.idx import decode, encode

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)


@given(arrays.arrays(np.uint8, SHAPES))
def test_encode_then_decode_is_the_array(array: np.ndarray) -> None:
    read = decode(encode(array), "a file")
    assert read.dtype == np.uint8 and read.shape == array.shape and (read == array).all()


def test_the_header_is_mnists() -> None:
    assert encode(np.zeros((300, 28, 28), np.uint8))[:16] == struct.pack(">4I", 2051, 300, 28, 28)
    assert encode(np.zeros(7, np.uint8))[:8] == struct.pack(">2I", 2049, 7)


@given(arrays.arrays(np.uint8, SHAPES), st.data())
def test_every_truncated_file_is_refused(array: np.ndarray, data: st.DataObject) -> None:
    content = encode(array)
    with pytest.raises(ValueError, match="a file (starts with|has [0-9]+ bytes, expected)"):
        decode(content[: data.draw(st.integers(0, len(content) - 1))], "a file")


def test_a_file_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a file has 15 bytes, expected 14 for shape \(2, 1\): put an unbroken file"):
        decode(encode(np.zeros((2, 1), np.uint8)) + b"x", "a file")


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x08", b"\x1f\x8b\x08\x00 a gzip", struct.pack(">2I", 0x0D01, 0)])
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"a file starts with bytes '.*', expected '00 00 08' and a number of axes: give an IDX file"):
        decode(content, "a file")


def test_only_bytes_are_encoded() -> None:
    with pytest.raises(TypeError):
        encode(np.array([0.5]))
