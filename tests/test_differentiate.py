"""The training step of a network: torch's gradients, by the multiplications that were promised, and nothing as large as a dense weight."""

from math import prod

import numpy as np
import pytest
import torch
from graphs import features, float_graphs, written
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from bayestt.algebra.adjoint import adjoint
from bayestt.algebra.einsum import numbered
from bayestt.algebra.formats import FORMATS, Form
from bayestt.artifact import load, save
from bayestt.ir.differentiate import differentiate
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, verify
from bayestt.ir.interpret import BATCH, gradients, interpret
from bayestt.ir.lower import lower
from bayestt.ir.nest import Nest
from bayestt.ir.quantize import quantize
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize
from bayestt.nets.trace import trace
from bayestt.report.training_step import multiplications


def assert_close(found: np.ndarray, expected: np.ndarray, terms: float = 0) -> None:
    """Relative error below 1e-10: of the largest entry, or of the terms that it sums where they may cancel."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max(initial=0) <= 1e-10 * max(np.abs(expected).max(initial=0), terms)


def by_torch(graph: Graph, x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores and gradients of a graph's constants by torch's autograd."""
    values = {name: torch.tensor(const, requires_grad=True) for name, const in graph.consts.items()}
    for op in graph.ops:
        axes = [graph[name].axes for name in op.args]
        match op.kind:
            case "INPUT":
                values[op.name] = torch.tensor(x).reshape(len(x), *graph.shape(op.axes[1:]))
            case "CONTRACT":
                values[op.name] = torch.einsum(*numbered([values[name] for name in op.args], axes, op.axes))
            case "RELU":
                values[op.name] = torch.einsum(*numbered([values[op.args[0]]], axes, op.axes)).relu()
            case "VIEW":
                values[op.name] = values[op.args[0]].reshape(len(x), *graph.shape(op.axes[1:]))
            case "ADD":
                ones = torch.ones([len(x), *graph.shape(op.axes[1:])], dtype=torch.float64)
                terms = [numbered([values[name], ones], [names, op.axes], op.axes) for name, names in zip(op.args, axes, strict=True)]
                values[op.name] = sum(torch.einsum(*term) for term in terms)
    scores = values[graph.output.name].reshape(len(x), -1)
    functional.cross_entropy(scores, torch.tensor(labels), reduction="sum").backward()
    return scores.detach().numpy(), {name: values[name].grad.numpy() for name in graph.consts if values[name].grad is not None}


@settings(max_examples=150, deadline=None)
@given(graph=float_graphs(), images=st.integers(1, 4), seed=st.integers(0, 99))
def test_gradients_of_any_graph_are_torchs(graph: Graph, images: int, seed: int) -> None:
    try:
        step = differentiate(graph, images)
    except ValueError as fault:
        assume("are in no other operand" not in str(fault))
        raise
    random = np.random.default_rng(seed)
    x, labels = random.normal(size=(images, features(graph))), random.integers(0, prod(graph.shape(graph.output.axes[1:])), images)
    assume(graph.consts)
    expected_scores, expected = by_torch(graph, x, labels)
    scores, found = gradients(step, x, labels)
    assert_close(scores, expected_scores)
    assert {*found} == {*expected}
    for name, gradient in expected.items():
        assert_close(found[name], gradient, terms=1)


def net(form: str, rank: int = 2) -> nn.Module:
    """A net of 24-12-6 with both layers in a format, its weights in float64; dense where the format is none."""
    made = fc([24, 12, 6])
    if form != "dense":
        made = tensorize(made, {"fc1": Form(form, rank, rows=[3, 2, 2], cols=[4, 3, 2]), "fc2": Form(form, rank, rows=[3, 2], cols=[4, 3])})
    return made.double()


@pytest.mark.parametrize("form", [*FORMATS, "dense"])
@pytest.mark.parametrize("images", [1, 7])
@pytest.mark.parametrize("dense", [False, True])
def test_gradients_of_a_net_are_torchs(form: str, images: int, dense: bool) -> None:
    torch.manual_seed(0)
    made, random = net(form), np.random.default_rng(0)
    x, labels = random.normal(size=(images, 24)), random.integers(0, 6, images)
    functional.cross_entropy(made(torch.tensor(x)), torch.tensor(labels), reduction="sum").backward()
    scores, found = gradients(differentiate(trace(made, torch.zeros(1, 24)), images, dense), x, labels)
    assert_close(scores, made(torch.tensor(x)).detach().numpy())
    expected = [parameter.grad.numpy() for parameter in made.parameters()]
    assert len(found) == len(expected)
    assert sorted(gradient.size for gradient in found.values()) == sorted(gradient.size for gradient in expected)
    for name, parameter in ((name.replace("weight", "core0").replace("cores.", "core"), each) for name, each in made.named_parameters()):
        assert_close(found[name].ravel(), parameter.grad.numpy().ravel())


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    graph, random = trace(net("tt_matrix"), torch.zeros(1, 24)), np.random.default_rng(0)
    x, labels = random.normal(size=(5, 24)), random.integers(0, 6, 5)
    _, found = gradients(differentiate(graph), x, labels)

    def loss(name: str, change: np.ndarray) -> float:
        scores = interpret(Graph(graph.ops, graph.size, {**graph.consts, name: graph.consts[name] + change}), x)
        return float((np.log(np.exp(scores).sum(1)) - scores[range(5), labels]).sum())

    for name, const in graph.consts.items():
        direction = random.normal(size=const.shape)
        slope = (loss(name, 1e-5 * direction) - loss(name, -1e-5 * direction)) / 2e-5
        assert slope == pytest.approx(float((found[name] * direction).sum()), rel=1e-6, abs=1e-8)


PUBLISHED = ([896, 512, 16], {"fc1": ([4, 4, 2, 16], [7, 4, 2, 16]), "fc2": ([1, 16], [32, 16])})
OURS = ([784, 512, 10], {"fc1": ([4, 4, 8, 4], [4, 7, 4, 7]), "fc2": ([2, 5], [16, 32])})


def traced(sizes: list[int], modes: dict[str, tuple[list[int], list[int]]], rank: int) -> Graph:
    """A net of TT-matrices as it is traced."""
    forms = {name: Form("tt_matrix", rank, rows=rows, cols=cols) for name, (rows, cols) in modes.items()}
    return trace(tensorize(fc(sizes), forms), torch.zeros(1, sizes[0]))


@pytest.mark.parametrize("net", [PUBLISHED, OURS], ids=["896-512-16", "784-512-10"])
@pytest.mark.parametrize("rank", [2, 8, 16])
@pytest.mark.parametrize("images", [1, 100])
def test_a_step_multiplies_as_often_as_was_promised_and_makes_no_dense_weight(net: tuple, rank: int, images: int) -> None:
    graph = traced(*net, rank)
    step, promised = differentiate(graph, images), 0
    for op in (op for op in graph.ops if op.kind == "CONTRACT"):
        axes = [graph[name].axes for name in op.args]
        first = "fc1" in op.name
        apart = range(1, len(axes))
        promised += adjoint(axes, op.axes, {**graph.size, "n": images}, [*apart] if first else range(len(axes)), apart).cost
    assert multiplications(step, images) == promised
    assert multiplications(differentiate(graph, images, dense=True), images) <= promised
    dense = net[0][0] * net[0][1]
    assert max(prod(step.shape(tuple(axis for axis in op.axes if axis != "n"))) for op in step.ops) < dense / 10


def test_the_published_net_takes_fewer_multiplications_than_forward_and_back_separately() -> None:
    graph = traced(*PUBLISHED, 16)
    assert multiplications(differentiate(graph), 1) < 3 * multiplications(fold(graph), 1)
    assert multiplications(differentiate(graph), 1) == 2_019_328
    assert multiplications(differentiate(graph, 100), 100) == 129_335_296


def test_a_cost_decides_the_order_and_not_the_gradients() -> None:
    graph, random = trace(net("tt_matrix"), torch.zeros(1, 24)), np.random.default_rng(0)
    x, labels = random.normal(size=(3, 24)), random.integers(0, 6, 3)
    least, most = (differentiate(graph, cost=lambda left, right, made, sign=sign: sign * len({*left, *right})) for sign in (1, -1))
    assert least.ops != most.ops
    for name, gradient in gradients(least, x, labels)[1].items():
        assert_close(gradients(most, x, labels)[1][name], gradient)


def test_gradients_of_many_batches_are_summed() -> None:
    step = differentiate(verify(written("x INPUT n h\nw CONST h i\ny CONTRACT n i < x w", h=3, i=2)))
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(BATCH + 1, 3)), random.integers(0, 2, BATCH + 1)
    scores, found = gradients(step, x, labels)
    assert scores.shape == (BATCH + 1, 2)
    assert_close(found["w"], sum(gradients(step, x[k : k + 1], labels[k : k + 1])[1]["w"] for k in range(BATCH + 1)))


def test_what_the_scores_do_not_depend_on_has_no_gradient() -> None:
    graph = verify(written("x INPUT n h\nv CONST h\nz ADD n h < x v\nw CONST h i\ny CONTRACT n i < x w", h=3, i=2))
    assert {**differentiate(graph).gradients} == {"w": "w.gradient"}


def test_a_step_is_saved_and_loaded(tmp_path) -> None:
    step = differentiate(trace(net("cp"), torch.zeros(1, 24)))
    save(step, tmp_path / "step.graph")
    found = load(tmp_path / "step.graph")
    assert (found.ops, {**found.gradients}) == (step.ops, {**step.gradients})


LAYER = "x INPUT n h\nw CONST h i\nq CONTRACT n i < x w\n"
REFUSED = {
    "a largest": (LAYER + "y MAX n < q", r"op 'y' \(MAX\) has no backward yet: differentiate a graph of INPUT, CONST"),
    "a convolution": ("x INPUT n h\nw CONST k\ny CONTRACT n o < x w | h=o+k", r"'y' \(CONTRACT through windows\) has no backward yet"),
    "a mean": (LAYER + "y CONTRACT n < q", r"'y' \(CONTRACT\) has no backward yet: axes \['i'\] of operand 0"),
    "a quantized graph": ("x INPUT n h @ 8/3\nw CONST h i @ 8/4\ny CONTRACT n i < x w @ 32/7", "integer graph has no gradients"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_backward_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        differentiate(verify(written(text, h=4, i=3, k=2, o=3)))


STEP = differentiate(verify(written(LAYER, h=4, i=3)))


@pytest.mark.parametrize(
    ("verb", "reader"),
    {
        "fold": fold,
        "quantize": lambda step: quantize(step, np.zeros((1, 4))),
        "lower": lambda step: lower(step, Nest((), (), (), 0, 0, 0, 0)),
        "interpret": lambda step: interpret(step, np.zeros((1, 4))),
        "differentiate": differentiate,
    }.items(),
)
def test_who_takes_no_training_step_says_so(verb: str, reader) -> None:
    with pytest.raises(ValueError, match=f"{verb} takes no training step .LABELS ERROR MASK.: give the graph that was differentiated"):
        reader(STEP)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0, 1, 2]), r"labels of shape \(3,\) .int64. for 2 images: one integer each, from 0 to 2"),
        (np.array([0, 3]), "from 0 to 2"),
        (np.array([-1, 0]), "from 0 to 2"),
        (np.array([0.0, 1.0]), "float64"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gradients(STEP, np.zeros((2, 4)), labels)


def test_a_graph_that_is_no_training_step_has_no_gradients() -> None:
    with pytest.raises(ValueError, match="no training step: differentiate it first"):
        gradients(verify(written(LAYER, h=4, i=3)), np.zeros((2, 4)), np.array([0, 1]))
