"""The training step of `bayestt.ir.descend` on whole batches in torch: the same integers, many times faster."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bayestt.algebra.einsum import Axes, numbered
from bayestt.algebra.fixed import MAX_BITS
from bayestt.ir.descend import Rule, State, accumulator_frac, check, error, factors_of, fractions, moved
from bayestt.ir.interpret import EXACT_FLOAT32
from bayestt.ir.training import BIAS_BITS, GRADIENT_BITS, Contraction, Training

BATCH = ("n",)
"""The axis of images."""
Values = dict[str, Tensor]
"""By name factors, and of a batch of images, along its first axis, all else: integers as floats."""


def descend_batch(training: Training, state: State, images: np.ndarray, labels: np.ndarray, rule: Rule) -> State:
    """The state after one step on images (n, pixels), integers of 8 bits, and their labels (n,): exactly the definition's.

    Floats hold all integers: float32 where a contraction's bound is at most 2**23, so that there is room for a half, else float64.
    """
    check(training, images, labels)
    values, fracs = _read(training, state, images)
    for each in training.forward:
        values[each.name] = contracted(training, each, values, fracs)
    scores = values[training.scored.name].numpy().astype(np.int64)
    values["error"] = torch.from_numpy(np.stack([error(*pair) for pair in zip(scores, labels, strict=True)]).astype(np.float32))
    for each in training.backward:
        values[each.name] = contracted(training, each, values, fracs)
    largest = {name: int(values[name].abs().max()) for name in state.shifts}
    totals = {}
    for name, gradient in training.gradients.items():
        totals[name] = _added(state.velocities[name], values[gradient]).numpy().astype(np.int64)
        largest[gradient] = int(np.abs(totals[name]).max())
    return moved(training, state, totals, largest, rule)


def scores(training: Training, state: State, images: np.ndarray) -> np.ndarray:
    """The scores (n, outputs) of images (n, pixels), all integers."""
    check(training, images)
    found = []
    for some in np.array_split(images, -(-len(images) // 500)):
        values, fracs = _read(training, state, some)
        for each in training.forward:
            values[each.name] = contracted(training, each, values, fracs)
        found.append(values[training.scored.name].reshape(len(some), -1).numpy().astype(np.int64))
    return np.concatenate(found)


def _read(training: Training, state: State, images: np.ndarray) -> tuple[Values, Mapping[str, int]]:
    """What is given: factors, images, and the fractions of all values."""
    given = {name: torch.from_numpy(factor.astype(np.float32)) for name, factor in factors_of(training, state).items()}
    return {**given, "image": torch.from_numpy(images.astype(np.float32))}, fractions(training, state.shifts)


def contracted(training: Training, each: Contraction, values: Values, fracs: Mapping[str, int]) -> Tensor:
    """A contraction of all images, rounded."""
    return rounded(training, each, accumulated(training, each, values, fracs), values, fracs)


def accumulated(
    training: Training, each: Contraction, values: Values, fracs: Mapping[str, int], dtype: torch.dtype | None = None, batch: Axes = BATCH
) -> Tensor:
    """A contraction's sums before they are rounded: of every image, or with no `batch` of all together; exact, or added in a `dtype`."""
    fits = 2 * training.bound(replace(each, bias="")) <= EXACT_FLOAT32
    dtype = dtype or (torch.float32 if fits else torch.float64)
    arrays, names = [], []
    for name, axes in each.args:
        several = () if name in training.parameters else BATCH
        arrays.append(values[name].reshape(*(values[name].shape[: len(several)]), *training.shape(axes)).to(dtype))
        names.append((*several, *axes))
    total = torch.einsum(*numbered(arrays, names, (*batch, *each.axes)))
    if each.bias:
        bias = values[each.bias].double().reshape(training.shape(each.axes))
        total = total + _rescaled(bias, fracs[each.bias] - accumulator_frac(each, fracs), BIAS_BITS)
    return total


def rounded(training: Training, each: Contraction, total: Tensor, values: Values, fracs: Mapping[str, int]) -> Tensor:
    """A contraction's value from its sums."""
    made = _rescaled(total, accumulator_frac(each, fracs) - fracs[each.name], each.bits)
    if each.relu:
        made = made.relu()
    return made * (values[each.mask].reshape(made.shape) != 0) if each.mask else made


def _rescaled(values: Tensor, shift: int, bits: int) -> Tensor:
    """`bayestt.algebra.fixed.rescale` of integers that are floats."""
    shift = max(1 - MAX_BITS, min(shift, MAX_BITS - 1))
    top = 2.0 ** (bits - 1)
    # Floats that held the integers and a half of the step hold this sum too.
    halves_up = 0.5 if shift > 0 else 0.0
    return values.mul(2.0**-shift).add_(halves_up).floor_().clamp_(-top, top - 1)


def _added(velocity: np.ndarray, gradients: Tensor) -> Tensor:
    """A velocity and the gradients of images and strips, one after the other, each sum saturated."""
    total = torch.from_numpy(velocity.astype(np.float32))
    gradients = gradients.reshape(-1, *total.shape)
    top = 2.0 ** (GRADIENT_BITS - 1)
    if (total.abs() + gradients.abs().sum(0)).max() < top:
        return total + gradients.sum(0)
    for gradient in gradients:
        total = (total + gradient).clamp_(-top, top - 1)
    return total
