"""Pruning: really smaller, equal to slices of the dense weight, and a network like any other."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from bayestt.algebra.factorization import Factorization, contributions, dense, shrink
from bayestt.algebra.formats import FORMATS, Form
from bayestt.bayes.posterior import Posterior
from bayestt.bayes.prune import prune, ranks, smallest
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize


def network(format: str = "tt_matrix") -> nn.Module:
    """Random cores; a rank of 3 wherever the format has one."""
    torch.manual_seed(0)
    return tensorize(fc([16, 16, 4]), {"fc1": Form(format, 3, (4, 4), (4, 4))})


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_what_is_left_is_a_slice_of_what_was(format: str, threshold: float) -> None:
    net = network(format)
    small, form = prune(net, threshold), net.fc1.form
    cores = [core.detach().numpy() for core in net.fc1.cores]
    keep = {axis: np.flatnonzero(carried >= threshold * carried.max()) for axis, carried in contributions(form, cores).items()}
    np.testing.assert_allclose(small.fc1.dense().detach(), dense(*shrink(form, cores, keep)), rtol=1e-4, atol=1e-6)
    assert ranks(small) == ranks(net, threshold) == {f"fc1.{axis}": len(kept) for axis, kept in keep.items()}
    assert tuple(tuple(core.shape) for core in small.fc1.cores) == small.fc1.form.shapes
    assert min(ranks(small).values()) >= 1 and (threshold > 0 or ranks(small) == {f"fc1.{axis}": form.size[axis] for axis in form.ranks})


@pytest.mark.parametrize("format", FORMATS)
def test_dead_ranks_go_without_a_trace(format: str) -> None:
    net = network(format)
    axis = net.fc1.form.ranks[-1]
    with torch.no_grad():
        for core, axes in zip(net.fc1.cores, net.fc1.form.cores, strict=True):
            if axis in axes:
                core.select(axes.index(axis), 1).zero_()
    small, x = prune(net, 1e-6), torch.randn(5, 16)
    assert ranks(small)[f"fc1.{axis}"] == ranks(net)[f"fc1.{axis}"] - 1
    torch.testing.assert_close(small(x), net(x))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())


def test_nothing_is_shared_with_the_network_given() -> None:
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    small = prune(net, 0.5)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_dead_layer_keeps_its_ranks() -> None:
    net = network()
    with torch.no_grad():
        net.fc1.core0.zero_()
    assert ranks(prune(net, 0.1)) == {"fc1.r1": 3}


def test_it_saves_loads_and_trains_on() -> None:
    small = prune(Posterior(network(), {}, {}, {}, (), lambda count, seed: [], lambda weights: {}, 0), 0.99)
    assert ranks(small) == {"fc1.r1": 1}
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    loaded, x = network(), torch.randn(6, 16)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(loaded(x), small(x))
    optimizer = torch.optim.Adam(loaded.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        losses.append((loaded(x) - 1).square().mean())
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] and ranks(loaded) == {"fc1.r1": 1}


def test_a_net_without_ranks_is_copied() -> None:
    net = fc([4, 3])
    assert ranks(net) == {} and torch.equal(prune(net, 0.5).fc1.weight, net.fc1.weight)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_part(threshold: float) -> None:
    for judge in (prune, ranks):
        with pytest.raises(ValueError, match="give a part of the largest contribution, 0 to 1"):
            judge(network(), threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.1])
def test_cores_that_are_no_numbers_are_named(threshold: float) -> None:
    net = network()
    with torch.no_grad():
        net.fc1.core1[1, 2, 0] = float("nan")
    for judge in (prune, ranks):
        with pytest.raises(FloatingPointError, match="the cores of fc1 hold numbers that are not finite: give a net whose training"):
            judge(net, threshold)


def parameters(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def deep(seed: int) -> nn.Module:
    """Layers of two formats, the ranks of very different weight."""
    torch.manual_seed(seed)
    net = tensorize(fc([64, 36, 4]), {"fc1": Form("tt_matrix", 4, (4, 3, 3), (4, 4, 4)), "fc2": Form("tucker", 3, (4,), (6, 6))})
    with torch.no_grad():
        for layer in (net.fc1, net.fc2):
            for core in layer.cores:
                core.mul_(torch.exp(torch.randn(core.shape[-1])))
    return net


def cut_slowly(net: nn.Module, budget: int) -> dict[str, int]:
    """The ranks that a budget leaves, each cut judged by the dense weight with it and without."""
    layers = {name: net.get_submodule(name) for name in ("fc1", "fc2")}
    cores = {name: [core.detach().double().numpy() for core in layer.cores] for name, layer in layers.items()}
    whole = {name: np.square(dense(layer.form, cores[name])).sum() for name, layer in layers.items()}
    others = parameters(net) - sum(layer.form.parameters for layer in layers.values())
    kept = {(name, axis): set(range(layer.form.size[axis])) for name, layer in layers.items() for axis in layer.form.ranks}

    def left(kept: dict, name: str) -> tuple[Factorization, list[np.ndarray]]:
        return shrink(layers[name].form, cores[name], {axis: sorted(kept[name, axis]) for axis in layers[name].form.ranks})

    def size(kept: dict) -> int:
        return others + sum(left(kept, name)[0].parameters for name in layers)

    made = []
    while size(kept) > budget:
        choices = []
        for bond, indices in kept.items():
            now = dense(*left(kept, bond[0]))
            for index in indices if len(indices) > 1 else ():
                fewer = kept | {bond: indices - {index}}
                lost = np.square(now - dense(*left(fewer, bond[0]))).sum() / whole[bond[0]]
                choices.append((lost / (size(kept) - size(fewer)), bond, index))
        _, bond, index = min(choices)
        kept = kept | {bond: kept[bond] - {index}}
        made.append((bond, index))
    for bond, index in reversed(made):
        more = kept | {bond: kept[bond] | {index}}
        kept = more if size(more) <= budget else kept
    return {f"{name}.{axis}": len(indices) for (name, axis), indices in kept.items()}


@pytest.mark.parametrize("seed", range(4))
def test_a_budget_is_met_by_the_cuts_that_take_least_for_what_they_save_and_is_used(seed: int) -> None:
    net = deep(seed)
    for budget in np.random.default_rng(seed).integers(smallest(net), parameters(net) + 20, 4).tolist():
        small = prune(net, parameters=budget)
        assert parameters(small) <= budget
        assert ranks(small) == cut_slowly(net, budget)


def test_the_smallest_network_has_every_rank_at_one_and_no_budget_is_below() -> None:
    net = deep(0)
    least = prune(net, parameters=smallest(net))
    assert set(ranks(least).values()) == {1} and parameters(least) == smallest(net) == smallest(least)
    with pytest.raises(ValueError, match=rf"9 parameters: this network takes {smallest(net)} with every rank at 1: give at least as many"):
        prune(net, parameters=9)
    with pytest.raises(ValueError, match="nan parameters: this network takes"):
        prune(net, parameters=float("nan"))


def test_threshold_and_budget_go_together() -> None:
    net = deep(1)
    by_threshold = prune(net, 0.5)
    assert ranks(prune(net, 0.5, parameters(net))) == ranks(by_threshold)
    tighter = prune(net, 0.5, parameters(by_threshold) - 1)
    assert parameters(tighter) < parameters(by_threshold)
