"""What a training holds in memory, in bits, by purpose: beside the dense network in 32-bit floats with Adam."""

from collections.abc import Sequence
from math import prod

from bayestt.algebra.einsum import Axes
from bayestt.ir.descend import PATIENT
from bayestt.ir.rank_scale import SCALE_BITS
from bayestt.ir.training import ACTIVATION_BITS, GRADIENT_BITS, Training

SHIFT_BITS = 5
FLOAT_BITS = 32


def factor_bits(training: Training) -> int:
    """What a network that learns no more holds: factors and biases."""
    return sum(parameter.factor.bits * _entries(training, name) for name, parameter in training.parameters.items())


def training_bits(training: Training) -> dict[str, int]:
    """What it holds at batch 1, tables and program apart, by purpose.

    Factors are the upper bits of latents, and read from there. Gradients are the sums of all parameters'; activations are what the backward
    pass reads of the forward pass, the image included, of a layer in strips one strip, which it makes again, and the layer's output; errors
    are the most that live at once of the gradients of activations.
    """
    parameters = training.parameters.items()
    read = {name for each in training.backward for name, _ in each.args} | {each.mask for each in training.backward}
    kept = [prod(training.shape(training.image))]
    for each in training.forward:
        if each.name in read:
            kept.append(prod(training.shape(each.axes)) if each.bias else _in_strip(training, each.axes))
    scaled = [axis for axis in training.size if any(axis == parameter.rank for _, parameter in parameters)]
    controlled = [each for each in training.contractions if each.frac is None]
    count_bits = PATIENT.bit_length() + 1
    return {
        "latents": sum(parameter.latent.bits * _entries(training, name) for name, parameter in parameters),
        "gradients": sum(GRADIENT_BITS * _entries(training, name) for name, _ in parameters),
        "activations": ACTIVATION_BITS * sum(kept),
        "errors": _most_errors(training),
        "scales": sum((SCALE_BITS + 1) * training.size[axis] for axis in scaled),
        "control": (SHIFT_BITS + count_bits) * len(controlled) + 16,
    }


def dense_bits(sizes: Sequence[int]) -> dict[str, int]:
    """The same of dense layers of these sizes, inputs first, with biases, in floats with Adam's two moments."""
    parameters = sum(rows * cols + rows for cols, rows in zip(sizes, sizes[1:], strict=False))
    floats = {"parameters": parameters, "moments": 2 * parameters, "gradients": parameters, "activations": sum(sizes[:-1])}
    errors = {"errors": max(sum(pair) for pair in zip(sizes[1:], sizes[2:], strict=False))}
    return {purpose: FLOAT_BITS * count for purpose, count in (floats | errors).items()}


def _entries(training: Training, name: str) -> int:
    return prod(training.shape(training.parameters[name].axes))


def _in_strip(training: Training, axes: Axes) -> int:
    """Elements of a strip of a value, or of a value that is in no strips."""
    return prod(training.shape(tuple(axis for axis in axes if axis not in training.strips)))


def _most_errors(training: Training) -> int:
    """The most bits of errors that live at once: from the contraction that makes one to the last that reads it."""
    gradients = {*training.gradients.values()}
    made = {"error": (0, training.scored.axes)}
    made |= {each.name: (k, each.axes) for k, each in enumerate(training.backward) if each.name not in gradients}
    last = {name: k for k, each in enumerate(training.backward) for name, _ in each.args}
    live = [[axes for name, (first, axes) in made.items() if first <= k <= last[name]] for k in range(len(training.backward))]
    return max(sum(GRADIENT_BITS * _in_strip(training, axes) for axes in each) for each in live)
