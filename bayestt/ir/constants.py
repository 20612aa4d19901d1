"""All constants of a plan as a machine reads them, one after another."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from bayestt.algebra.einsum import Axes
from bayestt.algebra.fixed import wrap
from bayestt.ir.cover import Box, Place, part_at
from bayestt.ir.cut import constant_axes
from bayestt.ir.nest import Nest
from bayestt.ir.pack import Bound, pack
from bayestt.ir.plan import Plan
from bayestt.ir.step import Step

COPY = "copy"
"""The part that all loads and stores share: a weight of 1, an initial sum of 0."""


@dataclass(frozen=True)
class Constants:
    """Packed weights and initial sums, and where those of each part lie."""

    weights: np.ndarray
    inits: np.ndarray
    places: Mapping[Hashable, Mapping[str, Place]]


def constants(plan: Plan, tile: Nest, size: Mapping[str, int]) -> Constants:
    """The constants of every part in the order in which they are needed, each part's without gaps."""
    words: dict[str, list[np.ndarray]] = {"w": [np.zeros(0, np.int64)], "init": [np.zeros(0, np.int64)]}
    lengths = {"w": 0, "init": 0}
    places: dict[Hashable, dict[str, Place]] = {}
    once = [(loop, ()) for loop in (*tile.lane, *tile.reduce)]

    def add(part: Hashable, arrays: Mapping[str, tuple[np.ndarray, Axes]], bound: Bound, box: Box) -> None:
        extents = {**size, **{axis: len(indices) for axis, indices in box.items()}}
        places[part] = {}
        for stream, (array, axes) in arrays.items():
            inside = array[tuple(slice(box[axis].start, box[axis].stop) for axis in axes)]
            packed, strides = pack(inside, axes, bound, stream, extents)
            places[part][stream] = part_at(lengths[stream], strides, box)
            words[stream].append(packed)
            lengths[stream] += len(packed)

    for number, (step, found) in enumerate(zip(plan.steps, plan.cuts, strict=True)):
        group = step.group
        if found.buffers and COPY not in places:
            add(COPY, {"w": (np.array(1), ()), "init": (np.array(0), ())}, once, {})
        if group.blank is not None:
            add((number, "blank"), {"w": (np.array(0), ()), "init": (np.array(group.blank), ())}, once, {})
        arrays = {"w": (group.weights, group.weight_axes), "init": (wrap(group.init, tile.acc_bits), group.init_axes)}
        for box in found.boxes:
            if (part := part_of(number, step, box)) not in places:
                add(part, arrays, [*step.lane, *step.reduce], box)
    return Constants(np.concatenate(words["w"]), np.concatenate(words["init"]), places)


def part_of(number: int, step: Step, box: Box) -> Hashable:
    """Which part of a step's constants a box needs."""
    return (number, *(box[axis] for axis in constant_axes(step)))
