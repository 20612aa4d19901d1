"""IDX, the format of MNIST's files: two zeros, the type, the number of axes, the shape (big-endian, 4 bytes an axis), the elements."""

import math

import numpy as np

UNSIGNED_BYTES = b"\x00\x00\x08"


def decode(content: bytes, name: str) -> np.ndarray:
    """The uint8 array in the bytes of an IDX file; `name` is what an error calls the file.

    ValueError: the bytes are no IDX of unsigned bytes, or more or fewer than the shape in their header says.
    """
    if len(content) < 4 or not content.startswith(UNSIGNED_BYTES):
        raise ValueError(f"{name} starts with bytes '{content[:4].hex(' ')}', expected '00 00 08' and a number of axes: give an IDX file")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"{name} has {len(content)} bytes, expected {expected} for shape {shape}: put an unbroken file in its place")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def encode(array: np.ndarray) -> bytes:
    """The bytes of an IDX file that holds a uint8 array of any shape."""
    shape = np.array(array.shape, ">u4").tobytes()
    return UNSIGNED_BYTES + bytes([array.ndim]) + shape + array.astype(np.uint8, casting="safe").tobytes()
