"""The one training loop: MAP or variational inference of all weights, with the scales of the ranks found on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from math import cos, pi
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from bayestt.bayes.batches import Batches
from bayestt.bayes.checkpoint import digest, resume, save
from bayestt.bayes.model import Model
from bayestt.bayes.posterior import Epoch, Posterior
from bayestt.bayes.predict import predict, score
from bayestt.bayes.prune import ranks
from bayestt.bayes.step import Guide, adam, step

Labelled = tuple[np.ndarray, np.ndarray]
"""Images, float32 (n, ...), and labels, int64 (n,)."""


def fit(
    model: Model,
    guide: Guide,
    batches: Batches,
    validation: Labelled,
    *,
    lr: float,
    epochs: int,
    weight: float = 1.0,
    ramp: float = 0.0,
    rho: float = 1.0,
    threshold: float = 0.1,
    checkpoint: str | Path | None = None,
) -> Posterior:
    """Train copies of the guide and the net by Adam on the mean negative log-likelihood less `weight` / num_data of log-prior and entropy.

    `weight` is the prior's temperature: 1 is Bayes' rule, more prunes more, 0 trains without a prior. It grows from 0 over `ramp` epochs;
    `lr` falls to 0 along half a cosine. Where the prior knows the best scales in closed form, their squares move to it by `rho` (0 to 1) a
    step (Hawkins, Liu & Zhang 2022), else scales follow their gradient. `threshold` is that of `prune`, for the ranks in the history.

    With a path for a `checkpoint` every epoch is kept there. The same call after an interrupt goes on from the last whole epoch, to the
    very same bytes: order and noise are functions of the batches' seed and the epoch's number. An objective that is no number ends the
    training with a FloatingPointError that says when and where.
    """
    _check(lr, epochs, weight, ramp, rho, threshold)
    _check_labels(model, batches, validation)
    start = digest(*(part.detach().cpu().numpy() for part in guide.parameters()))
    model, guide = replace(model, net=deepcopy(model.net)), deepcopy(guide)
    optimizer = adam(model, guide, lr)
    history: list[Epoch] = []
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        settings = {
            "lr": lr, "epochs": epochs, "weight": weight, "ramp": ramp, "rho": rho, "threshold": threshold, "prior": model.prior.name,
            "guide": type(guide).__name__, "start": start, "data": digest(batches.images, batches.labels, *validation),
            "batches": [batches.size, batches.seed],
        }  # fmt: skip
        if checkpoint.exists():
            history = resume(checkpoint, settings, guide, model.net, optimizer)
        else:
            # A folder that cannot be written is found now, not after an epoch.
            save(checkpoint, settings, history, guide, model.net, optimizer)
    with tqdm(total=epochs, initial=len(history), unit="epoch", disable=None) as bar:
        for number in range(len(history) + 1, epochs + 1):
            with _noise(batches.seed_of(number)):
                loss = _epoch(model, guide, optimizer, batches, number, lr, epochs, weight / model.num_data, ramp, rho)
            history.append(_judged(model, guide, validation, loss, threshold))
            if checkpoint is not None:
                save(checkpoint, settings, history, guide, model.net, optimizer)
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{history[-1].accuracy:.4f}", **history[-1].ranks)
            bar.update()
    return _posterior(model, guide, history)


def _epoch(
    model: Model,
    guide: Guide,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    number: int,
    lr: float,
    epochs: int,
    weight: float,
    ramp: float,
    rho: float,
) -> float:
    """All steps of an epoch; returns the mean objective."""
    model.net.train()
    device = next(model.net.parameters()).device
    losses = []
    for k, (x, labels) in enumerate(batches.epoch(number)):
        past = number - 1 + k / len(batches)
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 + cos(pi * past / epochs)) / 2
        try:
            risen = min(1.0, past / ramp) if ramp else 1.0
            losses.append(step(model, guide, optimizer, x.to(device), labels.to(device), weight * risen, rho))
        except FloatingPointError as fault:
            raise FloatingPointError(f"training ended in epoch {number}, batch {k + 1} of {len(batches)}: {fault}") from None
    return fmean(losses)


def _judged(model: Model, guide: Guide, validation: Labelled, loss: float, threshold: float) -> Epoch:
    """The record of an epoch, from the net at the mean of its weights."""
    net = _at_mean(model, guide)
    reached = score(predict(net, validation[0]), validation[1])
    return Epoch(loss, reached.accuracy, reached.nll, ranks(net, threshold))


def _posterior(model: Model, guide: Guide, history: list[Epoch]) -> Posterior:
    mean, std = (model.layout.unpack(moment.clone()) for moment in guide.moments())
    scales = model.layout.unpack_scales(guide.log_lam.detach().exp())
    return Posterior(_at_mean(model, guide).eval(), mean, std, scales, tuple(history))


@torch.no_grad()
def _at_mean(model: Model, guide: Guide) -> nn.Module:
    """The training's own net, its parameters set to the mean of theta."""
    mean = model.layout.unpack(guide.moments()[0])
    for name, parameter in model.net.named_parameters():
        parameter.copy_(mean[name])
    return model.net


@contextmanager
def _noise(seed: int) -> Iterator[None]:
    """torch's random numbers from a seed, and afterwards as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _check(lr: float, epochs: int, weight: float, ramp: float, rho: float, threshold: float) -> None:
    rules = {
        f"lr is {lr}, expected a positive number": lr > 0,
        f"epochs is {epochs}, expected at least 1": epochs >= 1,
        f"weight is {weight}, expected 0 or more": weight >= 0,
        f"ramp is {ramp}, expected 0 epochs or more": ramp >= 0,
        f"rho is {rho}, expected 0 to 1": 0 <= rho <= 1,
        f"threshold is {threshold}, expected 0 to 1": 0 <= threshold <= 1,
    }
    if broken := [rule for rule, kept in rules.items() if not kept]:
        raise ValueError(f"{', '.join(broken)}: change what fit is given")


def _check_labels(model: Model, batches: Batches, validation: Labelled) -> None:
    """Refuse labels that the net has no score for."""
    classes = predict(model.net, batches.images[:1]).shape[1]
    for name, labels in (("training", batches.labels), ("validation", validation[1])):
        if not len(labels):
            raise ValueError(f"there are no {name} images: give at least one")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"{name} labels go from {labels.min()} to {labels.max()} and the net scores {classes} classes, 0 to {classes - 1}: "
                "correct the labels or widen the net's last layer"
            )
