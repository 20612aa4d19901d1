"""One step of training: the objective, its gradient, and the scales of the ranks."""

import torch
from torch import Tensor, nn

from bayestt.bayes.guide import MeanField, Point
from bayestt.bayes.model import Model, log_prior
from bayestt.bayes.teacher import Lesson

Guide = Point | MeanField


def adam(model: Model, guide: Guide, lr: float) -> torch.optim.Optimizer:
    """The optimiser of a guide; scales that go by their closed form are not its business."""
    closed = model.prior.closed_form
    return torch.optim.Adam([part for name, part in guide.named_parameters() if not (closed and name == "log_lam")], lr=lr, fused=True)


def step(
    model: Model,
    guide: Guide,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    labels: Tensor,
    weight: float,
    rho: float,
    lesson: Lesson | None = None,
) -> float:
    """Change the guide by one batch; returns the mean negative log-likelihood less `weight` times log-prior and entropy, before the change.

    With a lesson, a teacher's scores of the same images, its mean loss stands where the negative log-likelihood stood.
    Where that or its gradient is no number the weights stay: FloatingPointError, which names the layer or the site it came from.
    """
    optimizer.zero_grad()
    scores = model.scores(guide.draw(), x)
    loss = -model.likelihood(scores).log_prob(labels).mean()
    if lesson:
        loss = lesson.loss(scores, loss)
    if weight > 0:
        square, lam = guide.square(), guide.log_lam.exp()
        if model.prior.closed_form:
            lam = _update_scales(model, guide, square.detach(), rho)
        loss = loss - weight * (log_prior(model, square, lam) + guide.entropy())
    loss.backward()
    if not (loss.detach() + sum(part.grad.sum() for part in guide.parameters() if part.grad is not None)).isfinite():
        raise FloatingPointError(f"the objective is {loss.item()}, and {_culprit(model, guide, x)}: lower lr, or look at the data")
    optimizer.step()
    return loss.item()


@torch.no_grad()
def _update_scales(model: Model, guide: Guide, square: Tensor, rho: float) -> Tensor:
    """Move the squares of all scales by `rho` towards the best ones for these expected squares of weights."""
    lam = guide.log_lam.exp()
    moved = torch.lerp(lam.square(), model.best_scales(square, lam).square(), rho)
    guide.log_lam.copy_(moved.log() / 2)
    return moved.sqrt()


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
        model.scores(guide.draw(), x)
    for hook in hooks:
        hook.remove()
    if odd:
        return f"layer {odd[0]} is the first whose output is not finite"
    slopes = [part.grad for name, part in guide.named_parameters() if name != "log_lam"]
    sites = [name for slope in slopes for name, grad in model.layout.unpack(slope).items() if not grad.isfinite().all()]
    return f"the gradient of {sites[0] if sites else 'the scales'} is not finite"
