"""Tracing: the graph of a network computes what the network computes, and what has no counterpart is named."""

import operator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bayestt.algebra.formats import FORMATS, Form
from bayestt.ir.fold import fold
from bayestt.ir.interpret import interpret
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace


class Written(nn.Module):
    """A network of three layers whose forward is a given function."""

    def __init__(self, forward: object) -> None:
        super().__init__()
        self.first, self.square, self.last = nn.Linear(24, 6), nn.Linear(6, 6), nn.Linear(6, 5, bias=False)
        self.relu, self.scale = nn.ReLU(), nn.Parameter(torch.ones(24))
        self._written = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._written(self, x)


class Blocks(nn.Module):
    """Plain Python over a list of layers, some of them blocks of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(24, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8)), nn.Linear(8, 3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        for number, block in enumerate(self.blocks):
            x = block(functional.relu(x) if number else x)
        return x


def flat(net: Written, x: torch.Tensor) -> torch.Tensor:
    """The first layer's result."""
    return net.first(torch.flatten(x, 1))


def with_dead_end(net: Written, x: torch.Tensor) -> torch.Tensor:
    """A result nobody asks for, drawn last."""
    scores = net.last(flat(net, x))
    net.square(flat(net, x))
    return scores


NETS = {
    "layers": nn.Sequential(nn.Flatten(), nn.Linear(24, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 5, bias=False)),
    "a rectifier first and last": nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(24, 6), nn.Identity(), nn.ReLU(inplace=True)),
    "a layer called x": nn.Sequential(nn.Flatten(), nn.ModuleDict({"x": nn.Linear(24, 3)})["x"]),
    "plain Python": Blocks(),
    "functional": Written(lambda net, x: net.last(torch.relu(net.square(functional.relu(flat(net, x)))).relu())),
    "keywords": Written(lambda net, x: net.last(input=torch.relu(input=net.first(input=torch.flatten(x, start_dim=1))))),
    "one rectifier twice": Written(lambda net, x: net.last(net.relu(net.square(net.relu(flat(net, x)))))),
    "one layer twice": Written(lambda net, x: net.last(net.square(torch.relu(net.square(flat(net, x)))))),
    "a dead end": Written(with_dead_end),
}


def assert_traced(net: nn.Module, *shape: int) -> None:
    """The graph, folded or not, gives the network's scores, which tracing leaves as they were."""
    x = torch.randn(7, *shape, generator=torch.Generator().manual_seed(0))
    state, training = {name: value.clone() for name, value in net.state_dict().items()}, net.training
    graph = trace(net, x[:1])
    assert net.training == training
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        expected = net.eval()(x).flatten(1).double().numpy()
    for kept in (graph, fold(graph)):
        np.testing.assert_allclose(interpret(kept, x.double().numpy()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_graph_computes_what_the_network_does(net: nn.Module) -> None:
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    assert_traced(net.train(), 2, 3, 4)


@pytest.mark.parametrize("shape", [(24,), (4, 6), (1, 4, 6)])
def test_images_may_have_one_to_three_axes(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    assert_traced(nn.Sequential(nn.Flatten(), nn.Linear(24, 5)), *shape)


def test_a_layer_is_a_network_too() -> None:
    assert_traced(nn.Linear(24, 5), 24)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("modes", [None, ((4, 3), (2, 12))], ids=["modes found", "modes given"])
def test_tensorized_layers_are_contractions_of_their_cores(name: str, modes: tuple | None) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 6, bias=False))
    net = tensorize(net, {"1": Form(name, 2, *(modes or ())), "3": Form(name, 2)})
    assert_traced(net, 4, 6)
    graph = trace(net, torch.zeros(1, 4, 6))
    assert graph.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert {op.name.split(".")[0] for op in graph.ops if op.kind == "CONST"} == {"1", "3"}


ODD = {
    "an unknown layer": (nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(24, 6), nn.Sigmoid())), r"1\.1: Sigmoid has no counterpart"),
    "a function in a block": (nn.Sequential(nn.Flatten(), Written(lambda net, x: net.first(x).tanh())), r"1.*tanh has no counterpart"),
    "a convolution": (nn.Sequential(nn.Conv2d(2, 3, 3)), r"0: Conv2d has no counterpart"),
    "dropout that never ends": (Written(lambda net, x: functional.dropout(flat(net, x))), "dropout has no counterpart"),
    "a sum": (Written(lambda net, x: operator.add(flat(net, x), flat(net, x))), "add has no counterpart"),
    "a multiple": (Written(lambda net, x: 2 * flat(net, x)), "mul has no counterpart"),
    "a list": (Written(lambda net, x: torch.cat([flat(net, x), flat(net, x)], 1)), "cat has no counterpart"),
    "a bare parameter": (Written(lambda net, x: net.first(torch.flatten(x, 1) * net.scale)), "scale"),
    "a shape": (Written(lambda net, x: net.first(x.view(x.size(0), -1))), "size.* has no counterpart"),
    "two results": (Written(lambda net, x: (flat(net, x), flat(net, x))), "return one tensor"),
    "a list of results": (Written(lambda net, x: [flat(net, x)]), "return one tensor"),
    "a dictionary of results": (Written(lambda net, x: {"scores": flat(net, x)}), "return one tensor"),
    "the batch flattened too": (Written(lambda net, x: net.first(torch.flatten(x))), "flatten"),
    "no operation": (nn.Flatten(), "ends with an operation on its input"),
    "a layer of another size": (nn.Sequential(nn.Flatten(), nn.Linear(25, 3)), r"'1\.x' .*25 elements cannot view the 24"),
}


@pytest.mark.parametrize(("net", "words"), ODD.values(), ids=ODD)
def test_what_has_no_counterpart_is_named(net: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trace(net, torch.zeros(1, 2, 3, 4))


@pytest.mark.parametrize("shape", [(3,), (3, 1, 2, 2, 2)])
def test_images_of_other_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected 1 to 3 axes after the batch"):
        trace(nn.Linear(2, 2), torch.zeros(shape))
