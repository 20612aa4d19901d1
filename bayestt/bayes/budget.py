"""A budget of parameters, met while a net still learns: ranks that it has no room for are set to zero, and stay there."""

from dataclasses import dataclass
from numbers import Integral

import torch
from torch import nn

from bayestt.bayes.guide import Point
from bayestt.bayes.layout import Layout
from bayestt.bayes.processes import follow
from bayestt.bayes.prune import check_room, survivors


@dataclass(frozen=True)
class Budget:
    """At most `parameters`, all counted, from epoch `end` on; before, from epoch `start`, what is allowed falls geometrically from all."""

    parameters: int
    start: int
    end: int

    def __post_init__(self) -> None:
        if not (isinstance(self.parameters, Integral) and self.parameters >= 1):
            raise ValueError(f"a budget of {self.parameters} parameters: give a whole number of at least 1")
        if not 0 <= self.start < self.end:
            raise ValueError(f"a budget from epoch {self.start} to {self.end}: give a start of 0 or later, and a later end")

    def after(self, epoch: int, whole: int) -> int:
        """The parameters that a net of `whole` may keep after that many epochs."""
        past = min(max((epoch - self.start) / (self.end - self.start), 0.0), 1.0)
        return max(self.parameters, int(whole * (self.parameters / whole) ** past))

    def check(self, net: nn.Module, guide: nn.Module, epochs: int) -> None:
        """Refuse a training of so many epochs that cannot meet it."""
        if not isinstance(guide, Point):
            raise ValueError(
                f"a budget while learning needs a point guide, not {type(guide).__name__}: meet it first, then learn a posterior"
            )
        if self.end > epochs:
            raise ValueError(f"a budget that ends in epoch {self.end} of {epochs}: give an earlier end, or more epochs")
        check_room(net, self.parameters)


@torch.no_grad()
def silence(net: nn.Module, layout: Layout, theta: nn.Parameter, optimizer: torch.optim.Optimizer, parameters: int) -> None:
    """Set to zero, in theta and in Adam's momentum, the rank indices that `prune` would cut to meet a budget of so many parameters.

    An index that is zero in all cores that share it has no gradient, and no prior force as long as its scale is above zero: without
    momentum it stays zero, and can be cut at any time.
    """
    alive = torch.ones_like(theta)
    weights = layout.unpack(alive)
    for name, kept in survivors(net, parameters=parameters).items():
        form = net.get_submodule(name).form
        for axis, indices in kept.items():
            dead = torch.ones(form.size[axis], dtype=torch.bool)
            dead[indices] = False
            for k, axes in enumerate(form.cores):
                if axis in axes:
                    weights[f"{name}.core{k}"].index_fill_(axes.index(axis), dead.nonzero().flatten().to(theta.device), 0.0)
    # Processes on unlike machines may round norms differently, and must cut alike.
    follow(alive)
    theta.mul_(alive)
    optimizer.state[theta]["exp_avg"].mul_(alive)
