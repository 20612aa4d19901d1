"""A weight as a named-axis einsum of cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType

import numpy as np

from bayestt.algebra.einsum import Axes, einsum


@dataclass(frozen=True)
class Factorization:
    """A weight matrix (rows x cols) as the sum of products of small cores; its meaning is `dense`.

    `cores[k]` names the axes of core k. Axes in `rows` (i1, i2, ...) multiply to the matrix's rows, those in `cols` (j1, j2, ..., of a
    convolution's kernel then kh, kw) to its columns, the slowest first; all others are ranks, summed over. Nothing else in the project
    knows one format from another.
    """

    cores: tuple[Axes, ...]
    rows: Axes
    cols: Axes
    size: Mapping[str, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", MappingProxyType(dict(self.size)))
        named = {axis for core in self.cores for axis in core}
        if named != set(self.size):
            raise ValueError(f"axes {sorted(named ^ set(self.size))} have a size and no core, or a core and no size")
        if missing := [axis for axis in self.rows + self.cols if axis not in named]:
            raise ValueError(f"axes {missing} of the weight are in no core")
        if bad := {axis: extent for axis, extent in self.size.items() if extent < 1}:
            raise ValueError(f"axes {bad} have no elements: every size is at least 1")

    def __hash__(self) -> int:
        return hash((self.cores, self.rows, self.cols, frozenset(self.size.items())))

    def __reduce__(self) -> tuple:
        return Factorization, (self.cores, self.rows, self.cols, dict(self.size))

    @property
    def ranks(self) -> Axes:
        """The rank axes, in order of appearance."""
        return tuple(dict.fromkeys(axis for core in self.cores for axis in core if axis not in self.rows + self.cols))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of every core."""
        return tuple(tuple(self.size[axis] for axis in core) for core in self.cores)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the dense weight."""
        return prod(self.size[axis] for axis in self.rows), prod(self.size[axis] for axis in self.cols)

    @property
    def parameters(self) -> int:
        """Entries of all cores together."""
        return sum(prod(shape) for shape in self.shapes)


def dense(form: Factorization, cores: Sequence[np.ndarray]) -> np.ndarray:
    """The weight matrix (rows, cols) that cores stand for: the definition of a factorization."""
    if (shapes := tuple(np.shape(core) for core in cores)) != form.shapes:
        raise ValueError(f"cores of shapes {shapes} are not this weight's: it has {form.shapes} for axes {form.cores}")
    return einsum(cores, form.cores, form.rows + form.cols).reshape(form.shape)


def shrink(
    form: Factorization, cores: Sequence[np.ndarray], keep: Mapping[str, Sequence[int]]
) -> tuple[Factorization, tuple[np.ndarray, ...]]:
    """Keep only the named indices of rank axes: a smaller factorization and its smaller cores (copies)."""
    if foreign := [axis for axis in keep if axis not in form.ranks]:
        raise ValueError(f"{foreign} are no rank axes: this weight has {list(form.ranks)}")
    for axis, kept in keep.items():
        indices = np.asarray(kept)
        if indices.dtype == bool or not np.isin(indices, np.arange(form.size[axis])).all() or len(set(indices.tolist())) < len(indices):
            raise ValueError(f"{list(kept)} for {axis!r}: give indices from 0 to {form.size[axis] - 1}, each once, of {form.size[axis]}")
    smaller = replace(form, size={**form.size, **{axis: len(kept) for axis, kept in keep.items()}})
    sliced = []
    for core, axes in zip(cores, form.cores, strict=True):
        for axis in keep:
            if axis in axes:
                core = core.take(np.asarray(keep[axis], np.int64), axis=axes.index(axis))
        sliced.append(core.copy())
    return smaller, tuple(sliced)


def contributions(form: Factorization, cores: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """How much each index of each rank axis carries: the Frobenius norm of the part of the dense weight that is summed with that index.

    Unlike a prior's scale it does not change when magnitude moves between cores. Computed from products of the cores with themselves, never
    from the dense weight; float64.
    """
    exact = [np.asarray(core, np.float64) for core in cores]
    carried: dict[str, np.ndarray] = {}
    for axis in form.ranks:
        twins = [tuple(f"{name}'" if name in form.ranks and name != axis else name for name in core) for core in form.cores]
        squares = einsum([*exact, *exact], [*form.cores, *twins], (axis,))
        carried[axis] = np.sqrt(squares.clip(0))
    return carried
