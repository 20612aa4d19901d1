"""Stein variational gradient descent: a posterior as a set of nets that are drawn to it together and keep each other apart."""

from dataclasses import replace
from math import log

import torch
from torch import Tensor, nn

from bayestt.bayes.guide import point
from bayestt.bayes.model import Model


def particles(model: Model, count: int, std: float = 0.01, seed: int = 0) -> "Particles":
    """So many clones of the model's net, best trained already (Hawkins & Zhang 2021: clones of the MAP), with Gaussian noise added to each.

    Clones must differ, for the same nets feel the same forces: the authors train each a little further with a seed of its own, here noise
    of deviation `std` times the root mean square of each weight's own tensor tells them apart. All start with the scales best for the net,
    whose ranks are in order already, without a ladder.
    """
    if count < 1 or not std > 0:
        raise ValueError(f"{count} particles, noise of deviation {std}: give at least one particle, and a positive deviation")
    start, generator = point(replace(model, prior=replace(model.prior, ladder=False))), torch.Generator().manual_seed(seed)
    noise = torch.randn(count, len(start.theta), generator=generator).to(start.theta)
    theta = start.theta.detach() + std * _spread(model, start.theta.detach()) * noise
    return Particles(theta, start.log_lam.detach().repeat(count, 1))


class Particles(nn.Module):
    """theta (n, size) and the logarithm of lam (n, ranks): a net in every row, all of them equally likely."""

    def __init__(self, theta: Tensor, log_lam: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta)
        self.log_lam = nn.Parameter(log_lam)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of theta over the particles."""
        return self.theta.detach().mean(0), self.theta.detach().std(0, correction=0)

    def draws(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` particles (count, size): each of them as often as any other, or once more."""
        order = torch.randperm(len(self.theta), generator=generator)
        return self.theta.detach()[order.repeat(-(-count // len(order)))[:count].to(self.theta.device)]


def direction(z: Tensor, slopes: Tensor, repulsion: float) -> Tensor:
    """The way (n, size) in which particles z (n, size) shall move, given the gradients (n, size) of the log-density at each.

    phi_i = 1/n sum_j [k(z_j, z_i) slope_j + repulsion * (z_i - z_j) k(z_j, z_i) / h^2], k = exp(-|z_i - z_j|^2 / (2 h^2)) (Liu & Wang
    2016), h^2 = median |z_i - z_j|^2 / (2 log(n + 1)) (Hawkins & Zhang 2021, whose code leaves out 1/n, and measures distances on a tenth
    of the coordinates). `repulsion` is 1 for a log-density as it is, and is divided by what that is divided by.
    """
    if len(z) == 1:
        return slopes
    centred = z - z.mean(0)
    norms = centred.square().sum(1)
    distances = (norms[:, None] + norms - 2 * centred @ centred.T).clamp(min=0)
    apart = distances[~torch.eye(len(z), dtype=torch.bool, device=z.device)]
    width = (apart.median() / (2 * log(len(z) + 1))).clamp(min=torch.finfo(z.dtype).tiny)
    kernel = (-distances / (2 * width)).exp()
    away = (kernel.sum(1, keepdim=True) * centred - kernel @ centred) / width
    return (kernel @ slopes + repulsion * away) / len(z)


def _spread(model: Model, theta: Tensor) -> Tensor:
    """For every weight the root mean square of its tensor."""
    return torch.cat([weight.square().mean().sqrt().expand(weight.numel()) for weight in model.layout.unpack(theta).values()])
