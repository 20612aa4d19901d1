"""Smaller networks: ranks that carry next to nothing, or more than a budget allows, are cut out of the cores."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from bayestt.algebra.factorization import Factorization, contributions, dense, shrink
from bayestt.bayes.posterior import Posterior
from bayestt.nets.tensorize import Tensorized, tensorized

Kept = Mapping[str, Sequence[int]]
"""By rank axis the indices that stay."""


def prune(learned: Posterior | nn.Module, threshold: float = 0.0, parameters: int | None = None) -> nn.Module:
    """A network without the rank indices that contribute less than `threshold` (0 to 1) of the most in their bond.

    With a budget of `parameters`, of which biases and all else take their share, more go until it is met: one at a time the index that
    carries the least of its layer's weight (part of the squared norm) for each parameter that it saves; in the end those that still have
    room come back, the last first. Every bond keeps at least one.
    Cores are really smaller; all else is copied. Contributions are those of `bayestt.algebra.factorization`.
    """
    net = deepcopy(learned.net if isinstance(learned, Posterior) else learned)
    for name, kept in survivors(net, threshold, parameters).items():
        layer = net.get_submodule(name)
        layer.form, cores = shrink(layer.form, _arrays(layer), kept)
        for k, core in enumerate(cores):
            old = getattr(layer, f"core{k}")
            setattr(layer, f"core{k}", nn.Parameter(torch.from_numpy(core).to(old), old.requires_grad))
    return net


def survivors(net: nn.Module, threshold: float = 0.0, parameters: int | None = None) -> dict[str, Kept]:
    """By tensorized layer and rank axis the indices that `prune` keeps."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold {threshold}: give a part of the largest contribution, 0 to 1")
    layers = tensorized(net)
    kept = {}
    for name, layer in layers.items():
        carried = contributions(layer.form, _arrays(layer))
        if not all(np.isfinite(norms).all() for norms in carried.values()):
            raise FloatingPointError(f"the cores of {name} hold numbers that are not finite: give a net whose training did not fail")
        kept[name] = {axis: np.flatnonzero(norms >= threshold * norms.max()) for axis, norms in carried.items()}
    if parameters is None:
        return kept
    check_room(net, parameters)
    return _within(parameters - _others(net), layers, kept)


def ranks(net: nn.Module, threshold: float = 0.0) -> dict[str, int]:
    """By bond (`fc1.r1`) the ranks that `prune` would keep; at threshold 0, all there are."""
    return {f"{name}.{axis}": len(indices) for name, kept in survivors(net, threshold).items() for axis, indices in kept.items()}


def check_room(net: nn.Module, parameters: int) -> None:
    """Refuse a budget that no ranks can meet."""
    if not parameters >= (least := smallest(net)):
        raise ValueError(f"{parameters} parameters: this network takes {least} with every rank at 1: give at least as many")


def smallest(net: nn.Module) -> int:
    """The parameters of a network cut down to one index in every bond; no budget can be less."""
    return _others(net) + sum(_left(layer.form, dict.fromkeys(layer.form.ranks, [0])).parameters for layer in tensorized(net).values())


def _within(entries: int, layers: Mapping[str, Tensorized], kept: Mapping[str, Kept]) -> dict[str, Kept]:
    """So many fewer indices that all cores together hold at most so many entries."""
    kept = dict(kept)
    whole = {name: np.square(dense(layer.form, _arrays(layer))).sum() or 1.0 for name, layer in layers.items()}
    cuts = {name: _cuts(layer, kept[name]) for name, layer in layers.items()}
    made = []
    while _entries(layers, kept) > entries:
        priced = [(cut.lost / whole[name] / cut.saved, name, cut) for name, found in cuts.items() for cut in found]
        _, name, cut = min(priced, key=lambda choice: choice[0])
        kept[name] = {**kept[name], cut.axis: np.setdiff1d(kept[name][cut.axis], cut.index)}
        made.append((name, cut))
        cuts[name] = _cuts(layers[name], kept[name])
    # The last cut often saves more than was asked for: what was cut before it, and has room now, stays after all.
    for name, cut in reversed(made):
        again = kept | {name: {**kept[name], cut.axis: np.union1d(kept[name][cut.axis], cut.index)}}
        if cut.lost and _entries(layers, again) <= entries:
            kept = again
    return kept


class _Cut(NamedTuple):
    """One index fewer: its bond and place, the squared norm that goes with it, and the entries that it saves."""

    axis: str
    index: int
    lost: float
    saved: int


def _cuts(layer: Tensorized, kept: Kept) -> list[_Cut]:
    """For every bond that can spare one the index that carries least."""
    form, cores = shrink(layer.form, _arrays(layer), kept)
    found = []
    for axis, carried in contributions(form, cores).items():
        if len(carried) > 1:
            index = kept[axis][carried.argmin()]
            saved = form.parameters - _left(form, {axis: range(len(carried) - 1)}).parameters
            found.append(_Cut(axis, index, carried.min() ** 2, saved))
    return found


def _left(form: Factorization, kept: Kept) -> Factorization:
    """The factorization of the indices that stay."""
    return replace(form, size={**form.size, **{axis: len(indices) for axis, indices in kept.items()}})


def _entries(layers: Mapping[str, Tensorized], kept: Mapping[str, Kept]) -> int:
    """Entries of all cores together."""
    return sum(_left(layer.form, kept[name]).parameters for name, layer in layers.items())


def _others(net: nn.Module) -> int:
    """Parameters that no cut can save: biases, dense layers."""
    return sum(weight.numel() for weight in net.parameters()) - sum(layer.form.parameters for layer in tensorized(net).values())


def _arrays(layer: Tensorized) -> tuple[np.ndarray, ...]:
    return tuple(core.detach().cpu().numpy() for core in layer.cores)
