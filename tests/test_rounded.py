"""An integer graph as a network: the very same scores, gradients past the roundings, and better weights of few bits."""

import numpy as np
import pytest
import torch
from graphs import features, float_graphs, written
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.algebra.fixed import Fixed, dequantize
from bayestt.algebra.fixed import quantize as integers
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

LAYERS = "x INPUT n h\nw CONST h i\ny CONTRACT n i < x w\nb CONST i\nz ADD n i < y b\nr RELU n i < z\nv CONST i k\ns CONTRACT n k < r v"


def as_net(graph: Graph) -> Rounded:
    """The network of an integer graph, its constants what their integers stand for."""
    return Rounded(graph, {name: dequantize(const, graph[name].format) for name, const in graph.consts.items()}).double()


def agree(graph: Graph, x: np.ndarray) -> bool:
    """Whether the network's scores of integer images are exactly the graph's."""
    images = torch.tensor(dequantize(x, graph.input.format))
    return (as_net(graph)(images).detach().numpy() == dequantize(interpret(graph, x), graph.output.format)).all()


@settings(max_examples=60)
@given(graph=float_graphs(), seed=st.integers(0, 99), weight_bits=st.sampled_from([2, 4, 8]))
def test_it_is_the_integer_graph(graph: Graph, seed: int, weight_bits: int) -> None:
    random = np.random.default_rng(seed)
    integer = quantize(fold(graph), random.uniform(-1, 1, (6, features(graph))), weight_bits)
    low, high = integer.input.format.low, integer.input.format.high
    assert agree(integer, random.integers(low, high + 1, (4, features(graph))))


axes = st.tuples(*(st.integers(low, high) for low, high in ((5, 9), (1, 3), (1, 2), (1, 2), (0, 1))))
"""Extent, taps, stride, dilation, padding of an axis."""
KINDS = ["kernel", "taps alone", "no constant", "MAX"]


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
    kernel = Op("k", "CONST", ("o", *taps, "c") if kind == "kernel" else taps, format=Fixed(8, 5))
    consts = {"k": random.integers(-128, 128, [size[axis] for axis in kernel.axes])} if kind in ("kernel", "taps alone") else {}
    made = ("n", *outs, "o") if kind == "kernel" else ("n", "c", *outs)
    format = Fixed(8, 7) if kind == "MAX" else Fixed(32, 12 if consts else 7)
    y = Op("y", "MAX" if kind == "MAX" else "CONTRACT", made, ("x", *consts), format, window=tuple(windows))
    graph = verify(Graph((x, *([kernel] if consts else []), y), size, consts))
    assert agree(graph, random.integers(-128, 128, (3, features(graph))))


def test_gradients_pass_a_rounding_and_stop_where_it_saturates() -> None:
    graph = quantize(written(LAYERS, h=4, i=3, k=2), np.random.default_rng(0).uniform(-1, 1, (20, 4)))
    net = as_net(graph)
    weight = net.constants[net.names.index("v")]
    with torch.no_grad():
        weight[0] = 2 * dequantize(np.array(graph["v"].format.high), graph["v"].format)
    net(torch.tensor(np.random.default_rng(1).uniform(-1, 1, (64, 4)))).sum().backward()
    assert (weight.grad[0] == 0).all() and (weight.grad[1:] != 0).any()


def test_its_graph_has_the_constants_as_they_are_now() -> None:
    graph = quantize(written(LAYERS, h=4, i=3, k=2), np.random.default_rng(0).uniform(-1, 1, (20, 4)))
    net = as_net(graph)
    assert all((net.graph().consts[name] == const).all() for name, const in graph.consts.items())
    step = 2.0 ** -graph["w"].format.frac
    with torch.no_grad():
        net.constants[net.names.index("w")].sub_(step)
    assert (net.graph().consts["w"] == np.maximum(graph.consts["w"] - 1, graph["w"].format.low)).all()


@settings(max_examples=20)
@given(graph=float_graphs(), seed=st.integers(0, 99))
def test_before_learning_on_it_gives_back_the_integer_graph(graph: Graph, seed: int) -> None:
    graph = fold(graph)
    integer = quantize(graph, np.random.default_rng(seed).uniform(-1, 1, (6, features(graph))), weight_bits=3)
    # As exact as the graphs that are quantized.
    torch.set_default_dtype(torch.float64)
    try:
        again = Rounded(integer, {name: graph.consts[name] for name in integer.consts}).graph()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all((again.consts[name] == const).all() for name, const in integer.consts.items())


def test_the_number_just_below_a_half_is_rounded_down_in_float32() -> None:
    integer = quantize(written(LAYERS, h=4, i=3, k=2), np.random.default_rng(0).uniform(-1, 1, (20, 4)))
    below = np.full((3, 2), np.nextafter(np.float32(0.5), np.float32(0))) * 2.0 ** -integer["v"].format.frac
    net = Rounded(integer, {**{name: np.zeros(const.shape) for name, const in integer.consts.items()}, "v": below})
    assert (net.graph().consts["v"] == 0).all()
    with torch.no_grad():
        net.constants[net.names.index("b")].fill_(1)
    assert (net(torch.zeros(1, 4)) == 0).all()


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
    with pytest.raises(ValueError, match=r"constants \['w'\] have no array of their shape"):
        Rounded(integer, {**graph.consts, "w": np.zeros((1, 1))})


def test_what_no_convolution_does_is_refused() -> None:
    size, window = {"c": 2, "h": 4, "kh": 3, "y": 2}, (Window("h", "y", "kh"),)
    x, k = Op("x", "INPUT", ("n", "c", "h"), format=Fixed(8, 0)), Op("k", "CONST", ("c", "kh"), format=Fixed(8, 0))
    y = Op("y", "CONTRACT", ("n", "c", "y"), ("x", "k"), Fixed(32, 0), window=window)
    with pytest.raises(ValueError, match="op 'y' reads through its windows what no convolution"):
        as_net(verify(Graph((x, k, y), size, {"k": np.ones((2, 3), np.int64)})))(torch.zeros(1, 2, 4, dtype=torch.float64))
