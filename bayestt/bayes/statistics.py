"""Batch-norm's statistics: those of the very weights that predict, never of weights that passed by while a net was learning.

While it learns, by MAP, variational inference or particles, every sample of the weights is normalised by the batch it meets, and no running
mean is kept. Whatever predicts, the net at the mean of its weights or a sample of them, has statistics of its own: means over the same few
batches of training images, unchanged by chance. So they are a function of the weights, equal on every process and after a resume, and a
posterior that narrows to a point predicts as that point does. Wu & Johnson (2021) find such statistics as good as a running mean, or
better.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

IMAGES = 1024
"""From which statistics are estimated, or as many as there are."""


@torch.no_grad()
def statistics(net: nn.Module, weights: Mapping[str, Tensor], passes: Iterable[Tensor]) -> dict[str, Tensor]:
    """By buffer (`norm1.running_mean`) the mean, over batches of images, of every batch-norm layer's batch mean and variance.

    `weights` stand in the place of the net's own; what they lack is the net's. Layers that draw noise are as in prediction.
    """
    if not _norms(net):
        return {}
    net = deepcopy(net).eval()
    for norm in _norms(net).values():
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    for x in passes:
        functional_call(net, dict(weights), (x,))
    return {f"{name}.{part}": getattr(norm, part) for name, norm in _norms(net).items() for part in ("running_mean", "running_var")}


@contextmanager
def learning(net: nn.Module) -> Iterator[None]:
    """The net in training mode, every batch-norm layer normalising by the batch and leaving its statistics as they are."""
    net.train()
    for norm in _norms(net).values():
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in _norms(net).values():
            norm.track_running_stats = True


def _norms(net: nn.Module) -> dict[str, _BatchNorm]:
    """Batch-norm layers that keep statistics, by name."""
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None}
