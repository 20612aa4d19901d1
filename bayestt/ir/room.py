"""How much a machine's memories hold at once."""

from dataclasses import dataclass
from sys import maxsize


@dataclass(frozen=True)
class Room:
    """Elements that fit: activations in the data memory, weights and initial sums of one nest in theirs."""

    data: int = maxsize
    weights: int = maxsize
    inits: int = maxsize
