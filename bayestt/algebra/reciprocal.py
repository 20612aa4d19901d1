"""Division on a machine that has none: a reciprocal from a table of 128 entries, defined bit for bit."""

import numpy as np

INDEX_BITS, MANTISSA_BITS = 7, 15
TABLE = np.array([((1 << MANTISSA_BITS) + m // 2) // m for m in range(1 << INDEX_BITS, 2 << INDEX_BITS)])
"""2**15 / m, rounded, for m from 128 to 255: numbers of nine bits."""


def reciprocal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mantissa (129 to 256) and an exponent (int64) for positive integers: 1 / value is about mantissa / 2**exponent.

    The value's eight leading bits, zeros after its last, choose the mantissa; what is cut off below them makes it up to 1 / 128 too large.
    """
    values = np.asarray(values, np.int64)
    if (values < 1).any():
        raise ValueError(f"a reciprocal of {values.min()}: give integers of at least 1")
    exponent = np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1 - INDEX_BITS
    leading = np.where(exponent < 0, values << np.maximum(-exponent, 0), values >> np.maximum(exponent, 0))
    return TABLE[leading - (1 << INDEX_BITS)], exponent + MANTISSA_BITS
