"""Weights in a file: those of a pruned net come back with its ranks, those of another net are refused."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bayestt.algebra.formats import Form
from bayestt.bayes.prune import prune, ranks
from bayestt.nets.fc import fc
from bayestt.nets.resnet import resnet
from bayestt.nets.tensorize import tensorize
from bayestt.nets.weights import load, save

FORMS = {"fc1": Form("tt_matrix", 4, (4, 4), (4, 6))}


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return tensorize(fc([24, 16, 3]), FORMS)


def test_a_pruned_net_comes_back_as_it_was_and_trains_on(tmp_path: Path) -> None:
    pruned = prune(net(0), 0.9)
    save(pruned, tmp_path / "net.weights")
    found = load(net(1), tmp_path / "net.weights")
    x = torch.randn(5, 24)
    assert ranks(found) == ranks(pruned) != ranks(net(1))
    assert torch.equal(found(x), pruned(x))
    found(x).sum().backward()
    assert all(weight.grad is not None for weight in found.parameters())


def test_buffers_are_kept_too(tmp_path: Path) -> None:
    normal = nn.BatchNorm1d(3)
    normal(torch.randn(9, 3))
    save(normal, tmp_path / "net.weights")
    assert torch.equal(load(nn.BatchNorm1d(3), tmp_path / "net.weights").running_mean, normal.running_mean)


def test_the_weights_of_another_net_are_refused(tmp_path: Path) -> None:
    save(net(0), tmp_path / "net.weights")
    for other in (fc([24, 16, 3]), tensorize(fc([24, 16, 4]), FORMS)):
        with pytest.raises(ValueError, match="net.weights holds the weights of another network"):
            load(other, tmp_path / "net.weights")


def test_a_much_deeper_net_is_refused_in_few_words(tmp_path: Path) -> None:
    save(resnet(8), tmp_path / "net.weights")
    with pytest.raises(ValueError, match=r"another network \(.*stage1\.block2.* \.\.\.\): build the network that it was") as refusal:
        load(resnet(110), tmp_path / "net.weights")
    assert len(str(refusal.value)) < 500 + len(str(tmp_path))
