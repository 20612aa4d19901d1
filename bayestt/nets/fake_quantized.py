"""Training in integers, imitated in floats: a chain of tensorized layers that any optimiser trains, and any prior."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from bayestt.algebra.einsum import Axes
from bayestt.algebra.factorization import Factorization
from bayestt.algebra.fixed import MAX_BITS, Fixed
from bayestt.ir.descend import IMAGE, accumulator_frac, controlled, fractions
from bayestt.ir.start import FULL
from bayestt.ir.training import ACTIVATION_BITS, ERROR_FRAC, FACTOR_BITS, GRADIENT_BITS, Contraction, Training, training
from bayestt.nets.descend_batch import BATCH, Values, accumulated, rounded
from bayestt.nets.rounded import nearest
from bayestt.nets.tensorize import TensorizedLinear, tensorized

PRECISION = f"{FACTOR_BITS}/{ACTIVATION_BITS}/{GRADIENT_BITS}"
"""How this arithmetic is called: bits of factors, of activations and biases, of gradients."""
ERROR = Fixed(GRADIENT_BITS, ERROR_FRAC)
"""The format of the gradient of an image's loss by its scores."""


class FakeQuantized(nn.Sequential):
    """Images (n, ...) -> scores (n, rows), and gradients, as `bayestt.ir.descend` computes them: a copy of the given net's layers.

    The layers, TensorizedLinear with biases and ReLU between them, keep their weights in floats, of which `descend`'s factors and biases
    are the nearest; scores are exactly the definition's. Gradients pass a rounding as if it were not there (straight-through: Courbariaux,
    Bengio & David 2015), but not those that would take a weight out of its latent's range farther. They come from the definition's own
    backward contractions, for a loss that is a mean over images: with the same errors after the scores, all other errors are the same, and
    a weight's gradient, which is rounded once for a batch and not for every image, is within (n + 1) / 2 of its steps; beyond that float32
    adds what it rounds of sums that pass 2**24. Exact softmax differs from the definition's, by tables, by an 80th of a chance and two
    steps of 2**-14.

    Shifts fit the first batch that has a backward pass, and move with every one by the definition's controller; they are buffers. Where
    ranks are pruned contractions keep their order, and factors their formats.
    """

    def __init__(self, net: nn.Module) -> None:
        _check(net)
        super().__init__(OrderedDict(deepcopy(net).named_children()))
        self._first = _forms(self)
        moving = sum(each.frac is None for each in self.chain.contractions)
        self.register_buffer("shifts", torch.zeros(moving, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(moving, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def chain(self) -> Training:
        """What is computed, at the ranks that the layers have now."""
        return _chain(self._first, _forms(self))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"a net in {PRECISION} bits computes in float32, and autocast rounds once more: give fit precision fp32")
        chain, weights = self.chain, dict(self.named_parameters())
        names = [each.name for each in chain.contractions if each.frac is None]
        shifts, counts = (dict(zip(names, buffer.tolist(), strict=True)) for buffer in (self.shifts, self.counts))
        steps = int(self.steps)
        batch = _Batch(chain, shifts, self.training and not steps)

        def scores(*given: Tensor) -> Tensor:
            return batch.forth(x, dict(zip(weights, given, strict=True))).to(given[0])

        def gradients(slope: Tensor) -> list[Tensor]:
            batch.back(slope)
            moved = controlled(chain, batch.shifts, counts, steps, batch.largest(names))
            for buffer, numbers in zip((self.shifts, self.counts), moved, strict=True):
                buffer.copy_(torch.tensor([numbers[name] for name in names]))
            self.steps.add_(1)
            return [batch.gradient(name, weight) / len(x) for name, weight in weights.items()]

        return _Given.apply(scores, gradients, *weights.values())

    def plain(self) -> nn.Sequential:
        """A float net whose weights are the factors and biases that this one computes with."""
        net = nn.Sequential(OrderedDict(deepcopy(self).named_children()))
        for name, weight in net.named_parameters():
            factor = self.chain.parameters[name].factor
            weight.data = nearest(weight, factor) * 2.0**-factor.frac
        return net


class _Batch:
    """The values that contractions make of a batch, and their shifts; `fitting` chooses each shift when it is first needed."""

    def __init__(self, chain: Training, shifts: dict[str, int], fitting: bool) -> None:
        self.chain, self.shifts, self.fitting = chain, shifts, fitting
        self.fracs = fractions(chain, shifts)
        self.values: Values = {}

    def forth(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Make scores (n, rows) of images."""
        self.values = {name: nearest(weights[name], parameter.factor).float() for name, parameter in self.chain.parameters.items()}
        self.values["image"] = nearest(x, IMAGE).float()
        for each in self.chain.forward:
            self.contract(each)
        scores = self.chain.scored.name
        return self.values[scores].reshape(len(x), -1) * 2.0 ** -self.fracs[scores]

    def back(self, slope: Tensor) -> None:
        """Make errors, and gradients summed over images, from the gradient of a mean loss by the scores."""
        self.values["error"] = nearest(len(slope) * slope, ERROR).float()
        sums = {*self.chain.gradients.values()}
        for each in self.chain.backward:
            self.contract(each, torch.float32, () if each.name in sums else BATCH)

    def contract(self, each: Contraction, dtype: torch.dtype | None = None, batch: Axes = BATCH) -> None:
        """Make a contraction's value."""
        total = accumulated(self.chain, each, self.values, self.fracs, dtype, batch)
        if self.fitting and each.frac is None:
            largest = float(total.abs().max())
            fits = (k for k in range(MAX_BITS) if largest <= FULL * 2.0 ** (each.bits - 1 + k))
            self.shifts[each.name] = next(fits, MAX_BITS - 1)
            self.fracs[each.name] = accumulator_frac(each, self.fracs) - self.shifts[each.name]
        self.values[each.name] = rounded(self.chain, each, total, self.values, self.fracs).float()

    def largest(self, names: Sequence[str]) -> dict[str, int]:
        """The largest magnitude in each of these values."""
        found = torch.stack([torch.linalg.vector_norm(self.values[name], torch.inf) for name in names])
        # What is no number is for the training to find.
        return dict(zip(names, map(int, found.nan_to_num().tolist()), strict=True))

    def gradient(self, name: str, weight: Tensor) -> Tensor:
        """The sum over images of a weight's gradients, none that drives it on where it has left its latent's range."""
        made, latent = self.chain.gradients[name], self.chain.parameters[name].latent
        gradient = (self.values[made] * 2.0 ** -self.fracs[made]).reshape(weight.shape).to(weight)
        beyond = (weight < latent.low * 2.0**-latent.frac) & (gradient > 0) | (weight > latent.high * 2.0**-latent.frac) & (gradient < 0)
        return gradient.masked_fill(beyond, 0)


class _Given(torch.autograd.Function):
    """Scores of weights, and how the gradient of a loss goes on to these."""

    @staticmethod
    def forward(scores: Callable[..., Tensor], gradients: Callable[[Tensor], list[Tensor]], *weights: Tensor) -> Tensor:
        return scores(*weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.gradients = inputs[1]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.gradients(slope)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *given: Any) -> NoReturn:
        raise ValueError(f"a net in {PRECISION} bits learns one set of weights at a time, and particles are many: give another guide")


def _check(net: nn.Module) -> None:
    """Refuse, by name, what the arithmetic is not defined for."""
    layers = (
        [(f"layer {name!r}", layer) for name, layer in net.named_children()] if isinstance(net, nn.Sequential) else [("the network", net)]
    )
    for k, (name, layer) in enumerate(layers[isinstance(layers[0][1], nn.Flatten) :]):
        linear = isinstance(layer, TensorizedLinear) and layer.bias is not None and not layer.recompute
        between = isinstance(layer, nn.ReLU) and layer is not layers[-1][1]
        if not (between if k % 2 else linear):
            raise ValueError(
                f"{name} ({type(layer).__name__}) has no arithmetic of {PRECISION} bits: give a chain of tensorized linear layers with "
                "biases and without recompute, ReLU between them, or another precision"
            )


def _forms(net: nn.Module) -> tuple[tuple[str, Factorization], ...]:
    return tuple((name, layer.form) for name, layer in tensorized(net).items())


@lru_cache(maxsize=64)
def _chain(first: tuple[tuple[str, Factorization], ...], now: tuple[tuple[str, Factorization], ...]) -> Training:
    """The training of layers of the first forms, at the ranks of others: its contractions' order and its formats are kept."""
    size: Mapping[str, int] = {f"{layer}.{axis}": extent for layer, form in now for axis, extent in form.size.items()}
    return replace(training(dict(first)), size=size)
