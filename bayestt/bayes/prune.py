"""Smaller networks: ranks that carry next to nothing are cut out of the cores."""

from copy import deepcopy

import numpy as np
import torch
from torch import nn

from bayestt.algebra.factorization import contributions, shrink
from bayestt.bayes.posterior import Posterior
from bayestt.nets.tensorize import TensorizedLinear


def prune(learned: Posterior | nn.Module, threshold: float) -> nn.Module:
    """A network without the rank indices that contribute less than `threshold` (0 to 1) of the most in their bond.

    Its cores are really smaller; all else is copied. Contributions are those of `bayestt.algebra.factorization`.
    """
    _check(threshold)
    net = deepcopy(learned.net if isinstance(learned, Posterior) else learned)
    for layer in _tensorized(net).values():
        keep = {axis: np.flatnonzero(kept) for axis, kept in _kept(layer, threshold).items()}
        layer.form, cores = shrink(layer.form, _arrays(layer), keep)
        for k, core in enumerate(cores):
            old = getattr(layer, f"core{k}")
            setattr(layer, f"core{k}", nn.Parameter(torch.from_numpy(core).to(old), old.requires_grad))
    return net


def ranks(net: nn.Module, threshold: float = 0.0) -> dict[str, int]:
    """By bond (`fc1.r1`) the ranks that `prune` would keep; at threshold 0, all there are."""
    _check(threshold)
    return {f"{name}.{axis}": int(kept.sum()) for name, layer in _tensorized(net).items() for axis, kept in _kept(layer, threshold).items()}


def _kept(layer: TensorizedLinear, threshold: float) -> dict[str, np.ndarray]:
    """For every rank axis which indices stay: those that reach the threshold, so at least the one that contributes most."""
    return {axis: carried >= threshold * carried.max() for axis, carried in contributions(layer.form, _arrays(layer)).items()}


def _tensorized(net: nn.Module) -> dict[str, TensorizedLinear]:
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, TensorizedLinear)}


def _arrays(layer: TensorizedLinear) -> list[np.ndarray]:
    return [core.detach().cpu().numpy() for core in layer.cores]


def _check(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold}: give a part of the largest contribution, 0 to 1")
