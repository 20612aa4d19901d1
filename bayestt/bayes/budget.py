"""A budget of parameters, met while a net still learns: ranks that it has no room for are set to zero, and stay there."""

from dataclasses import dataclass

import torch
from torch import nn

from bayestt.bayes.layout import Layout
from bayestt.bayes.prune import survivors


@dataclass(frozen=True)
class Budget:
    """At most `parameters`, all counted, from epoch `end` on; before, from epoch `start`, what is allowed falls geometrically from all."""

    parameters: int
    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a budget from epoch {self.start} to {self.end}: give a start of 0 or later, and a later end")

    def after(self, epoch: int, whole: int) -> int:
        """The parameters that a net of `whole` may keep after that many epochs."""
        past = min(max((epoch - self.start) / (self.end - self.start), 0.0), 1.0)
        return max(self.parameters, int(whole * (self.parameters / whole) ** past))


@torch.no_grad()
def silence(net: nn.Module, layout: Layout, theta: nn.Parameter, optimizer: torch.optim.Optimizer, parameters: int) -> None:
    """Set to zero, in theta and in its momentum, the rank indices that `prune` would cut to meet a budget of so many parameters.

    An index that is zero in all cores that share it has no gradient and no prior force: it stays zero, and can be cut at any time.
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
    theta.mul_(alive)
    for moment in ("exp_avg", "exp_avg_sq"):
        optimizer.state[theta][moment].mul_(alive)
