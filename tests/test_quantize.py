"""Quantising: scales that change the scores least, roundings that only drop bits, scores that stay near the float ones."""

import numpy as np
import pytest
from graphs import features, float_graphs, written
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.algebra.fixed import Fixed, dequantize
from bayestt.algebra.fixed import quantize as integers
from bayestt.algebra.formats import initial, tt_matrix
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, verify
from bayestt.ir.interpret import interpret
from bayestt.ir.quantize import quantize

LAYER = "x INPUT n h\nw CONST h i\ny CONTRACT n i < x w\n"


def scores(graph: Graph, x: np.ndarray) -> np.ndarray:
    """What an integer graph's scores of float images stand for."""
    return dequantize(interpret(graph, integers(x, graph.input.format)), graph.output.format)


def tensorized_net(seed: int) -> Graph:
    """Two TT-matrix layers, 64 to 36 to 10, with biases and a rectifier."""
    forms = {"a": tt_matrix((6, 6), (8, 8), 6), "b": tt_matrix((2, 5), (6, 6), 6)}
    text, size, consts, source = "x INPUT n h\n", {"h": 64}, {}, "x"
    for name, form in forms.items():
        size |= {f"{name}.{axis}": extent for axis, extent in form.size.items()}
        cores = dict(zip((f"{name}.core{k}" for k in range(2)), initial(form, np.prod(form.shape) ** -0.25, seed), strict=True))
        rows, cols = (" ".join(f"{name}.{axis}" for axis in axes) for axes in (form.rows, form.cols))
        text += f"{name}.x VIEW n {cols} < {source}\n"
        for key, axes in zip(cores, form.cores, strict=True):
            text += f"{key} CONST {' '.join(f'{name}.{axis}' for axis in axes)}\n"
        text += f"{name}.y CONTRACT n {rows} < {name}.x {' '.join(cores)}\n{name}.bias CONST {rows}\n"
        text += f"{name}.z ADD n {rows} < {name}.y {name}.bias\n" + (f"{name}.relu RELU n {rows} < {name}.z\n" if name == "a" else "")
        consts, source = consts | cores, "a.relu"
    graph = written(text, **size)
    return verify(Graph(graph.ops, graph.size, {**{key: 0.1 * const for key, const in graph.consts.items()}, **consts}))


def test_the_integer_net_decides_as_the_float_net_does() -> None:
    graph, random = fold(tensorized_net(0)), np.random.default_rng(1)
    x = random.normal(size=(1000, 64))
    expected = interpret(graph, x)
    errors = []
    for weight_bits in (2, 4, 6, 8):
        integer = quantize(graph, random.normal(size=(1000, 64)), weight_bits)
        errors.append(np.sqrt(np.mean(np.square(scores(integer, x) - expected))) / expected.std())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.05
    assert np.mean(scores(integer, x).argmax(1) == expected.argmax(1)) >= 0.95


@settings(max_examples=60, deadline=None)
@given(graph=float_graphs(windows=True), weight_bits=st.integers(2, 8), activation_bits=st.integers(2, 8))
def test_roundings_drop_bits_and_widths_are_as_asked(graph: Graph, weight_bits: int, activation_bits: int) -> None:
    calibration = np.random.default_rng(0).normal(size=(20, features(graph)))
    integer = quantize(fold(graph), calibration, weight_bits, activation_bits)
    biases = {name for op in integer.ops if op.kind == "ADD" for name in op.args}
    for op in integer.ops:
        expected = {"INPUT": activation_bits, "ROUND": activation_bits, "CONST": 32 if op.name in biases else weight_bits}
        assert op.format.bits == expected.get(op.kind, op.format.bits)
        assert 0 <= op.shift <= (31 if op.kind == "ROUND" else 0)
    assert {op.format.bits for op in integer.ops if op.kind in ("CONTRACT", "ADD")} <= {32}


TAILS = {
    "normal": lambda random: random.normal(size=(300, 1)),
    "heavy": lambda random: random.standard_cauchy(size=(300, 1)),
    "a power of two": lambda random: np.array([[1.0], [-1.0], [0.5]]),
    "zeros": lambda random: np.zeros((5, 1)),
}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("draw", TAILS.values(), ids=TAILS)
def test_a_scale_is_the_one_that_changes_the_scores_least(draw: object, bits: int) -> None:
    values = draw(np.random.default_rng(0))
    graph = verify(written("x INPUT n h\ny RELU n h < x", h=1))

    def error(fixed: Fixed) -> float:
        return float(np.mean(np.square(interpret(graph, values) - interpret(graph, dequantize(integers(values, fixed), fixed)))))

    chosen = quantize(graph, values, 8, bits).input.format
    coarsest = bits - 1 - int(np.ceil(np.log2(np.abs(values).max() or 1)))
    assert error(chosen) == min(error(Fixed(bits, coarsest + finer)) for finer in range(4))


def test_every_feature_is_looked_at_when_a_scale_is_chosen() -> None:
    calibration = np.random.default_rng(0).normal(size=(100_000, 2)) * [0.01, 100]
    graph = verify(written(LAYER, h=2, i=1))
    assert quantize(graph, calibration).input.format.frac < 1
    weights = verify(Graph(graph.ops, {"h": 100_000, "i": 2}, {"w": calibration}))
    assert quantize(weights, np.ones((1, 100_000)))["w"].format.frac < 2


def test_a_bias_far_above_its_weights_is_kept() -> None:
    graph = written(LAYER + "b CONST i\nz ADD n i < y b", h=4, i=3)
    graph = verify(Graph(graph.ops, graph.size, {"w": 1e-6 * graph.consts["w"], "b": np.array([1.0, -2.0, 3.0])}))
    x = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_allclose(scores(quantize(graph, x), x), interpret(graph, x), atol=1e-3)


@pytest.mark.parametrize(
    "sums",
    [
        "d ADD n h < a b\ne ADD n h < b c\nf ADD n h < d e",
        "u VIEW n k < x\nv CONST k\ns CONTRACT n k < u v\nt ADD n k < s u\nf VIEW n h < t",
    ],
    ids=["chained", "of a view"],
)
def test_operands_of_a_sum_are_close_enough_for_one_weight_to_align(sums: str) -> None:
    text = "x INPUT n h\n" + "".join(f"w{a} CONST h\n{a} CONTRACT n h < x w{a}\n" for a in "abc" if "VIEW" not in sums) + sums
    graph = written(text, h=4, k=4)
    scale = {"wa": 1e-5, "wb": 1e-3, "wc": 1e3, "v": 1e-5}
    graph = Graph(graph.ops, graph.size, {name: np.full(4, scale[name]) for name in graph.consts})
    integer = quantize(graph, np.random.default_rng(0).normal(size=(9, 4)))
    for fracs in ([integer[name].format.frac for name in op.args] for op in integer.ops if op.kind == "ADD"):
        assert max(fracs) - min(fracs) <= 6


@pytest.mark.parametrize("order", ["p q", "q p"])
def test_a_constant_may_serve_several_ops(order: str) -> None:
    text = LAYER + "b CONST i\np ADD n i < y b\nv CONST i\nq CONTRACT n i < p v\ns ADD n i < q b\nt CONTRACT n i < s b"
    graph = written(text, h=4, i=3)
    scale = {"p q": 1e-3, "q p": 1e3}[order]
    graph = verify(Graph(graph.ops, graph.size, {**graph.consts, "v": scale * graph.consts["v"]}))
    x = np.random.default_rng(0).normal(size=(50, 4))
    expected = interpret(graph, x)
    assert np.abs(scores(quantize(fold(graph), x), x) - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(1, 8), (9, 8), (8, 0), (8, 16), (-4, 8)])
def test_bits_out_of_range_are_refused(weight_bits: int, activation_bits: int) -> None:
    wrong = f"{activation_bits} activation" if weight_bits == 8 else f"{weight_bits} weight"
    with pytest.raises(ValueError, match=f"{wrong} bits: choose 2 to 8"):
        quantize(verify(written(LAYER, h=2, i=1)), np.ones((3, 2)), weight_bits, activation_bits)


def test_what_cannot_be_quantized_is_refused() -> None:
    graph = verify(written(LAYER, h=2, i=1))
    with pytest.raises(ValueError, match="quantized already"):
        quantize(quantize(graph, np.ones((3, 2))), np.ones((3, 2)))
    several = verify(written("x INPUT n h\nw CONST h\nv CONST h\ny CONTRACT n < x w v", h=2))
    with pytest.raises(ValueError, match="fold the float graph first"):
        quantize(several, np.ones((3, 2)))
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize(graph, np.full((3, 2), np.nan))
