"""The contractions of a training as the machine runs them: which operand's elements its lanes multiply, and along which axes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from math import prod

from bayestt.algebra.einsum import Axes
from bayestt.ir.training import Contraction, Training

Pieces = Mapping[str, Axes]
"""The smaller axes, the slowest first, that stand for an axis; one that is not here stands for itself."""


@dataclass(frozen=True)
class Operation:
    """A contraction: `x` gives one element a step, `w` one for every lane; where there is no `w`, x alone is read.

    `x_axes`, `w_axes` and `y_axes` are those of the operands and the result, row-major, `lanes` the (at most two) axes that the lanes run
    over, the slowest first, all in pieces. Of the axis whose pieces are `strip` it does one index at a time.
    """

    contraction: Contraction
    x: str
    x_axes: Axes
    w: str
    w_axes: Axes
    y_axes: Axes
    lanes: Axes
    strip: Axes = ()

    @property
    def outer(self) -> Axes:
        """The axes of the result that run one index after the other."""
        return tuple(axis for axis in self.y_axes if axis not in (*self.lanes, *self.strip))

    @property
    def summed(self) -> Axes:
        """The axes that are summed over."""
        return tuple(axis for axis in dict.fromkeys((*self.x_axes, *self.w_axes)) if axis not in self.y_axes)


def operations(training: Training, lanes: int) -> tuple[tuple[Operation, ...], dict[str, int], Pieces]:
    """All contractions of a training for a machine of so many lanes, the sizes of their axes, and what pieces the training's axes have.

    Values that are read under other axes than they are made under get pieces that both share; lanes take whole pieces, or powers of two of
    them, those with which the contraction takes the fewest cycles, of those the ones that split the fewest axes, then the most lanes.
    """
    shared, size = _shared(training)
    found = [_operation(training, each, shared, size) for each in training.contractions]
    chosen = [_lanes(each, size, lanes) if each.w else () for each in found]
    splits: dict[str, set[int]] = {}
    for axis, part in (pair for pairs in chosen for pair in pairs):
        splits.setdefault(axis, set()).add(part)
    finer: dict[str, Axes] = {}
    for axis, parts in splits.items():
        ends = [1, *sorted(parts - {1, size[axis]}), size[axis]]
        if len(ends) > 2:
            finer[axis] = tuple(f"{axis}/{k}" for k in range(len(ends) - 1))
            for k, name in enumerate(reversed(finer[axis])):
                size[name] = ends[k + 1] // ends[k]
    made = [_finer(each, pairs, finer, size) for each, pairs in zip(found, chosen, strict=True)]
    axes = {axis for each in training.contractions for _, names in each.args for axis in names} | {*training.image}
    return tuple(made), size, {axis: in_pieces(in_pieces((axis,), shared), finer) for axis in axes}


def in_pieces(axes: Axes, pieces: Pieces) -> Axes:
    """Axes as their pieces."""
    return tuple(piece for axis in axes for piece in pieces.get(axis, (axis,)))


def layer_of(name: str) -> str:
    """The layer that a parameter or an axis is of."""
    return name.rpartition(".")[0]


def parameter_of(training: Training, each: Contraction) -> str:
    """The parameter that a contraction reads, or whose gradient it makes."""
    gradients = {gradient: name for name, gradient in training.gradients.items()}
    return gradients.get(each.name) or next(name for name, _ in each.args if name in training.parameters)


def _operation(training: Training, each: Contraction, pieces: Pieces, size: Mapping[str, int]) -> Operation:
    """The contraction with its operands in their roles, before its lanes are chosen.

    Forward the lanes take weights, backward the elements of the error; of a gradient those of the activation, where the error's elements
    lie side by side for another contraction, else of the error too.
    """
    layer = layer_of(parameter_of(training, each))
    striped = next((axis for axis in training.strips if layer_of(axis) == layer and any(axis in axes for _, axes in each.args)), "")
    strip = tuple(axis for axis in in_pieces((striped,), pieces) if size.get(axis, 1) > 1)
    args = [(name, tuple(axis for axis in in_pieces(axes, pieces) if size[axis] > 1)) for name, axes in each.args]
    y_axes = tuple(axis for axis in in_pieces(each.axes, pieces) if size[axis] > 1)
    if len(args) == 1:
        return Operation(each, *args[0], "", (), y_axes, (), strip)
    x, w = args
    read_back = {other.args[0][0] for other in training.backward if other.name not in training.gradients.values()}
    if each in training.backward and not (each.name in training.gradients.values() and args[0][0] in read_back):
        x, w = w, x
    return Operation(each, *x, *w, y_axes, (), strip)


def _lanes(each: Operation, size: Mapping[str, int], lanes: int) -> tuple[tuple[str, int], ...]:
    """The axes that lanes run over, and over how many indices of each: those with the fewest cycles."""
    steps = prod(size[axis] for axis in each.summed)
    turns = prod(size[axis] for axis in each.y_axes)
    free = [axis for axis in each.y_axes if axis in each.w_axes and axis not in each.x_axes and axis not in each.strip]

    def preference(pairs: tuple[tuple[str, int], ...]) -> tuple[float, ...]:
        taken = prod(part for _, part in pairs)
        return turns / taken * max(steps, taken), sum(part < size[axis] for axis, part in pairs), -taken

    return min([(), *_choices(free, size, lanes)], key=preference)


def _choices(free: list[str], size: Mapping[str, int], lanes: int) -> Iterator[tuple[tuple[str, int], ...]]:
    """One axis, or two of which the second runs faster."""
    for axis in free:
        yield ((axis, size[axis] if size[axis] <= lanes else _power(size[axis], lanes)),)
    for outer, inner in permutations(free, 2):
        if size[inner] <= lanes and (part := _power(size[outer], lanes // size[inner])) > 1:
            yield ((outer, part), (inner, size[inner]))


def _power(extent: int, most: int) -> int:
    """The largest power of two that divides an extent and is not more than `most`."""
    return min(extent & -extent, 1 << (most.bit_length() - 1))


def _finer(each: Operation, pairs: tuple[tuple[str, int], ...], finer: Pieces, size: Mapping[str, int]) -> Operation:
    """The operation in finer pieces: lanes run over the last pieces of their axes, as many as they take."""
    lanes: list[str] = []
    for axis, part in pairs:
        names = in_pieces((axis,), finer)
        lanes += next(names[k:] for k in range(len(names)) if prod(size[name] for name in names[k:]) == part)
    x_axes, w_axes, y_axes, strip = (in_pieces(axes, finer) for axes in (each.x_axes, each.w_axes, each.y_axes, each.strip))
    return Operation(each.contraction, each.x, x_axes, each.w, w_axes, y_axes, tuple(lanes), strip)


def _shared(training: Training) -> tuple[dict[str, Axes], dict[str, int]]:
    """Pieces that axes share under which the same value is made and read, and the sizes of all axes."""
    size = dict(training.size)
    own = {"image": training.image, "error": training.scored.axes} | {each.name: each.axes for each in training.contractions}
    pieces: dict[str, Axes] = {}
    seen: set[frozenset[str]] = set()
    for each in training.contractions:
        for name, axes in each.args:
            if name in own and axes != own[name] and frozenset((*axes, *own[name])) not in seen:
                seen.add(frozenset((*axes, *own[name])))
                pieces |= _common(name, own[name], axes, size)
    return pieces, size


def _common(name: str, made: Axes, read: Axes, size: dict[str, int]) -> dict[str, Axes]:
    """The pieces of both; those of an axis that stays whole on one side bear its name."""
    pieces: dict[str, list[str]] = {axis: [] for axis in (*made, *read)}
    left = [[axis, size[axis]] for axis in made]
    right = [[axis, size[axis]] for axis in read]
    while left or right:
        if left and left[-1][1] == 1:
            left.pop()
            continue
        if right and right[-1][1] == 1:
            right.pop()
            continue
        (a, above), (b, below) = left[-1], right[-1]
        part = min(above, below)
        if above % part or below % part:
            raise ValueError(
                f"value {name!r} is made with axes {[size[axis] for axis in made]} and read with {[size[axis] for axis in read]}, "
                "which have no common parts: give modes that are products of the same numbers"
            )
        whole = next((axis for axis in (a, b) if part == size[axis]), f"{a}*{b}")
        size[whole] = part
        pieces[a].insert(0, whole)
        pieces[b].insert(0, whole)
        left[-1][1] //= part
        right[-1][1] //= part
    return {axis: tuple(names) for axis, names in pieces.items() if names and names != [axis]}
