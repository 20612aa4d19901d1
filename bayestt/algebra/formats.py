"""Tensor formats: functions from modes and a rank to a Factorization, their initial cores, and the decomposition of a given weight.

With `taps`, the height and width of a convolution's kernel, the weight is that kernel as torch flattens it, (out channels, in channels * kh
* kw): row modes are of out channels, column modes of in channels, and the axes kh and kw are its last columns.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import prod

import numpy as np
import tensorly.decomposition

from bayestt.algebra.factorization import Axes, Factorization, dense

Modes = int | Sequence[int]
Rank = int | float | Sequence[int]
Taps = Sequence[int]
"""Height and width of a kernel; none where the weight is a matrix."""


def tt_matrix(rows: Modes, cols: Modes, rank: Rank, taps: Taps = ()) -> Factorization:
    """TT-matrix: core k carries row mode k and column mode k, neighbours share a rank (Novikov et al. 2015).

    `rows` and `cols` are as many modes each, or a size to be split (see `modes`). Cores: (i1, j1, r1), (r1, i2, j2, r2), ...
    Of a kernel, (kh, kw, r1), (r1, i1, j1, r2), ... (Garipov et al. 2016); there a size is not split.
    """
    rows, cols = _paired(rows, cols, taps)
    if len(rows) != len(cols):
        raise ValueError(f"a TT-matrix pairs row and column modes: {rows} are {len(rows)} and {cols} are {len(cols)}")
    pairs = [(("i", row), ("j", col)) for row, col in zip(rows, cols, strict=True)]
    return _ranked(*_train([_tapped(taps), *pairs]), rank, _train_limits)


def tensor_train(rows: Modes, cols: Modes, rank: Rank, taps: Taps = ()) -> Factorization:
    """Tensor train over all row modes, then all column modes (Oseledets 2011). Cores: (i1, r1), (r1, i2, r2), ..., (r, j).

    Of a kernel, over taps, then in, then out channels: (kh, kw, r1), (r1, j1, r2), ..., (r, i) (Hawkins & Zhang 2021).
    """
    rows, cols = _paired(rows, cols, taps)
    out, into = [(("i", row),) for row in rows], [(("j", col),) for col in cols]
    return _ranked(*_train([_tapped(taps), *into, *out] if taps else [*out, *into]), rank, _train_limits)


def tucker(rows: Modes, cols: Modes, rank: Rank, taps: Taps = ()) -> Factorization:
    """Tucker: a factor (mode, rank) for every mode, and a core over all ranks, which comes first (Tucker 1966).

    Of a kernel, Tucker-2 (Kim et al. 2016): a factor each for all in and all out channels, and a core over both ranks and the taps between
    them, (j1, r1), (r1, kh, kw, r2), (r2, i1), which makes it a chain.
    """
    rows, cols = _paired(rows, cols, taps)
    out, into = [("i", row) for row in rows], [("j", col) for col in cols]
    if taps:
        return _ranked(*_train([into, _tapped(taps), out]), rank, _train_limits)
    names, size = _modes_by_name([*out, *into])
    ranks = tuple(f"r{k + 1}" for k in range(len(names)))
    cores = (ranks, *((name, r) for name, r in zip(names, ranks, strict=True)))
    return _ranked(cores, names, size, rank, _tucker_limits)


def cp(rows: Modes, cols: Modes, rank: Rank, taps: Taps = ()) -> Factorization:
    """Canonical polyadic: a factor (mode, r) for every mode, all sharing the one rank (Hitchcock 1927).

    Of a kernel, the first two are (kh, r1) and (kw, r1) (Lebedev et al. 2015).
    """
    rows, cols = _paired(rows, cols, taps)
    names, size = _modes_by_name([*_tapped(taps), *(("i", row) for row in rows), *(("j", col) for col in cols)])
    return _ranked(tuple((name, "r1") for name in names), names, size, rank, _cp_limits)


FORMATS: dict[str, Callable[..., Factorization]] = {form.__name__: form for form in (tt_matrix, tensor_train, tucker, cp)}


@dataclass(frozen=True)
class Form:
    """The form a weight shall take, before its size is known: a format's name, a rank, and modes where they shall not be found."""

    format: str
    rank: Rank
    rows: Sequence[int] | None = None
    cols: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            near = get_close_matches(self.format, FORMATS, n=2, cutoff=0)
            raise ValueError(f"unknown format {self.format!r}: did you mean {' or '.join(near)}?")

    def factorization(self, rows: int, cols: int, taps: Taps = ()) -> Factorization:
        """The factorization of a weight of `rows` x `cols`, of a kernel its channels; modes that do not multiply to them are refused."""
        row, column = ("out channel", "in channel") if taps else ("row", "column")
        for side, given, size in ((row, self.rows, rows), (column, self.cols, cols)):
            if given is not None and prod(given) != size:
                product = f"{' * '.join(map(str, given))} = {prod(given)}"
                raise ValueError(f"{side} modes {product} and the weight has {size} {side}s: give modes that multiply to {size}")
        return FORMATS[self.format](self.rows or rows, self.cols or cols, self.rank, taps)


def modes(size: int, count: int) -> tuple[int, ...]:
    """Split a size into `count` modes as equal as can be, largest first; a size with too few prime factors is refused."""
    best = min(_splits(size, count, size), key=lambda split: (max(split) / min(split), split), default=None)
    if best is None:
        around = range(max(2**count, size // 2), 2 * max(2**count, size) + 1)
        near = [n for n in sorted(around, key=lambda n: abs(n - size)) if _splits(n, count, 32)]
        raise ValueError(
            f"size {size} does not split into {count} modes of at least 2: give the modes, fewer of them, or pad the layer to "
            f"{' or '.join(map(str, sorted(near[:2])))}"
        )
    return best


def initial(form: Factorization, std: float, seed: int | np.random.Generator) -> tuple[np.ndarray, ...]:
    """Gaussian cores whose dense weight has root mean square `std`.

    An entry sums prod(ranks) products of one entry of every core, so cores of variance (std**2 / prod(ranks)) ** (1 / cores) give it in
    expectation. Products are heavy-tailed, a draw strays from its expectation: all cores are scaled by one number so that this draw has it.
    """
    generator = np.random.default_rng(seed)
    cores = [generator.standard_normal(shape) for shape in form.shapes]
    drawn = np.sqrt(np.mean(np.square(dense(form, cores))))
    return tuple(core * (std / drawn) ** (1 / len(cores)) for core in cores)


def decompose(weight: np.ndarray, form: Factorization, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Cores of a given factorization that approximate a given weight matrix (rows, cols), by TensorLy.

    Truncated SVDs for chains (quasi-optimal), HOOI for Tucker, alternating least squares from a seeded start for CP.
    """
    if weight.shape != form.shape:
        raise ValueError(f"a weight of shape {weight.shape} cannot take the form of {form.shape}")
    if not weight.any():
        return tuple(np.zeros(shape) for shape in form.shapes)
    grid = weight.astype(np.float64).reshape([form.size[axis] for axis in form.rows + form.cols])
    carried = [tuple(axis for axis in core if axis not in form.ranks) for core in form.cores]
    order = [(form.rows + form.cols).index(axis) for axes in carried for axis in axes]
    merged = grid.transpose(order).reshape([prod(form.size[axis] for axis in axes) for axes in carried if axes])
    if not all(carried):
        core, factors = tensorly.decomposition.tucker(merged, rank=[form.size[axis] for axis in form.ranks], random_state=seed)
        cores = [core, *factors]
    elif len(form.cores) == 1:
        cores = [merged]
    elif all(core[-1] == "r1" for core in form.cores):
        weights, factors = tensorly.decomposition.parafac(merged, form.size["r1"], random_state=seed, init="random", n_iter_max=200)
        cores = [factors[0] * weights, *factors[1:]]
    else:
        cores = tensorly.decomposition.tensor_train(merged, rank=[1, *(form.size[axis] for axis in form.ranks), 1]).factors
    return tuple(np.asarray(core).reshape(shape) for core, shape in zip(cores, form.shapes, strict=True))


def _paired(rows: Modes, cols: Modes, taps: Taps) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Row and column modes; a bare size is split into as many as the other side has, or both can have (2 to 4), of a kernel not at all."""
    if taps:
        rows, cols = ((given,) if isinstance(given, int) else given for given in (rows, cols))
    count = next((len(given) for given in (rows, cols) if not isinstance(given, int)), None)
    if count is None:
        count = next((n for n in (4, 3) if _splits(rows, n, rows) and _splits(cols, n, cols)), 2)
    split = tuple(modes(given, count) if isinstance(given, int) else tuple(given) for given in (rows, cols))
    if any(mode < 1 for given in split for mode in given):
        raise ValueError(f"modes {split[0]} x {split[1]}: every mode is at least 1")
    return split


def _tapped(taps: Taps) -> tuple[tuple[str, int], ...]:
    """The axes of a kernel's taps and their sizes."""
    if taps and (len(taps) != 2 or min(taps) < 1):
        raise ValueError(f"taps {tuple(taps)}: give the height and the width of a kernel, each at least 1")
    return tuple(zip(("kh", "kw"), taps, strict=False))


def _splits(size: int, count: int, largest: int) -> list[tuple[int, ...]]:
    """Every non-increasing factorisation of `size` into `count` factors from 2 to `largest`."""
    if count == 1:
        return [(size,)] if 2 <= size <= largest else []
    factors = (f for f in range(2, min(size, largest) + 1) if size % f == 0)
    return [(f, *rest) for f in factors for rest in _splits(size // f, count - 1, f)]


def _modes_by_name(modes: Sequence[tuple[str, int]]) -> tuple[Axes, dict[str, int]]:
    """Names i1, i2, ..., j1, j2, ... for lettered modes (taps have names), and their sizes."""
    letters = [letter for letter, _ in modes]
    names = tuple(f"{letter}{letters[: at + 1].count(letter)}" if letter in "ij" else letter for at, letter in enumerate(letters))
    return names, {name: mode for name, (_, mode) in zip(names, modes, strict=True)}


def _train(groups: Sequence[Sequence[tuple[str, int]]]) -> tuple[tuple[Axes, ...], Axes, dict[str, int]]:
    """A chain of cores, one for each group of modes that is not empty, neighbours sharing a rank; the modes' names, and their sizes."""
    groups = [group for group in groups if group]
    names, size = _modes_by_name([mode for group in groups for mode in group])
    left = iter(names)
    cores = tuple(
        (*((f"r{k}",) if k else ()), *(next(left) for _ in group), *((f"r{k + 1}",) if k + 1 < len(groups) else ()))
        for k, group in enumerate(groups)
    )
    return cores, names, size


def _ranked(
    cores: tuple[Axes, ...], names: Axes, size: dict[str, int], rank: Rank, limits: Callable[[Factorization], dict[str, int]]
) -> Factorization:
    """The factorization at the wanted rank, clipped to what its modes allow; clipping is said by a warning."""
    rows = tuple(n for n in names if n[0] == "i")
    cols = tuple(sorted((n for n in names if n not in rows), key=lambda n: n[0]))  # j1, j2, ..., kh, kw
    ranks = tuple(dict.fromkeys(axis for core in cores for axis in core if axis not in names))

    def at(wanted: Sequence[int]) -> Factorization:
        return Factorization(cores, rows, cols, {**size, **dict(zip(ranks, wanted, strict=True))})

    def clipped(form: Factorization) -> Factorization:
        while (limit := limits(form)) and any(form.size[axis] > limit[axis] for axis in ranks):
            form = replace(form, size={**form.size, **{axis: min(form.size[axis], limit[axis]) for axis in ranks}})
        return form

    if isinstance(rank, float):
        return _of_fraction(rank, lambda r: clipped(at([r] * len(ranks))))
    wanted = [rank] * len(ranks) if isinstance(rank, int) else list(rank)
    if len(wanted) != len(ranks):
        raise ValueError(f"rank {tuple(wanted)} names {len(wanted)} ranks and this format has {len(ranks)}: {' '.join(ranks)}")
    if any(r < 1 for r in wanted):
        raise ValueError(f"rank {tuple(wanted) if not isinstance(rank, int) else rank}: every rank is at least 1")
    form = clipped(at(wanted))
    if cut := [f"{axis} {was} to {form.size[axis]}" for axis, was in zip(ranks, wanted, strict=True) if was > form.size[axis]]:
        grid = f"{[size[n] for n in rows]} x {[size[n] for n in cols]}"
        warnings.warn(f"ranks clipped to what modes {grid} allow: {', '.join(cut)}", stacklevel=3)
    return form


def _of_fraction(fraction: float, at_rank: Callable[[int], Factorization]) -> Factorization:
    """The largest uniform rank whose cores hold at most that fraction of the dense weight's entries."""
    form = at_rank(1)
    budget = fraction * prod(form.shape)
    if not form.parameters <= budget:
        raise ValueError(f"rank {fraction} of the dense parameters allows {budget:.0f}, and rank 1 already takes {form.parameters}")
    rank = 1
    while (larger := at_rank(rank + 1)) != form and larger.parameters <= budget:
        form, rank = larger, rank + 1
    return form


def _train_limits(form: Factorization) -> dict[str, int]:
    """A bond's rank is at most what one neighbouring core's other axes multiply to."""
    bonds = {axis: [core for core in form.cores if axis in core] for axis in form.ranks}
    return {axis: min(prod(form.size[a] for a in core if a != axis) for core in cores) for axis, cores in bonds.items()}


def _tucker_limits(form: Factorization) -> dict[str, int]:
    """A rank is at most its mode, and at most what the other ranks multiply to."""
    ranks = form.ranks
    return {
        r: min(form.size[factor[0]], max(1, prod(form.size[other] for other in ranks if other != r)))
        for r, factor in zip(ranks, form.cores[1:], strict=True)
    }


def _cp_limits(form: Factorization) -> dict[str, int]:
    """Every tensor is a sum of as many rank-one terms as all modes but the largest multiply to."""
    extents = [form.size[axis] for axis in form.rows + form.cols]
    return {"r1": prod(extents) // max(extents)}
