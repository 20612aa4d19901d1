"""An integer graph as a network: the very same scores, gradients past the roundings, and better weights of few bits."""

import numpy as np
import pytest
import torch
from graphs import features, float_graphs, written
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bayestt.algebra.fixed import Fixed, dequantize
from bayestt.algebra.fixed import quantize as integers
from bayestt.algebra.formats import Form
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import point
from bayestt.bayes.model import categorical, model
from bayestt.bayes.prior import log_uniform
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, Op, Window, verify
from bayestt.ir.interpret import interpret
from bayestt.ir.quantize import quantize
from bayestt.nets.rounded import Rounded
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace

LAYERS = "x INPUT n h\nw CONST h i\ny CONTRACT n i < x w\nb CONST i\nz ADD n i < y b\nr RELU n i < z\nv CONST i k\ns CONTRACT n k < r v"


@pytest.fixture(autouse=True, scope="module")
def exact():
    """Numbers that hold every integer."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def agree(net: Rounded, x: np.ndarray) -> bool:
    """Whether the network's scores of integer images are exactly its graph's."""
    graph, images = net.integer, torch.tensor(dequantize(x, net.integer.input.format))
    return (net(images).detach().numpy() == dequantize(interpret(graph, x), graph.output.format)).all()


@settings(max_examples=60)
@given(graph=float_graphs(), seed=st.integers(0, 99), weight_bits=st.sampled_from([2, 4, 8]))
def test_it_is_the_integer_graph(graph: Graph, seed: int, weight_bits: int) -> None:
    random = np.random.default_rng(seed)
    folded = fold(graph)
    integer = quantize(folded, random.uniform(-1, 1, (6, features(graph))), weight_bits)
    low, high = integer.input.format.low, integer.input.format.high
    x, net = random.integers(low, high + 1, (4, features(graph))), Rounded(integer, folded.consts)
    assert agree(net, x) and all((net.graph().consts[name] == const).all() for name, const in integer.consts.items())


axes = st.tuples(*(st.integers(low, high) for low, high in ((5, 9), (1, 3), (1, 2), (1, 2), (0, 1))))
"""Extent, taps, stride, dilation, padding of an axis."""
KINDS = ["kernel", "a kernel for each channel", "taps alone", "no constant", "MAX"]


@settings(max_examples=60)
@given(
    spatial=st.lists(axes, min_size=1, max_size=2),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 99),
)
def test_through_windows_too(spatial: list[tuple[int, ...]], kind: str, seed: int) -> None:
    random, size, windows = np.random.default_rng(seed), {"c": 3, "o": 2}, []
    for k, (extent, taps, stride, dilation, padding) in enumerate(spatial):
        padding = min(padding, (taps - 1) * dilation)
        outs = (extent + 2 * padding - (taps - 1) * dilation - 1) // stride + 1
        size |= {f"h{k}": extent, f"kh{k}": taps, f"y{k}": outs}
        windows.append(Window(f"h{k}", f"y{k}", f"kh{k}", stride, dilation, padding))
    taps, outs = (tuple(getattr(window, which) for window in windows) for which in ("tap", "out"))
    x = Op("x", "INPUT", ("n", "c", *(window.axis for window in windows)), format=Fixed(8, 7))
    kernels = {"kernel": ("o", *taps, "c"), "a kernel for each channel": ("o", *taps, "c"), "taps alone": taps}
    kernel = Op("k", "CONST", kernels.get(kind, ()), format=Fixed(8, 5))
    consts = {"k": random.integers(-128, 128, [size[axis] for axis in kernel.axes])} if kind in kernels else {}
    made = {"kernel": ("n", *outs, "o"), "a kernel for each channel": ("n", "o", *outs, "c")}.get(kind, ("n", "c", *outs))
    format = Fixed(8, 7) if kind == "MAX" else Fixed(32, 12 if consts else 7)
    y = Op("y", "MAX" if kind == "MAX" else "CONTRACT", made, ("x", *consts), format, window=tuple(windows))
    graph = verify(Graph((x, *([kernel] if consts else []), y), size, consts))
    assert agree(Rounded(graph, {}), random.integers(-128, 128, (3, features(graph))))


@pytest.mark.parametrize("form", ["cp", "tucker", "tensor_train", "tt_matrix"])
def test_tensorized_convolutions_too(form: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, (2, 3), stride=2), nn.Flatten())
    folded = fold(trace(tensorize(net, {"0": Form(form, 2, (2, 2), (2, 2)), "3": Form(form, 3)}), torch.zeros(1, 4, 6, 7)))
    integer = quantize(folded, np.random.default_rng(0).uniform(-1, 1, (6, 4, 6, 7)))
    assert agree(Rounded(integer, folded.consts), np.random.default_rng(1).integers(-128, 128, (3, 4, 6, 7)))


def test_gradients_pass_a_rounding_and_stop_where_it_saturates() -> None:
    graph = quantize(written(LAYERS, h=4, i=3, k=2), np.random.default_rng(0).uniform(-1, 1, (20, 4)))
    net = Rounded(graph, {})
    weight = net.constants[net.names.index("v")]
    with torch.no_grad():
        weight[0] = 2 * dequantize(np.array(graph["v"].format.high), graph["v"].format)
    net(torch.tensor(np.random.default_rng(1).uniform(-1, 1, (64, 4)))).sum().backward()
    assert (weight.grad[0] == 0).all() and (weight.grad[1:] != 0).any()


def test_its_graph_has_the_constants_as_they_are_now() -> None:
    graph = quantize(written(LAYERS, h=4, i=3, k=2), np.random.default_rng(0).uniform(-1, 1, (20, 4)))
    net = Rounded(graph, {})
    assert all((net.graph().consts[name] == const).all() for name, const in graph.consts.items())
    step = 2.0 ** -graph["w"].format.frac
    with torch.no_grad():
        net.constants[net.names.index("w")].sub_(step)
    assert (net.graph().consts["w"] == np.maximum(graph.consts["w"] - 1, graph["w"].format.low)).all()


def test_the_number_just_below_a_half_is_rounded_down_in_float32_too() -> None:
    net = Rounded(quantize(written(LAYERS, h=4, i=3, k=2), np.random.default_rng(0).uniform(-1, 1, (20, 4))), {}).float()
    with torch.no_grad():
        for constant in net.constants:
            constant.fill_(1)
        net.constants[net.names.index("v")].fill_(np.nextafter(np.float32(0.5), np.float32(0)) * 2.0 ** -net.integer["v"].format.frac)
    assert (net.graph().consts["v"] == 0).all() and (net(torch.zeros(1, 4, dtype=torch.float32)) == 0).all()


def test_learning_on_wins_back_what_few_bits_lost() -> None:
    random = np.random.default_rng(1)
    images = random.uniform(-1, 1, (2_000, 16)).astype(np.float32)
    graph = written(LAYERS, h=16, i=24, k=4)
    labels = interpret(graph, images).argmax(1)
    integer = quantize(graph, images[:200], weight_bits=3)

    def right(judged: Graph) -> float:
        return (interpret(judged, integers(images, judged.input.format)).argmax(1) == labels).mean()

    believed = model(Rounded(integer, graph.consts), log_uniform(), categorical, len(images))
    learned = fit(believed, point(believed), Batches(images, labels, 100), (images, labels), lr=1e-2, epochs=8, weight=0)
    better = verify(learned.net.graph())
    assert right(better) > right(integer) + 0.03 and better.ops == integer.ops
    assert learned.history[-1].accuracy == pytest.approx(right(better), abs=1e-3)


def test_what_is_no_integer_graph_is_refused() -> None:
    graph = written(LAYERS, h=4, i=3, k=2)
    with pytest.raises(ValueError, match="computes in floats, expected integers"):
        Rounded(graph, graph.consts)
    integer = quantize(graph, np.random.default_rng(0).uniform(-1, 1, (20, 4)))
    with pytest.raises(ValueError, match=r"constants \['w'\] have arrays of another shape: give those of the float graph"):
        Rounded(integer, {**graph.consts, "w": np.zeros((1, 1))})


def test_what_no_convolution_does_is_refused() -> None:
    size, window = {"c": 2, "h": 4, "kh": 3, "y": 2}, (Window("h", "y", "kh"),)
    x, k = Op("x", "INPUT", ("n", "c", "h"), format=Fixed(8, 0)), Op("k", "CONST", ("c", "kh"), format=Fixed(8, 0))
    y = Op("y", "CONTRACT", ("n", "y", "kh"), ("x", "k"), Fixed(32, 0), window=window)
    with pytest.raises(ValueError, match="op 'y' reads through its windows what no convolution .*: give a graph that `trace` has made"):
        Rounded(verify(Graph((x, k, y), size, {"k": np.ones((2, 3), np.int64)})), {})(torch.zeros(1, 2, 4))
