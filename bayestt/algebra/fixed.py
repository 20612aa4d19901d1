"""Signed fixed-point numbers and the one rounding rule that software and gateware share."""

from dataclasses import dataclass

import numpy as np

MAX_BITS = 32


@dataclass(frozen=True)
class Fixed:
    """A number format: an integer of `bits` bits (two's complement) stands for integer * 2**-frac.

    `frac` may be negative (steps larger than one) or exceed `bits` (all values below one).
    """

    bits: int
    frac: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= MAX_BITS:
            raise ValueError(f"a fixed-point number of {self.bits} bits: choose 2 to {MAX_BITS} bits")

    @property
    def low(self) -> int:
        """Smallest integer."""
        return -(1 << (self.bits - 1))

    @property
    def high(self) -> int:
        """Largest integer."""
        return (1 << (self.bits - 1)) - 1


def quantize(values: np.ndarray, fixed: Fixed) -> np.ndarray:
    """Nearest integers of the format (halves go up), saturated: float array -> int64 array of the same shape."""
    if np.isnan(values).any():
        raise ValueError("NaN has no fixed-point number: look for it where these values were computed")
    return np.clip(np.floor(np.ldexp(np.asarray(values, np.float64), fixed.frac) + 0.5), fixed.low, fixed.high).astype(np.int64)


def dequantize(integers: np.ndarray, fixed: Fixed) -> np.ndarray:
    """The numbers that integers of the format stand for, as float64."""
    return np.ldexp(np.asarray(integers, np.float64), -fixed.frac)


def requantize(accumulators: np.ndarray, shift: int, bits: int, relu: bool = False) -> np.ndarray:
    """The one rounding rule: accumulators / 2**shift, halves up, optionally rectified, saturated to `bits` bits (int64).

    This is the definition; `hw.gateware.requantize` is its circuit. `shift` is 0 to 31.
    """
    if not (0 <= shift < MAX_BITS and 2 <= bits <= MAX_BITS):
        raise ValueError(f"requantize by a shift of {shift} to {bits} bits: shifts are 0 to {MAX_BITS - 1}, bits 2 to {MAX_BITS}")
    half = (1 << shift) >> 1
    rounded = (np.asarray(accumulators, np.int64) + half) >> shift
    top = (1 << (bits - 1)) - 1
    return np.clip(rounded, 0 if relu else -top - 1, top)


def rescale(integers: np.ndarray, shift: int, bits: int) -> np.ndarray:
    """`requantize`, but that a shift below 0 multiplies: integers / 2**shift, halves up, saturated to `bits` bits (int64).

    Integers are of 32 bits; shifts beyond 31 to either side count as 31.
    """
    if shift >= 0:
        return requantize(integers, min(shift, MAX_BITS - 1), bits)
    return saturate(np.asarray(integers, np.int64) << min(-shift, MAX_BITS - 1), bits)


def saturate(integers: np.ndarray, bits: int) -> np.ndarray:
    """The nearest integers that have so many bits (int64)."""
    top = (1 << (bits - 1)) - 1
    return np.clip(np.asarray(integers, np.int64), -top - 1, top)


def wrap(integers: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement wrap-around to `bits` bits: what an accumulator register of that width keeps (int64)."""
    modulus = 1 << bits
    return (np.asarray(integers, np.int64) + (modulus >> 1)) % modulus - (modulus >> 1)
