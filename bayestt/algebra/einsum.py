"""Contractions over named axes, and the cheapest pairwise order to do them in."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from types import MappingProxyType

import numpy as np

Axes = tuple[str, ...]
Step = tuple[int, int, Axes]
"""Contract operands number `left` and `right` into one with these axes; it gets the next free number."""


def einsum(arrays: Sequence[np.ndarray], axes: Sequence[Axes], out: Axes) -> np.ndarray:
    """Sum the product of arrays over every axis that `out` lacks: `einsum([a, b], [("i", "r"), ("r", "j")], ("i", "j"))`.

    An error names the axis whose sizes disagree.
    """
    size = sizes(axes, [array.shape for array in arrays])
    if foreign := [axis for axis in out if axis not in size]:
        raise ValueError(f"axes {foreign} of the result are in no operand: {list(axes)}")
    return np.einsum(*numbered(arrays, axes, out), optimize=len(arrays) > 1)


def order(axes: Sequence[Axes], out: Axes, size: Mapping[str, int]) -> tuple[Step, ...]:
    """The pairwise steps with the fewest multiplications of all; operands are numbered from 0 as given.

    Exact, by the best split of every subset of operands (3**operands splits: 10 ms for nine). opt_einsum's `optimal` weighs steps that sum
    twice as much as steps that do not, and takes seconds for eight operands.
    """
    whole = (1 << len(axes)) - 1
    inside = [frozenset()]
    for part in range(1, whole + 1):
        lowest = part & -part
        inside.append(inside[part ^ lowest] | frozenset(axes[lowest.bit_length() - 1]))
    kept = [inside[part] & (inside[whole ^ part] | frozenset(out)) if part & (part - 1) else inside[part] for part in range(whole + 1)]
    cost, split = [0] * (whole + 1), [0] * (whole + 1)
    for part in range(1, whole + 1):
        if part & (part - 1):
            joined = ((half, kept[half] | kept[part ^ half]) for half in _halves(part))
            cost[part], split[part] = min((cost[h] + cost[part ^ h] + prod(size[axis] for axis in names), h) for h, names in joined)
    known, steps = [tuple(operand) for operand in axes], []

    def contract(part: int) -> int:
        if not part & (part - 1):
            return part.bit_length() - 1
        pair = sorted((contract(split[part]), contract(part ^ split[part])))
        names = dict.fromkeys(axis for number in pair for axis in known[number] if axis in kept[part])
        steps.append((*pair, tuple(out) if part == whole else tuple(names)))
        known.append(steps[-1][2])
        return len(known) - 1

    contract(whole)
    return tuple(steps)


def chain(
    axes: Sequence[Axes], out: Axes, size: Mapping[str, int], windows: Mapping[str, tuple[str, str]] = MappingProxyType({})
) -> tuple[Step, ...]:
    """The steps with the fewest multiplications in which operand 0 absorbs the others one at a time.

    That is how a machine runs a factorized layer that must not multiply its cores with each other: each step has one activation and one
    core. Exact, by dynamic programming over the sets of cores absorbed. `windows` maps axes of operand 0 to the two, places and taps, as
    which a convolution reads them: the first step that absorbs a core with one of the two does so, the first of all where no core has.
    """

    needing = {axis: {k for k in range(1, len(axes)) if {*pair} & {*axes[k]}} for axis, pair in windows.items()}

    def read(names: Axes, absorbed: frozenset[int]) -> Axes:
        """Axes of operand 0, or of what it has become, through the windows that are read once these operands are absorbed."""
        seen = {axis for axis, cores in needing.items() if cores & absorbed or (absorbed and not cores)}
        return tuple(part for axis in names for part in (windows[axis] if axis in seen else (axis,)))

    def kept(absorbed: frozenset[int]) -> Axes:
        inside = dict.fromkeys([*read(axes[0], absorbed), *(axis for number in sorted(absorbed) for axis in axes[number])])
        outside = {*out, *windows}.union(*(axes[number] for number in range(1, len(axes)) if number not in absorbed))
        return tuple(axis for axis in inside if axis in outside) if absorbed else tuple(axes[0])

    best: dict[frozenset[int], tuple[int, tuple[int, ...]]] = {frozenset(): (0, ())}
    for _ in axes[1:]:
        longer: dict[frozenset[int], tuple[int, tuple[int, ...]]] = {}
        for absorbed, (before, path) in best.items():
            for number in (k for k in range(1, len(axes)) if k not in absorbed):
                together = absorbed | {number}
                total = before + prod(size[axis] for axis in {*read(kept(absorbed), together), *axes[number]})
                if together not in longer or total < longer[together][0]:
                    longer[together] = total, (*path, number)
        best = longer
    path = best[frozenset(range(1, len(axes)))][1]
    left = [0, *range(len(axes), len(axes) + len(path) - 1)]
    made = [kept(frozenset(path[: k + 1])) for k in range(len(path) - 1)] + [tuple(out)]
    return tuple(zip(left, path, made, strict=False))


def macs(axes: Sequence[Axes], steps: Sequence[Step], size: Mapping[str, int]) -> int:
    """Multiply-accumulates of pairwise steps."""
    known = [*axes, *(out for _, _, out in steps)]
    return sum(prod(size[axis] for axis in {*known[left], *known[right]}) for left, right, _ in steps)


def spread(array: np.ndarray, axes: Axes, out: Axes) -> np.ndarray:
    """An array in the order of the axes `out`, with size 1 for each that it lacks: it broadcasts against others spread like it."""
    present = tuple(axis for axis in out if axis in axes)
    return einsum([array], [axes], present)[tuple(slice(None) if axis in present else None for axis in out)]


def sizes(axes: Sequence[Axes], shapes: Sequence[Sequence[int]]) -> dict[str, int]:
    """The size of every axis, from operands' axes and shapes; refuses operands that disagree."""
    size: dict[str, int] = {}
    for names, shape in zip(axes, shapes, strict=True):
        if len(names) != len(shape):
            raise ValueError(f"an array of shape {tuple(shape)} cannot have the {len(names)} axes {' '.join(names)}")
        for axis, extent in zip(names, shape, strict=True):
            if size.setdefault(axis, extent) != extent:
                raise ValueError(f"axis {axis!r} is {size[axis]} long in one operand and {extent} in another: {list(axes)}")
    return size


def numbered(arrays: Sequence, axes: Sequence[Axes], out: Axes) -> list:
    """The arguments of numpy's and torch's einsum in their form with numbers for axes."""
    number = {axis: i for i, axis in enumerate(dict.fromkeys(axis for names in axes for axis in names))}
    interleaved = [part for array, names in zip(arrays, axes, strict=True) for part in (array, [number[axis] for axis in names])]
    return [*interleaved, [number[axis] for axis in out]]


def _halves(part: int) -> Iterator[int]:
    """Every way to part a set of bits in two, as the greater part."""
    half = (part - 1) & part
    while half > part ^ half:
        yield half
        half = (half - 1) & part
