"""The one training loop: MAP or variational inference of all weights, with the scales of the ranks found on the way."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from math import cos, pi
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bayestt.bayes.batches import Batches
from bayestt.bayes.budget import Budget, silence
from bayestt.bayes.captured import Captured
from bayestt.bayes.checkpoint import digest, resume, save
from bayestt.bayes.feed import Feed, feed
from bayestt.bayes.model import Model
from bayestt.bayes.posterior import Epoch, Posterior
from bayestt.bayes.predict import predict, score
from bayestt.bayes.processes import agreed, count, decided, first
from bayestt.bayes.prune import ranks
from bayestt.bayes.statistics import IMAGES, learning, statistics
from bayestt.bayes.step import PRECISIONS, Guide, Slope, adam, differentiate, step
from bayestt.bayes.svgd import Particles
from bayestt.bayes.teacher import Teacher

Labelled = tuple[np.ndarray, np.ndarray]
"""Images, float32 (n, ...), and labels, int64 (n,)."""


def fit(
    model: Model,
    guide: Guide,
    batches: Batches,
    validation: Labelled,
    *,
    lr: float,
    lr_end: float = 0.0,
    epochs: int,
    warmup: float = 0.0,
    weight: float = 1.0,
    ramp: float = 0.0,
    rho: float = 1.0,
    threshold: float = 0.1,
    budget: Budget | None = None,
    teacher: Teacher | None = None,
    precision: str = "fp32",
    checkpoint: str | Path | None = None,
    watch: Callable[[int, Epoch, nn.Module], None] | None = None,
) -> Posterior:
    """Train copies of the guide and the net by Adam on the mean negative log-likelihood less `weight` / num_data of log-prior and entropy.

    `weight` is the prior's temperature: 1 is Bayes' rule, more prunes more, 0 trains without a prior. It grows from 0 over `ramp` epochs;
    `lr` grows from 0 over `warmup` epochs and falls to `lr_end` along half a cosine. Where the prior's `closed_form` is true, the squares
    of its scales move to their best by `rho` (0 to 1) a step (Hawkins, Liu & Zhang 2022), else scales follow their gradient. `threshold`
    is that of `prune`, for the ranks in the history. A `budget`, of a point guide, sets ranks to zero after each epoch until it is met. A
    `teacher` takes its share of the likelihood's place (Hinton et al. 2015); of images that the batches change it is asked again each time.
    `precision` is `fp32`, or `bf16` for layers that multiply in bfloat16 while they learn; weights and predictions stay as they are.
    Batch-norm learns and predicts as `bayestt.bayes.statistics` says. On a GPU the kernels of a step become one graph, as in
    `bayestt.bayes.captured`.

    With a path for a `checkpoint` every epoch is kept there. The same call after an interrupt goes on from the last whole epoch, on a CPU
    to the very same bytes: order and noise are functions of the batches' seed and the epoch's number. An objective that is no number ends
    the training with a FloatingPointError that says when and where. `watch` is called after every epoch, with its number, its record, and
    the net at the mean of its weights.

    Called by all processes of torch.distributed's group alike (see `bayestt.bayes.processes`), each computes its part of every batch, and
    the mean of their gradients moves the weights of all: in exact arithmetic the steps of one process with whole batches, but that
    batch-norm sees a part of a batch at a time, and that layers which draw noise draw the same in each. The first one keeps the checkpoint,
    where all must find it.
    """
    settings = _Settings(lr, lr_end, epochs, warmup, weight, ramp, rho, threshold, budget, precision)
    _check_classes(model, batches, validation, teacher)
    if precision == "bf16" and isinstance(guide, Particles):
        # Convolutions of many nets at once have no backward pass in bfloat16 (torch 2.13).
        raise ValueError("particles learn in fp32 only: leave out precision, or give another guide")
    if (together := min(batches.size, len(batches.images))) % count():
        raise ValueError(f"a batch of {together} images cannot be cut into {count()} equal parts: give a size that {count()} divides")
    if budget:
        budget.check(model.net, guide, epochs)
    fed = feed(batches, teacher, next(model.net.parameters()))
    whole = sum(weight.numel() for weight in model.net.parameters())
    model, guide = replace(model, net=deepcopy(model.net)), deepcopy(guide)
    optimizer = adam(model, guide, lr)
    unchanged = fed.unchanged(IMAGES)
    slopes = {believes: Captured() if fed.images.is_cuda else differentiate for believes in (False, True)}
    history: list[Epoch] = []
    if checkpoint is not None or count() > 1:
        identity = _identity(model, guide, fed, validation, settings)
        agreed(digest(json.dumps(identity)))
    if checkpoint is not None:
        state = Path(checkpoint), identity, guide, model.net, optimizer
        if decided(state[0].exists()):
            history = resume(*state)
        elif first():
            # A folder that cannot be written is found now, not after an epoch.
            save(*state, history)
    with tqdm(total=epochs, initial=len(history), unit="epoch", disable=None if first() else True) as bar:
        for number in range(len(history) + 1, epochs + 1):
            with _noise(batches.seed_of(number)):
                loss = _epoch(model, guide, optimizer, fed, number, settings, slopes)
            net = _at_mean(model, guide)
            if budget:
                silence(net, model.layout, guide.theta, optimizer, budget.after(number, whole))
                net = _at_mean(model, guide)
            net.load_state_dict(statistics(net, {}, unchanged), strict=False)
            reached = score(predict(net, validation[0]), validation[1])
            history.append(Epoch(loss, reached.accuracy, reached.nll, ranks(net, threshold)))
            if checkpoint is not None and first():
                save(*state, history)
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{reached.accuracy:.4f}", **_shown(history[-1].ranks))
            bar.update()
            if watch is not None:
                watch(number, history[-1], net)
    return _posterior(model, guide, history, unchanged)


@dataclass(frozen=True)
class _Settings:
    """The numbers that decide a training, checked."""

    lr: float
    lr_end: float
    epochs: int
    warmup: float
    weight: float
    ramp: float
    rho: float
    threshold: float
    budget: Budget | None
    precision: str

    def __post_init__(self) -> None:
        rules = {
            f"lr is {self.lr}, expected a positive number": self.lr > 0,
            f"lr_end is {self.lr_end}, expected 0 to lr": 0 <= self.lr_end <= self.lr,
            f"epochs is {self.epochs}, expected at least 1": self.epochs >= 1,
            f"warmup is {self.warmup}, expected 0 epochs or more": self.warmup >= 0,
            f"weight is {self.weight}, expected 0 or more": self.weight >= 0,
            f"ramp is {self.ramp}, expected 0 epochs or more": self.ramp >= 0,
            f"rho is {self.rho}, expected 0 to 1": 0 <= self.rho <= 1,
            f"threshold is {self.threshold}, expected 0 to 1": 0 <= self.threshold <= 1,
            f"precision is {self.precision}, expected {' or '.join(PRECISIONS)}": self.precision in PRECISIONS,
        }
        if broken := [rule for rule, kept in rules.items() if not kept]:
            raise ValueError(f"{', '.join(broken)}: change what fit is given")


def _check_classes(model: Model, batches: Batches, validation: Labelled, teacher: Teacher | None) -> None:
    """Refuse images that the net does not take, labels that it has no score for, and a teacher of other classes."""
    for images in (validation[0], batches.images):
        try:
            classes = predict(model.net, images[:1]).shape[1]
        except RuntimeError as fault:
            why = str(fault).splitlines()[0]
            raise ValueError(f"the net takes no images of shape {images.shape[1:]} ({why}): build it for such images") from fault
    if teacher and (told := predict(teacher.net, batches.images[:1]).shape[1]) != classes:
        raise ValueError(f"the teacher scores {told} classes and the net {classes}: give a teacher of the same classes")
    for name, labels in (("training", batches.labels), ("validation", validation[1])):
        if not len(labels):
            raise ValueError(f"there are no {name} images: give at least one")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"{name} labels go from {labels.min()} to {labels.max()} and the net scores {classes} classes, 0 to {classes - 1}: "
                "correct the labels or widen the net's last layer"
            )


def _identity(model: Model, guide: Guide, fed: Feed, validation: Labelled, settings: _Settings) -> dict[str, Any]:
    """All that decides where a training ends, to tell its checkpoint from another's."""
    batches, lesson = fed.batches, fed.lesson
    return {
        **asdict(settings),
        "prior": model.prior.name,
        "wide": model.prior.wide,
        "num_data": model.num_data,
        "net": digest(repr(model.net), repr(model.layout.shapes)),
        "guide": type(guide).__name__,
        "batches": [batches.size, batches.seed],
        "augment": batches.augment and repr(batches.augment),
        "processes": count(),
        # First scales follow from the weights, on a GPU not to the last bit.
        "start": digest(*(part.detach().cpu().numpy() for name, part in guide.named_parameters() if name != "log_lam")),
        "data": digest(batches.images, batches.labels, *validation),
        "lesson": lesson and [lesson.share, lesson.temperature, digest(lesson.scores.numpy())],
    }


def _epoch(
    model: Model,
    guide: Guide,
    optimizer: torch.optim.Optimizer,
    fed: Feed,
    number: int,
    settings: _Settings,
    slopes: Mapping[bool, Slope],
) -> float:
    """All steps of an epoch, by the slopes without a prior and with one; returns the mean objective."""
    steps, losses = len(fed.batches), []
    met = tqdm(fed.epoch(number), f"epoch {number}", steps, unit="batch", leave=False, delay=3, disable=None if first() else True)
    with learning(model.net):
        for k, (x, labels, lesson) in enumerate(met):
            past = number - 1 + k / steps
            warm = min(1.0, (past + 1 / steps) / settings.warmup) if settings.warmup else 1.0
            for group in optimizer.param_groups:
                group["lr"] = warm * (settings.lr_end + (settings.lr - settings.lr_end) * (1 + cos(pi * past / settings.epochs)) / 2)
            weight = settings.weight / model.num_data * (min(1.0, past / settings.ramp) if settings.ramp else 1.0)
            try:
                losses.append(
                    step(model, guide, optimizer, x, labels, weight, settings.rho, lesson, settings.precision, slopes[weight > 0])
                )
            except FloatingPointError as fault:
                raise FloatingPointError(f"training ended in epoch {number}, batch {k + 1} of {steps}: {fault}") from None
    return fmean(losses)


def _shown(found: Mapping[str, int]) -> dict[str, int]:
    """Ranks by bond where a line has room for them, else their sum."""
    return dict(found) if len(found) <= 8 else {"ranks": sum(found.values())}


def _posterior(model: Model, guide: Guide, history: list[Epoch], unchanged: list[Tensor]) -> Posterior:
    mean, std = (model.layout.unpack(moment.clone()) for moment in guide.moments())
    scales = model.layout.unpack_scales(torch.atleast_2d(guide.log_lam.detach()).mean(0).exp())

    def draws(count: int, seed: int) -> list[dict[str, Tensor]]:
        return [model.layout.unpack(theta) for theta in guide.draws(count, torch.Generator().manual_seed(seed))]

    net = _at_mean(model, guide).eval()
    numbers = sum(part.numel() for name, part in guide.named_parameters() if name != "log_lam")
    return Posterior(net, mean, std, scales, tuple(history), draws, lambda weights: statistics(net, weights, unchanged), numbers)


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
    # All GPUs of a machine, which is what torch would take, are other processes' business.
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed)
        yield
