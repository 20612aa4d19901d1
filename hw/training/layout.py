"""Where the values of a training lie in the machine's memories."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from bayestt.algebra.einsum import Axes
from bayestt.ir.training import Training
from hw.training.arch import CLASSES, Bank, TrainingArch
from hw.training.operation import Operation, Pieces, in_pieces, layer_of, parameter_of

WHAT = {
    "activation_depth": "words of activations",
    "error_depth": "words of errors",
    "latent_depth": "words of latents",
    "init_depth": "words of what sums begin with",
    "ranks": "indices of ranks",
    "contractions": "contractions",
    "code_depth": "instructions",
}
"""What the fields of a TrainingArch limit."""


@dataclass(frozen=True)
class Place:
    """A value in a bank: the address of its first element, and how far each of its axes (all but those of one strip) moves, in elements."""

    bank: Bank
    first: int
    strides: Mapping[str, int]

    def addresses(self, axes: Axes, size: Mapping[str, int]) -> np.ndarray:
        """The addresses of all its elements, under axes of these sizes."""
        at = np.array(self.first)
        for axis in axes:
            at = at[..., None] + np.arange(size[axis]) * self.strides.get(axis, 0)
        return at


@dataclass(frozen=True)
class Layout:
    """The places of values by name; by layer those of biases where they are added to sums; the first index of every rank axis's scales.

    The first word of the activations is a one and zeros, that of the sums' beginnings zeros. `size` has the extents of axes, `pieces` those
    that stand for a training's. `words` is how many there are of what a TrainingArch limits, by its field.
    """

    places: Mapping[str, Place]
    inits: Mapping[str, Place]
    indices: Mapping[str, int]
    size: Mapping[str, int]
    pieces: Pieces
    words: Mapping[str, int]

    def addresses(self, name: str, axes: Axes) -> np.ndarray:
        """The addresses of a value's elements, under axes of the training: an array of their sizes."""
        names = in_pieces(axes, self.pieces)
        found = self.places[name].addresses(names, self.size)
        return found.reshape([prod(self.size[piece] for piece in in_pieces((axis,), self.pieces)) for axis in axes])


def layout(training: Training, steps: Sequence[Operation], size: Mapping[str, int], pieces: Pieces, arch: TrainingArch) -> Layout:
    """Places for everything that the steps of a training read and write; a training for which a memory is too small is refused.

    What lanes read at once lies in one word. Of a layer in strips only one strip of what nothing else reads is there; errors take the room
    of others that nothing reads any more.
    """
    lanes = {each.w: each.lanes for each in steps if each.w}
    forward, backward = steps[: len(training.forward)], steps[len(training.forward) :]
    places: dict[str, Place] = {}

    ends = {Bank.ACTIVATION: arch.lanes, Bank.LATENT: 0}  # the first activations are a one and zeros

    def put(bank: Bank, name: str, axes: Axes) -> None:
        strides, length = _strides(axes, lanes.get(name, ()), name in lanes, size, arch.lanes)
        places[name] = Place(bank, ends[bank], strides)
        ends[bank] += -(-length // arch.lanes) * arch.lanes

    put(Bank.ACTIVATION, "image", _axes(training.image, pieces, size))
    striped = _striped(training, steps)
    for each in forward:
        name = each.contraction.name
        put(Bank.ACTIVATION, name, tuple(axis for axis in each.y_axes if axis not in striped.get(name, ())))
    for name, parameter in training.parameters.items():
        put(Bank.LATENT, name, _axes(parameter.axes, pieces, size))
    errors, errors_end = _errors(training, backward, lanes, striped, size, arch)
    places |= errors
    inits, end = {}, arch.lanes
    for each in (each for each in forward if each.contraction.bias):
        strides, length = _strides(each.y_axes, each.lanes, True, size, arch.lanes)
        inits[each.contraction.bias] = Place(Bank.ACTIVATION, end, strides)
        end += length
    indices, last = {}, 1
    for axis in dict.fromkeys(parameter.rank for parameter in training.parameters.values() if parameter.rank):
        indices[axis] = last
        last += training.size[axis]
    needed = {
        "activation_depth": ends[Bank.ACTIVATION],
        "error_depth": errors_end,
        "latent_depth": ends[Bank.LATENT],
        "init_depth": end,
    }
    words = {field: -(-elements // arch.lanes) for field, elements in needed.items()}
    words |= {"ranks": max(last, 2), "contractions": len(steps)}
    check_fits(words, arch)
    if (classes := prod(training.shape(training.scored.axes))) > CLASSES:
        raise ValueError(f"the training has {classes} scores, the machine takes {CLASSES} at most: give a net with fewer")
    return Layout(places, inits, indices, size, pieces, words)


def check_fits(needed: Mapping[str, int], arch: TrainingArch) -> None:
    """Refuse what needs more of something than an arch has, by its field."""
    for field, count in needed.items():
        if count > (there := getattr(arch, field)):
            raise ValueError(f"the training needs {count} {WHAT[field]}, there is room for {there}: raise TrainingArch.{field}")


def _axes(axes: Axes, pieces: Pieces, size: Mapping[str, int]) -> Axes:
    """Axes in pieces, without those of one index."""
    return tuple(axis for axis in in_pieces(axes, pieces) if size[axis] > 1)


def _strides(axes: Axes, lanes: Axes, in_words: bool, size: Mapping[str, int], width: int) -> tuple[dict[str, int], int]:
    """How far each axis moves where those of the lanes lie in one word, the others row-major; and how long it all is."""
    strides, length = {}, 1
    for axis in reversed(lanes):
        strides[axis] = length
        length *= size[axis]
    length = width if in_words else length
    for axis in reversed(axes):
        if axis not in lanes:
            strides[axis] = length
            length *= size[axis]
    return strides, length


def _striped(training: Training, steps: Sequence[Operation]) -> dict[str, Axes]:
    """By name of a value of which only one strip is kept, the pieces of its strip axis."""
    readers: dict[str, list[Axes]] = {}
    for each in steps:
        for name in (each.x, each.w):
            readers.setdefault(name, []).append(each.strip)
    return {
        each.contraction.name: each.strip
        for each in steps
        if each.strip and not each.contraction.bias and {*readers.get(each.contraction.name, [])} == {each.strip}
    }


def _errors(
    training: Training,
    backward: Sequence[Operation],
    lanes: Mapping[str, Axes],
    striped: Mapping[str, Axes],
    size: Mapping[str, int],
    arch: TrainingArch,
) -> tuple[dict[str, Place], int]:
    """Places of errors, where no other lies from when they are made to when they are last read; their end.

    An error that is made whole and read in strips is there until all of its layer are done.
    """
    gradients = {*training.gradients.values()}
    axes = {"error": next(each.x_axes if each.x == "error" else each.w_axes for each in backward if "error" in (each.x, each.w))}
    axes |= {each.contraction.name: each.y_axes for each in backward if each.contraction.name not in gradients}
    made = {"error": 0} | {each.contraction.name: k for k, each in enumerate(backward)}
    layers = [layer_of(parameter_of(training, each.contraction)) for each in backward]
    until = {layer: k for k, layer in enumerate(layers)}
    last: dict[str, int] = {}
    for k, each in enumerate(backward):
        for name in {each.x, each.w} & {*axes}:
            inside = name in striped or not each.strip
            last[name] = max(last.get(name, 0), k if inside else until[layers[k]])
    places: dict[str, Place] = {}
    taken: dict[str, range] = {}
    for name, names in axes.items():
        kept = tuple(axis for axis in names if axis not in striped.get(name, ()))
        strides, length = _strides(kept, lanes.get(name, ()), name in lanes, size, arch.lanes)
        length = -(-length // arch.lanes) * arch.lanes
        busy = [room for other, room in taken.items() if last[other] >= made[name]]
        first = next(start for start in sorted({0, *(room.stop for room in busy)}) if _free(range(start, start + length), busy))
        taken[name] = range(first, first + length)
        places[name] = Place(Bank.ERROR, first, strides)
    return places, max(room.stop for room in taken.values())


def _free(room: range, busy: Iterable[range]) -> bool:
    return all(other.stop <= room.start or other.start >= room.stop for other in busy)
