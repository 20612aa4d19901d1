"""One step of training: the objective, its gradient, and the scales of the ranks."""

from collections.abc import Callable
from functools import partial
from math import isfinite, log

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap

from bayestt.bayes.guide import MeanField, Point
from bayestt.bayes.model import Model, log_prior
from bayestt.bayes.prior import NARROWEST, WIDEST
from bayestt.bayes.processes import average
from bayestt.bayes.svgd import Particles, direction
from bayestt.bayes.teacher import Lesson

Guide = Point | MeanField | Particles
Slope = Callable[[Model, Guide, Tensor, Tensor, float, float, Lesson | None, str], Tensor]
"""From what `differentiate` takes to the objective, the gradient left with the guide."""
PRECISIONS = ("fp32", "bf16")
"""Of the net's layers: as its weights are, or convolutions and products in bfloat16 (torch's autocast)."""


def adam(model: Model, guide: Guide, lr: float) -> torch.optim.Optimizer:
    """The optimiser of a guide; scales that go by their closed form are not its business."""
    closed = model.prior.closed_form
    return torch.optim.Adam([part for name, part in guide.named_parameters() if not (closed and name == "log_lam")], lr=lr, fused=True)


def differentiate(
    model: Model, guide: Guide, x: Tensor, labels: Tensor, weight: float | Tensor, rho: float, lesson: Lesson | None, precision: str
) -> Tensor:
    """Give the guide the gradient of its objective for a batch, and scales that have a closed form their values; returns the objective.

    No number of it is read back, so that a GPU computes it without waiting, and can keep it as a graph. A weight in a tensor is above 0.
    """
    kind = _stein if isinstance(guide, Particles) else _variational
    return kind(model, guide, partial(_misfit, model, x, labels, lesson, precision), weight, rho)


def step(
    model: Model,
    guide: Guide,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    labels: Tensor,
    weight: float,
    rho: float,
    lesson: Lesson | None = None,
    precision: str = "fp32",
    slope: Slope = differentiate,
) -> float:
    """Change the guide by one batch; returns the mean negative log-likelihood less `weight` times log-prior and entropy, before the change.

    With a lesson, a teacher's scores of the same images, its mean loss stands where the negative log-likelihood stood. Of particles it is
    the mean over them, without entropy. Of several processes, each with its part of the batch, all change by the mean of their gradients.
    Where the objective or its gradient is no number the weights stay: FloatingPointError, which names the layer or the site it came from.
    `slope` computes as `differentiate` does.
    """
    optimizer.zero_grad()
    loss = slope(model, guide, x, labels, weight, rho, lesson, precision)
    slopes = [part.grad for part in guide.parameters() if part.grad is not None]
    average([loss, *slopes])
    # Both numbers in one transfer: on a GPU each would make the queue of kernels run dry.
    objective, sound = torch.stack([loss, loss + sum(slope.sum() for slope in slopes)]).tolist()
    if not isfinite(sound):
        raise FloatingPointError(f"the objective is {objective}, and {_culprit(model, guide, x)}: lower lr, or look at the data")
    optimizer.step()
    if not model.prior.closed_form:
        # Around a rank that is zero the density grows without end as its scale falls.
        guide.log_lam.data.clamp_(log(NARROWEST), log(WIDEST))
    return objective


def _variational(model: Model, guide: Point | MeanField, misfit: Callable[[Tensor], Tensor], weight: float | Tensor, rho: float) -> Tensor:
    """Give the guide the gradient of its objective, at one sample of theta."""
    loss = misfit(guide.draw())
    if _believes(weight):
        square, lam = guide.square(), guide.log_lam.exp()
        if model.prior.closed_form:
            lam = _moved_scales(model, square.detach(), lam.detach(), rho)
            guide.log_lam.data.copy_(lam.log())
        loss = loss - weight * (log_prior(model, square, lam) + guide.entropy())
    loss.backward()
    return loss.detach()


def _stein(model: Model, guide: Particles, misfit: Callable[[Tensor], Tensor], weight: float | Tensor, rho: float) -> Tensor:
    """Give the particles, as gradient, the way against which Stein's operator moves them; all their gradients at once.

    Their log-density, tempered as a variational guide's, is the objective divided by -weight: what keeps them apart is taken `weight`
    times. Scales without a closed form move in their logarithms, by their density as it is, which is that of the authors' code: the
    Jacobian is left out.
    """
    theta, log_lam = guide.theta.detach(), guide.log_lam.detach()
    closed = model.prior.closed_form
    if _believes(weight) and closed:
        log_lam = torch.stack([_moved_scales(model, *pair, rho) for pair in zip(theta.square(), log_lam.exp(), strict=True)]).log()
        guide.log_lam.data.copy_(log_lam)

    def objective(theta: Tensor, log_lam: Tensor) -> Tensor:
        loss = misfit(theta)
        return loss - weight * log_prior(model, theta.square(), log_lam.exp()) if _believes(weight) else loss

    slopes, losses = vmap(grad_and_value(objective, argnums=(0, 1)), randomness="different")(theta, log_lam)
    parts = [guide.theta] if closed else [guide.theta, guide.log_lam]
    sizes = [part.shape[1] for part in parts]
    z, slope = torch.cat([theta, log_lam][: len(parts)], 1), torch.cat(slopes[: len(parts)], 1)
    for part, move in zip(parts, direction(z, -slope, weight).split(sizes, 1), strict=True):
        part.grad = -move
    return losses.mean()


def _misfit(model: Model, x: Tensor, labels: Tensor, lesson: Lesson | None, precision: str, theta: Tensor) -> Tensor:
    """The mean negative log-likelihood of the labels, or what a teacher makes of it."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
        scores = model.scores(theta, x)
    scores = scores.to(theta.dtype)
    loss = -model.likelihood(scores).log_prob(labels).mean()
    return lesson.loss(scores, loss) if lesson else loss


def _believes(weight: float | Tensor) -> bool:
    """Whether a prior has a say; a tensor is not looked into."""
    return isinstance(weight, Tensor) or weight > 0


@torch.no_grad()
def _moved_scales(model: Model, square: Tensor, lam: Tensor, rho: float) -> Tensor:
    """The scales, their squares moved by `rho` towards the best ones for these expected squares of weights."""
    return torch.lerp(lam.square(), model.best_scales(square, lam).square(), rho).sqrt()


def _culprit(model: Model, guide: Guide, x: Tensor) -> str:
    """Where the first number that is none appears: in the images, forwards through the layers, else in the gradients of the sites."""
    if not x.isfinite().all():
        return "the images hold one that is not finite"
    odd: list[str] = []

    def look(name: str) -> None:
        def hook(layer: nn.Module, given: tuple, made: Tensor) -> None:
            if not made.isfinite().all():
                odd.append(name)

        return hook

    leaves = [(name, layer) for name, layer in model.net.named_modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(look(name)) for name, layer in leaves]
    with torch.no_grad():
        for theta in guide.theta if isinstance(guide, Particles) else [guide.draw()]:
            model.scores(theta, x)
    for hook in hooks:
        hook.remove()
    if odd:
        return f"layer {odd[0]} is the first whose output is not finite"
    parts = [part for name, part in guide.named_parameters() if name != "log_lam"]
    slopes = [slope for part in parts for slope in torch.atleast_2d(part.grad)]
    sites = [name for slope in slopes for name, grad in model.layout.unpack(slope).items() if not grad.isfinite().all()]
    return f"the gradient of {sites[0] if sites else 'the scales'} is not finite"
