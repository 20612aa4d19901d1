"""The one instruction of every machine: a nest of loops over affine streams."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from bayestt.algebra.fixed import requantize, wrap


@dataclass(frozen=True)
class Loop:
    """One loop: the axis it runs over, how often, and how far one step moves each stream, in elements.

    In a tile (`Nest` as a description of what a machine does at once) a stride of None in `y` means "any stride".
    """

    axis: str
    extent: int
    x: int = 0
    w: int = 0
    init: int = 0
    y: int | None = 0

    def __post_init__(self) -> None:
        if self.extent < 1:
            raise ValueError(f"loop over {self.axis!r} runs {self.extent} times: an extent is at least 1")


@dataclass(frozen=True)
class Nest:
    """One operation as loops over four streams; its meaning is `replay`.

    for outer, for lane:  acc = init[...];  for reduce: acc += x[...] * w[...];  y[...] = requantize(acc, shift, bits, relu)

    With `maximum` a reduction takes the larger of acc and each product instead of their sum. `x`, `w`, `init`, `y` are the addresses of
    each stream's first element; each tuple of loops runs outermost first. `lane` loops are those that the machine runs at once.
    Accumulators wrap at `acc_bits`, results saturate to `bits`. `x` streams from the memory `source` (data, or external), `w` from the
    weights, `init` from the initial accumulators; `y` goes to the memory `target` (data, external, or scores). External memory is large
    and outside of the machine: a nest that reads or writes it copies, no more.
    A nest never writes what it reads, nor one address twice, so the order of its loops does not matter; what reduce loops say of `init`
    and `y` means nothing.
    """

    outer: tuple[Loop, ...]
    reduce: tuple[Loop, ...]
    lane: tuple[Loop, ...]
    x: int
    w: int
    init: int
    y: int
    shift: int = 0
    relu: bool = False
    bits: int = 8
    acc_bits: int = 32
    maximum: bool = False
    source: str = "data"
    target: str = "data"
    name: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole nest."""
        return int(np.prod([loop.extent for loop in self.outer + self.reduce + self.lane], dtype=np.int64))

    @property
    def turns(self) -> int:
        """How often a machine multiplies that runs all lane loops at once."""
        return int(np.prod([loop.extent for loop in self.outer + self.reduce], dtype=np.int64))

    @property
    def moves(self) -> bool:
        """Whether it loads from external memory or stores there, and so only copies."""
        return "external" in (self.source, self.target)


@dataclass
class Memory:
    """The memories that a schedule's streams address: flat int64 arrays."""

    data: np.ndarray
    weights: np.ndarray
    inits: np.ndarray
    scores: np.ndarray
    external: np.ndarray


def replay(nest: Nest, memory: Memory) -> None:
    """Run a nest on a memory, writing its results there: the definition of a nest, plain and slow."""
    x, y = getattr(memory, nest.source), getattr(memory, nest.target)
    for x_at, w_at, init_at, y_at in _addresses(nest.outer + nest.lane, nest.x, nest.w, nest.init, nest.y):
        acc = int(memory.inits[init_at])
        for x_term, w_term, _, _ in _addresses(nest.reduce, x_at, w_at, 0, 0):
            product = int(x[x_term]) * int(memory.weights[w_term])
            acc = max(acc, product) if nest.maximum else acc + product
        y[y_at] = requantize(wrap(acc, nest.acc_bits), nest.shift, nest.bits, nest.relu)


def _addresses(loops: tuple[Loop, ...], *first: int):
    """The four addresses at every iteration of the loops, in order."""
    for index in product(*(range(loop.extent) for loop in loops)):
        yield tuple(
            start + sum(i * getattr(loop, stream) for i, loop in zip(index, loops, strict=True))
            for start, stream in zip(first, ("x", "w", "init", "y"), strict=True)
        )
