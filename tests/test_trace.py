"""Tracing: the graph of a network computes what the network computes, and what has no counterpart is named."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from bayestt.algebra.formats import FORMATS, Form
from bayestt.ir.fold import fold
from bayestt.ir.interpret import interpret
from bayestt.nets.resnet import resnet
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace


class Written(nn.Module):
    """A network of three layers whose forward is a given function."""

    def __init__(self, forward: object) -> None:
        super().__init__()
        self.first, self.square, self.last = nn.Linear(24, 6), nn.Linear(6, 6), nn.Linear(6, 5, bias=False)
        self.relu, self.rectify, self.scale = nn.ReLU(), nn.ReLU(inplace=True), nn.Parameter(torch.ones(24))
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


class Block(nn.Module):
    """Two convolutions and a shortcut, which takes every other pixel and pads channels where the images shrink."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1), nn.BatchNorm2d(after)
        self.stride, self.grown = stride, after - before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        if self.grown:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.grown // 2, self.grown - self.grown // 2))
        y += x
        return functional.relu(y)


class Residual(nn.Module):
    """A residual network as found in many places: blocks, an average over the rest of the image, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, 1, 1, bias=False), nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(Block(4, 4, 1), Block(4, 4, 1), Block(4, 7, 2), Block(7, 7, 1))
        self.last = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(functional.relu(self.norm(self.conv(x))))
        return self.last(functional.avg_pool2d(x, x.size()[2:]).view(x.size(0), -1))


class OnlyInTraining(nn.Module):
    """A forward of two modes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.tanh() if self.training else functional.relu(x, True)


def spoiled(change: object, view: object = lambda x: x) -> Written:
    """A network that changes its first result, or a view of it, in place, and reads it again as it was called before."""

    def forward(net: Written, x: torch.Tensor) -> torch.Tensor:
        kept = flat(net, x)
        changed = change(net, view(kept))
        return net.last(kept) if changed is None else net.last(changed.reshape(-1, 6)) + net.last(kept)

    return Written(forward)


def added_in_place(net: Written, x: torch.Tensor) -> torch.Tensor:
    """A sum that takes the place of its first operand."""
    x += net.square(x)
    return x


def set_to_zero(net: Written, x: torch.Tensor) -> torch.Tensor:
    """What no tracing sees."""
    x[:, 0] = 0
    return x


def projected(net: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """A shortcut with a convolution of its own."""
    return net.relu(torch.add(net[1](net[0](x)), net[2](x))).flatten(1)


CONVOLUTIONS = {
    "a convolution": nn.Conv2d(2, 5, 3),
    "rows and columns apart": nn.Conv2d(2, 3, (3, 2), stride=(2, 3), padding=(1, 0), dilation=(1, 2)),
    "same": nn.Conv2d(2, 3, (3, 4), padding="same", dilation=(1, 2), bias=False),
    "valid": nn.Conv2d(2, 3, 2, padding="valid"),
    "a large border": nn.Conv2d(2, 3, 1, padding=0, stride=2),
    "layers": nn.Sequential(
        *(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(6, 4, 3, padding=1),
            nn.AvgPool2d(2),
        ),
        *(nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(8, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3)),
    ),
    "a small image": nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2)
    ),
    "halves": nn.Sequential(nn.AdaptiveAvgPool2d((3, None)), nn.Dropout2d(), nn.ZeroPad2d((1, 2, -1, 0)), nn.Conv2d(2, 3, 2)),
    "unflattened": nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, -1, 3)), nn.Conv2d(4, 3, 2), nn.Flatten(2), nn.Flatten()),
    "a residual network": Residual(),
    "blocks": nn.Sequential(Block(2, 5, 2), Block(5, 5, 1), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(5, 3)),
    "functions": Written(
        lambda net, x: functional.adaptive_avg_pool2d(
            functional.avg_pool2d(functional.max_pool2d(x, (2, 1), stride=1), kernel_size=3, stride=2, padding=1), output_size=1
        ).reshape(-1, 2)
    ),
    "means": Written(lambda net, x: torch.mean(x.mean(dim=-1, keepdim=True), (2, 3))),
    "a square with a skip": Written(lambda net, x: net.square(first := flat(net, x[:, :, :4, :3])) + first),
    "slices": Written(lambda net, x: functional.max_pool2d(x[:, :1, ::3, :7:2], 2)),
    "shapes": Written(lambda net, x: net.first(x.view(x.shape[0], x.size(1) * 3, -1).unflatten(2, (2, 7)).reshape([-1, 84])[:, :24])),
}
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
    "in place": Written(lambda net, x: net.last(added_in_place(net, (y := flat(net, x)).relu_()).view(y.size(0), -1).relu_())),
    "two modes": nn.Sequential(nn.Flatten(), nn.Linear(24, 6), OnlyInTraining(), nn.Linear(6, 3)),
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


@pytest.mark.parametrize("net", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_the_graph_convolves_as_the_network_does(net: nn.Module) -> None:
    torch.manual_seed(0)
    for name, tensor in net.state_dict().items():
        (nn.init.uniform_ if "var" in name else nn.init.normal_)(tensor) if tensor.is_floating_point() else None
    assert_traced(net.train(), 2, 6, 7)


def test_a_residual_network_folds_to_convolutions_with_biases_and_sums() -> None:
    """Per convolution: a contraction, a bias and, but for the last linear layer, a rectifier; nothing is left of batch-norm or a view."""
    graph = fold(trace(Residual(), torch.zeros(1, 2, 6, 8)))
    kinds = [op.kind for op in graph.ops if op.kind != "CONST"]
    assert {kind: kinds.count(kind) for kind in kinds} == {"INPUT": 1, "CONTRACT": 9 + 1 + 1 + 1, "ADD": 10 + 4, "RELU": 9}
    assert {len(op.args) for op in graph.ops if op.kind == "CONTRACT"} == {2}
    assert graph.parameters == 2 * 4 * 9 + 4 * 4 * 4 * 9 + (4 + 7) * 7 * 9 + 2 * 7 * 7 * 9 + 5 * 4 + 4 * 7 + 7 * 4 + 1 + 7 * 3 + 3


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


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("modes", [None, ((2, 3), (2, 4))], ids=["modes found", "modes given"])
def test_tensorized_convolutions_are_contractions_of_their_cores(name: str, modes: tuple | None) -> None:
    torch.manual_seed(0)
    layers = {"first": nn.Conv2d(8, 6, (3, 2), (2, 1), (1, 0)), "norm": nn.BatchNorm2d(6), "last": nn.Conv2d(6, 4, 1, 2, bias=False)}
    net = tensorize(nn.Sequential(OrderedDict(layers)), {"first": Form(name, 2, *(modes or ())), "last": Form(name, 2)})
    for tensor in (net.norm.running_var, net.norm.weight, net.norm.bias):
        nn.init.uniform_(tensor, 0.5, 2)
    assert_traced(net, 8, 6, 7)
    graph = trace(net, torch.zeros(1, 8, 6, 7))
    assert graph.parameters == sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("form", [None, Form("tucker", 4), Form("tensor_train", 3), Form("cp", 5)], ids=str)
def test_a_resnet_is_traced_whole(form: Form | None) -> None:
    torch.manual_seed(0)
    net = resnet(14)
    if form:
        net = tensorize(net, {"stage2.block*.conv?": form, "stage2.down.conv2": form, "stage3.*.conv?": form})
    assert_traced(net, 3, 16, 16)
    folded = fold(trace(net, torch.zeros(1, 3, 16, 16)))
    kinds = [op.kind for op in folded.ops]
    assert (kinds.count("VIEW"), kinds.count("RELU"), kinds.count("ADD")) == (0, 13, 13 + 6 + 1)


ODD = {
    "an unknown layer": (nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(24, 6), nn.Sigmoid())), r"1\.1: Sigmoid has no counterpart"),
    "a function in a block": (nn.Sequential(nn.Flatten(), Written(lambda net, x: net.first(x).tanh())), r"1.*tanh has no counterpart"),
    "a convolution in groups": (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), r"0: has groups=2 and .* takes groups=1"),
    "a convolution around the edges": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), "layer: .*padding_mode='circular'"),
    "a convolution of other channels": (nn.Conv2d(3, 2, 1), r"layer: convolves 3 channels, and its images have shape \(2, 3, 4\)"),
    "a convolution of features": (nn.Sequential(nn.Flatten(), nn.Conv2d(24, 2, 1)), r"1: convolves 24 channels.* shape \(24,\)"),
    "a convolution with a large kernel": (nn.Conv2d(2, 3, 4), "layer: has a window 4 long over h, where its images have 3"),
    "a convolution of one dimension": (nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 2, 1)), "1: Conv1d has no counterpart"),
    "a transposed convolution": (nn.ConvTranspose2d(2, 3, 1), "layer: ConvTranspose2d has no counterpart"),
    "normalization by the batch": (nn.BatchNorm2d(2, track_running_stats=False), "layer: keeps no running statistics"),
    "normalization of other channels": (nn.BatchNorm2d(3), "layer: normalizes 3 channels"),
    "pooling beyond the edges": (nn.MaxPool2d(2, ceil_mode=True), "layer: pools with ceil_mode=True"),
    "pooling with places": (nn.MaxPool2d(2, return_indices=True), "return_indices=True"),
    "pooling of features": (nn.Sequential(nn.Flatten(), nn.MaxPool2d(2)), r"1: pools images .* shape \(24,\)"),
    "an average of what is there": (nn.AvgPool2d(3, padding=1, count_include_pad=False), "layer: .*divides by the whole window"),
    "an average to a size that does not divide": (nn.AdaptiveAvgPool2d(2), r"layer: averages .*\(2, 3, 4\) to \(2, 2\)"),
    "an average over images": (Written(lambda net, x: x.mean(0)), "mean: takes the mean over 0"),
    "an average over everything": (Written(lambda net, x: x.mean()), "mean: takes the mean over None"),
    "one image": (Written(lambda net, x: x[0]), r"getitem: takes \[0\] of images"),
    "some images": (Written(lambda net, x: x[::2]), "getitem: takes .*all images"),
    "a slice that begins later": (Written(lambda net, x: x[:, :, 1:]), r"getitem: takes \[1:None:None\] of h"),
    "padding with ones": (Written(lambda net, x: functional.pad(x, (1, 1), value=1.0)), "pad: pads in mode 'constant' with 1.0"),
    "padding of the batch": (Written(lambda net, x: functional.pad(x, (0, 0) * 3 + (1, 1))), "pad: pads 4 dimensions"),
    "a sum of other shapes": (Written(lambda net, x: x + x.mean(1, True)), r"add: adds images of shapes \(2, 3, 4\) and \(1, 3, 4\)"),
    "a sum with a number": (Written(lambda net, x: x + 1), "add: adds a number"),
    "a difference": (Written(lambda net, x: torch.add(x, x, alpha=-1)), "add: adds a number or a multiple"),
    "a shape with another batch": (Written(lambda net, x: x.view(x.size(0) * 2, -1)), "view: turns .*keep the batch first"),
    "a shape of other elements": (Written(lambda net, x: x.view(-1, 5)), r"view: turns images of shape \(2, 3, 4\) into \(-1, 5\)"),
    "a type": (Written(lambda net, x: x.dtype), "getattr.*: asks for 'dtype'"),
    "a forward that branches": (
        nn.Sequential(Written(lambda net, x: x if x.mean() > 0 else x + x)),
        r"0: its forward branches on its data or their shape \(gt\): .* decide by what is known when the net is made",
    ),
    "a forward that chooses": (nn.Sequential(Written(lambda net, x: (x, x + x)[x.sum()])), r"0: its forward can't be followed \(tuple ind"),
    "a forward that counts": (Written(lambda net, x: x if len(x) > 1 else x + x), r"the network: .* followed \('len' .*\): .* decide by"),
    "a forward that asks a number": (nn.Sequential(Written(lambda net, x: x if float(x.sum()) else x)), r"0: .* followed \(float\(\)"),
    "a forward that loops": (Written(lambda net, x: sum(row for row in x)), "the network: its forward loops over its data"),
    "a rectifier that spoils a shortcut": (spoiled(lambda net, x: functional.relu(x, inplace=True)), "relu: changes in place what is read"),
    "the same by position": (spoiled(lambda net, x: functional.relu(x, True)), "relu: changes in place what is read again"),
    "the same as a method": (spoiled(lambda net, x: x.relu_()), "relu_: changes in place what is read again"),
    "a sum that spoils a shortcut": (spoiled(lambda net, x: x.add_(x)), "add_: changes in place what is read again"),
    "the same as an operator": (spoiled(added_in_place), "iadd: changes in place what is read again"),
    "a view that spoils": (spoiled(lambda net, x: x.relu_(), lambda x: x.unflatten(1, (2, 3))), "relu_: changes in place what is read"),
    "a slice that spoils": (spoiled(lambda net, x: (x.relu_(), None)[1], lambda x: x[:, ::2]), "relu_: changes in place what is read"),
    "a layer that spoils": (nn.Sequential(spoiled(lambda net, x: net.rectify(x))), "0.rectify: changes in place what is read again"),
    "a layer that is made": (Written(lambda net, x: nn.ReLU()(x)), "can't be followed .*not installed as a submodule"),
    "an item that is set": (Written(lambda net, x: set_to_zero(net, flat(net, x))), "can't be followed .*item assignment"),
    "dropout that never ends": (Written(lambda net, x: functional.dropout(flat(net, x))), "dropout has no counterpart"),
    "a multiple": (Written(lambda net, x: 2 * flat(net, x)), "mul has no counterpart"),
    "a list": (Written(lambda net, x: torch.cat([flat(net, x), flat(net, x)], 1)), "cat has no counterpart"),
    "a bare parameter": (Written(lambda net, x: net.first(torch.flatten(x, 1) * net.scale)), "scale"),
    "two results": (Written(lambda net, x: (flat(net, x), flat(net, x))), "return one tensor"),
    "a list of results": (Written(lambda net, x: [flat(net, x)]), "return one tensor"),
    "a dictionary of results": (Written(lambda net, x: {"scores": flat(net, x)}), "return one tensor"),
    "the batch flattened too": (Written(lambda net, x: net.first(torch.flatten(x))), "flatten"),
    "no operation": (nn.Flatten(), "ends with an operation on its input"),
    "a layer of another size": (nn.Sequential(nn.Flatten(), nn.Linear(25, 3)), r"1: multiplies 25 features, and .* shape \(24,\)"),
}


@pytest.mark.parametrize(("net", "words"), ODD.values(), ids=ODD)
def test_what_has_no_counterpart_is_named(net: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trace(net, torch.zeros(1, 2, 3, 4))


@pytest.mark.parametrize("shape", [(3,), (3, 1, 2, 2, 2)])
def test_images_of_other_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected 1 to 3 axes after the batch"):
        trace(nn.Linear(2, 2), torch.zeros(shape))
