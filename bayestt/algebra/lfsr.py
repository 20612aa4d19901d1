"""Random numbers of sixteen bits from a shift register, and the stochastic rounding that they decide: the same on every machine.

Who takes P draws a time, one for each of P entries, gives an entry only every P-th: it meets 65535 / gcd(P, 65535) different draws, over
and over. So P with factors of 65535 = 3 * 5 * 17 * 257 are bad, multiples of 257 or 17 most of all, and an entry's rounding is unbiased
only over the draws that it meets. The networks of recorded trainings have a gcd of 1 to 5.
"""

from functools import cache

import numpy as np

DRAW_BITS = 16
PERIOD = (1 << DRAW_BITS) - 1
"""Draws until the first one comes again: every number from 1 to 65535 once."""


def shifted(register: int) -> int:
    """The register after one clock: the exclusive or of bits 0, 2, 3 and 5 enters at bit 15, all others move down by one.

    Its polynomial, x^16 + x^14 + x^13 + x^11 + 1, is primitive: from any number but 0 it passes through all others.
    """
    entering = (register ^ register >> 2 ^ register >> 3 ^ register >> 5) & 1
    return register >> 1 | entering << (DRAW_BITS - 1)


def draw(register: int) -> int:
    """The next draw, which is also the register after it: sixteen clocks, so that no two draws share a bit."""
    if not 1 <= register <= PERIOD:
        raise ValueError(f"a shift register that holds {register}: start it at 1 to {PERIOD}, for at 0 it stands still")
    for _ in range(DRAW_BITS):
        register = shifted(register)
    return register


def draws(register: int, count: int) -> np.ndarray:
    """The next `count` draws, int64; the last of them is the register afterwards."""
    order, place = _cycle()
    return order[(place[draw(register)] + np.arange(count)) % PERIOD]


def round_stochastically(values: np.ndarray, shift: int, drawn: np.ndarray) -> np.ndarray:
    """values / 2**shift, up or down with the odds of what is cut off: a draw's high `shift` bits are added before the cut (int64).

    Over a period the sum of the results exceeds that of the floors by exactly the remainder cut off, where `shift` is 16.
    """
    if not 0 <= shift <= DRAW_BITS:
        raise ValueError(f"a stochastic rounding by {shift} bits: a draw decides 0 to {DRAW_BITS}")
    return (np.asarray(values, np.int64) + (drawn >> (DRAW_BITS - shift))) >> shift


@cache
def _cycle() -> tuple[np.ndarray, np.ndarray]:
    """All draws in their order, and the place of every number in it."""
    order, place = np.empty(PERIOD, np.int64), np.zeros(PERIOD + 1, np.int64)
    register = 1
    for k in range(PERIOD):
        order[k], place[register] = register, k
        register = draw(register)
    return order, place
