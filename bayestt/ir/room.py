"""How much a machine's memories hold at once."""

from dataclasses import dataclass
from sys import maxsize


@dataclass(frozen=True)
class Room:
    """Elements that fit: activations in the data memory, weights and initial sums of one nest in theirs.

    `image` is where the machine has a memory for images alone, as addresses of the data memory behind all others; None where they lie
    among the activations.
    """

    data: int = maxsize
    weights: int = maxsize
    inits: int = maxsize
    image: range | None = None
