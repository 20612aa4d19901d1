"""Contractions over named axes, and the cheapest pairwise order to do them in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from math import prod
from types import MappingProxyType

import numpy as np

Axes = tuple[str, ...]
Step = tuple[int, int, Axes]
"""Contract operands number `left` and `right` into one with these axes; it gets the next free number."""
StepCost = Callable[[Axes, Axes, Axes], float]
"""What a step costs that contracts operands with the first and the second axes into one with the third."""
MOST_JOINED = 6
"""The most cores of which all products are tried: 3**6 steps."""


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
            joined = ((half, kept[half] | kept[part ^ half]) for half in halves(part))
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
    axes: Sequence[Axes],
    out: Axes,
    size: Mapping[str, int],
    windows: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    cost: StepCost | None = None,
) -> tuple[Step, ...]:
    """The cheapest steps in which operand 0 absorbs the others: without a `cost` one at a time, with the fewest multiplications.

    That is how a machine runs a factorized layer: each step has one activation and one core. With a cost, cores may also be multiplied
    with each other before operand 0 absorbs their product, which costs nothing itself; not where there are more than `MOST_JOINED`. Exact,
    by dynamic programming over the sets of cores absorbed; of equal ways the one that multiplies fewer cores with each other first.
    `windows` maps axes of operand 0 to the two, places and taps, as which a convolution reads them: the first step that absorbs a core
    with one of the two does so, the first of all where no core has.
    """
    needing = {axis: {k for k in range(1, len(axes)) if {*pair} & {*axes[k]}} for axis, pair in windows.items()}
    cores = range(1, len(axes))
    most = len(cores) if cost and len(cores) <= MOST_JOINED else 1

    def read(names: Axes, absorbed: frozenset[int]) -> Axes:
        """Axes of operand 0, or of what it has become, through the windows that are read once these operands are absorbed."""
        seen = {axis for axis, cores in needing.items() if cores & absorbed or (absorbed and not cores)}
        return tuple(part for axis in names for part in (windows[axis] if axis in seen else (axis,)))

    def kept(absorbed: frozenset[int]) -> Axes:
        inside = dict.fromkeys([*read(axes[0], absorbed), *(axis for number in sorted(absorbed) for axis in axes[number])])
        outside = {*out, *windows}.union(*(axes[number] for number in cores if number not in absorbed))
        return tuple(axis for axis in inside if axis in outside) if absorbed else tuple(axes[0])

    def joined(part: Sequence[int], absorbed: frozenset[int]) -> Axes:
        """The product of cores that the operand absorbs when it has absorbed those: without the axes that nothing else has."""
        together = absorbed | {*part}
        outside = {*out, *read(kept(absorbed), together)}.union(*(axes[number] for number in cores if number not in together))
        names = dict.fromkeys(axis for number in part for axis in axes[number])
        return tuple(axis for axis in names if axis in outside or len(part) == 1)

    def made(absorbed: frozenset[int]) -> Axes:
        return tuple(out) if len(absorbed) == len(cores) else kept(absorbed)

    def spent(part: Sequence[int], absorbed: frozenset[int]) -> float:
        together, core = absorbed | {*part}, joined(part, absorbed)
        if cost is None:
            return prod(size[axis] for axis in {*read(kept(absorbed), together), *core})
        return cost(kept(absorbed), core, made(together))

    best: dict[frozenset[int], tuple[float, tuple[tuple[int, ...], ...]]] = {frozenset(): (0, ())}
    for count in cores:
        for absorbed in [known for known in best if len(known) == count - 1]:
            before, path = best[absorbed]
            left = [number for number in cores if number not in absorbed]
            for part in (part for extent in range(1, most + 1) for part in combinations(left, extent)):
                total, together = before + spent(part, absorbed), absorbed.union(part)
                if together not in best or (total, len(best[together][1])) < (best[together][0], len(path) + 1):
                    best[together] = total, (*path, part)
    steps: list[Step] = []
    left, absorbed = 0, frozenset()
    for part in best[frozenset(cores)][1]:
        core = part[0]
        for k, number in enumerate(part[1:], 2):
            steps.append((core, number, joined(part[:k], absorbed)))
            core = len(axes) + len(steps) - 1
        absorbed = absorbed.union(part)
        steps.append((left, core, made(absorbed)))
        left = len(axes) + len(steps) - 1
    return tuple(steps)


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


def halves(part: int) -> Iterator[int]:
    """Every way to part a set of bits in two, as the greater part."""
    half = (part - 1) & part
    while half > part ^ half:
        yield half
        half = (half - 1) & part
