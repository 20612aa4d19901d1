"""How all weights of a net lie in one vector, theta, and the scales of all its ranks in another, lam."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from bayestt.bayes.prior import Prior
from bayestt.nets.tensorize import tensorized


@dataclass(frozen=True, eq=False)
class Layout:
    """Weights with a prior scale come first in theta: one gather finds all their deviations.

    `shapes` are the weights by their names in the net (`fc1.core0`), in theta's order; `ranks` the numbers of scales by rank axis
    (`fc1.r1`), in lam's order; `scales` (1 or 2, scaled) the places in lam of the scales that multiply to an entry's deviation; `count`
    how often each scale is used.
    """

    shapes: Mapping[str, tuple[int, ...]]
    ranks: Mapping[str, int]
    scales: Tensor
    count: Tensor

    @property
    def size(self) -> int:
        """Entries of theta."""
        return sum(map(prod, self.shapes.values()))

    @property
    def scaled(self) -> int:
        """Entries of theta whose deviation depends on lam; the first ones."""
        return self.scales.shape[1]

    def pack(self, weights: Mapping[str, Tensor]) -> Tensor:
        """theta (size,) from weights by name."""
        return torch.cat([weights[name].detach().reshape(-1) for name in self.shapes])

    def unpack(self, theta: Tensor) -> dict[str, Tensor]:
        """Weights by name, as views of theta."""
        parts = theta.split([prod(shape) for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def unpack_scales(self, lam: Tensor) -> dict[str, Tensor]:
        """Scales by rank axis, as views of lam."""
        return dict(zip(self.ranks, lam.split(list(self.ranks.values())), strict=True))


def layout(net: nn.Module, prior: Prior) -> Layout:
    """The layout of a net under a prior."""
    forms = {name: layer.form for name, layer in tensorized(net).items()}
    ranks = {f"{name}.{axis}": form.size[axis] for name, form in forms.items() for axis in form.ranks}
    starts = dict(zip(ranks, torch.tensor([0, *ranks.values()]).cumsum(0).tolist(), strict=False))
    scales: dict[str, Tensor] = {}
    for name, form in forms.items():
        for k, axes in enumerate(prior.scales(form)):
            if axes:
                places = [_spread(starts[f"{name}.{axis}"], form.size[axis], form.cores[k].index(axis), form.shapes[k]) for axis in axes]
                scales[f"{name}.core{k}"] = torch.stack(places)
    shapes = {name: tuple(weight.shape) for name, weight in net.named_parameters()}
    ordered = {name: shapes[name] for name in scales} | shapes
    places = torch.cat([torch.empty(1 + prior.product, 0, dtype=torch.int64), *scales.values()], dim=1)
    device = next(net.parameters()).device
    count = places.flatten().bincount(minlength=sum(ranks.values()))
    return Layout(ordered, ranks, places.to(device), count.to(device))


def _spread(start: int, ranks: int, at: int, shape: tuple[int, ...]) -> Tensor:
    """For every entry of a core, flat, the place of its index along axis `at` when places count from `start`."""
    along = torch.arange(start, start + ranks).reshape([-1 if k == at else 1 for k in range(len(shape))])
    return along.expand(shape).reshape(-1)
