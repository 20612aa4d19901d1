"""What a legal graph is: every fault that verify names, and the ones it must not find."""

from dataclasses import replace

import numpy as np
import pytest
from graphs import float_graphs, written
from hypothesis import given, settings

from bayestt.ir.graph import Graph, biases, completion, verify
from bayestt.ir.interpret import interpret

SIZE = {"h": 4, "i": 3, "k": 3, "a": 2, "b": 2, "empty": 0}
IMAGE, WEIGHT = "x INPUT n h\n", "w CONST h i\n"
INTEGER = "x INPUT n h @ 8/3\nw CONST h i @ 8/4\n"
SEEN = IMAGE + "y CONTRACT n i < x | {}"
FAULTS = {
    "nothing": ("", "starts with its one INPUT"),
    "no image": ("w CONST h\ny RELU h < w", "starts with its one INPUT"),
    "two images": (IMAGE + "z INPUT n h\ny ADD n h < x z", "starts with its one INPUT"),
    "only an image": (IMAGE, "ends with an operation on its input"),
    "a constant at the end": (IMAGE + "y RELU n h < x\nw CONST h", "ends with an operation on its input"),
    "a last op of constants": (IMAGE + WEIGHT + "y CONTRACT i < w", "ends with an operation on its input"),
    "a rectified constant": (IMAGE + "w CONST h\nr RELU h < w\ny CONTRACT n < x r", "'r' .*constant"),
    "a constant seen otherwise": (IMAGE + "w CONST a b\nr VIEW h < w\ny CONTRACT n < x r", "'r' .*constant"),
    "a sum of constants": (IMAGE + "w CONST h\nr ADD h < w w\ny CONTRACT n < x r", "'r' .*constant"),
    "integer constants multiplied": (
        INTEGER + "c CONTRACT h < w @ 16/4\ny CONTRACT n < x c @ 32/7",
        "'c' .*constant",
    ),
    "an unknown kind": (IMAGE + "y SOFTMAX n h < x", r"'y' \(SOFTMAX n h\): unknown kind, expected one of INPUT CONST CONTRACT"),
    "a name taken": (IMAGE + "y RELU n h < x\ny RELU n h < x", "'y' .*taken"),
    "a later operand": (IMAGE + "y RELU n h < z\nz RELU n h < x", r"\['z'\], which no earlier op makes"),
    "no operand": (IMAGE + "y RELU n h <", "0 operands, expected 1 to 1"),
    "a sum of one": (IMAGE + "y ADD n h < x", "1 operands, expected 2 to 2"),
    "a sum of three": (IMAGE + "y ADD n h < x x x", "3 operands, expected 2 to 2"),
    "an image of an image": (IMAGE.replace("h", "h < x") + "y RELU n h < x", "no earlier op makes"),
    "an axis twice": (IMAGE + "w CONST h i i\ny CONTRACT n i < x w", "'w' .*names an axis twice"),
    "an axis without size": (IMAGE + "w CONST h q\ny CONTRACT n q < x w", r"'w' .*\['q'\] have no size"),
    "an axis of no elements": (IMAGE + "w CONST h empty\ny CONTRACT n empty < x w", r"'w' .*\['empty'\] have no size"),
    "an integer op without format": (INTEGER + "y CONTRACT n i < x w", "no number format in an integer graph"),
    "a float op with format": (IMAGE + "y RELU n h < x @ 8/3", "a number format in a float graph"),
    "a constant batch": (IMAGE + "w CONST n h\ny ADD n h < x w", "a constant has no batch axis"),
    "a lost batch": (IMAGE + "y RELU h < x\nz RELU n h < x", "disagree on the batch axis"),
    "a batch of constants": (IMAGE + WEIGHT + "y CONTRACT n i < w", "disagree on the batch axis"),
    "a batch that comes last": (IMAGE + WEIGHT + "y CONTRACT i n < x w", "'y' .*batch axis n comes first"),
    "an image without batch": ("x INPUT h\ny RELU n h < x", "'x' .*batch axis n comes first"),
    "activations multiplied": (IMAGE + "y RELU n h < x\nz CONTRACT n < x y", r"multiplies activations \['x', 'y'\]"),
    "a new axis": (IMAGE + WEIGHT + "y CONTRACT n i a < x w", r"axes \['a'\] are in no operand"),
    "a bias with more axes": (IMAGE + WEIGHT + "y ADD n h < x w", r"'w' has axes \['i'\] that the result lacks"),
    "a sum that repeats an image": (IMAGE + WEIGHT + "y ADD n h i < x w", r"'x' lacks axes \['i'\]"),
    "a rectifier of other axes": (IMAGE + "y RELU n i < x", "not those of 'x': n h"),
    "a rounding of other axes": ("x INPUT n h @ 8/3\ny ROUND n i < x @ 8/3", "not those of 'x': n h"),
    "a view of known axes": (IMAGE + "y VIEW n h i < x", r"views under axes \['h'\] that its operand has already"),
    "a view of more": (IMAGE + "y VIEW n i < x", "3 elements cannot view the 4 of 'x'"),
    "two constants in integers": (INTEGER + "v CONST h @ 8/0\ny CONTRACT n i < x w v @ 32/7", "has 2 constants.*fold the float"),
    "a product's fraction": (INTEGER + "y CONTRACT n i < x w @ 32/6", r"fractions \[3, 4\] has 7 fractional bits, not 6"),
    "a sum's fraction": (INTEGER + "b CONST h @ 8/5\ny ADD n h < x b @ 32/3", r"fractions \[3, 5\] align to 5 fractional bits, not 3"),
    "a rectifier's format": ("x INPUT n h @ 8/3\ny RELU n h < x @ 8/4", "format is not that of 'x'"),
    "a view's format": ("x INPUT n h @ 8/3\ny VIEW n a b < x @ 9/3", "format is not that of 'x'"),
    "a shift that moves elsewhere": ("x INPUT n h @ 8/3\ny ROUND n h < x @ 8/3 >> 1", "takes 3 fractional bits to 2, not 3"),
    "a shift to the left": ("x INPUT n h @ 8/3\ny ROUND n h < x @ 8/4 >> -1", "shifts are 0 to 31"),
    "a shift out of the register": ("x INPUT n h @ 8/3\ny ROUND n h < x @ 8/-29 >> 32", "shifts are 0 to 31"),
    "a wide sum kept": (INTEGER + "y CONTRACT n i < x w @ 32/7\nz VIEW n k < y @ 32/7", r"'y' keeps 32 bits for \['z'\]: ROUND it to 16"),
    "a wide sum read twice": (
        INTEGER + "y CONTRACT n i < x w @ 32/7\nz RELU n i < y @ 32/7\ns ADD n i < y z @ 32/7",
        r"'y' keeps 32 bits for \['z', 's'\]",
    ),
    "a wide weight": (INTEGER.replace("w CONST h i @ 8/4", "w CONST h i @ 32/4") + "y CONTRACT n i < x w @ 32/7", "32.*16"),
    "a sum in too narrow a register": ("x INPUT n h @ 8/3\ny ADD n h < x x @ 8/3", "'y' .*8 bits"),
    "a window that names an axis twice": (SEEN.format("h=i+i"), "reads 'x' as n i i: name every axis once"),
    "a window over an axis that is not there": (SEEN.format("k=i+a"), "has a window over 'k', which is no axis of an image in 'x'"),
    "a window over the batch": (SEEN.format("n=i+a"), "has a window over 'n'"),
    "a window without size": (SEEN.format("h=i+q"), r"axes \['q'\] of its window have no size"),
    "two windows over an axis": (SEEN.format("h=i+a h=k+b"), r"has 2 windows over \['h'\]: one for each axis"),
    "no stride": (SEEN.format("h=i*0+a"), "stride and dilation are at least 1"),
    "no dilation": (SEEN.format("h=i+a*0"), "stride and dilation are at least 1"),
    "an offset": (SEEN.format("h=i+a--1"), "padding at least 0"),
    "a window that is all padding": (SEEN.format("h=i+a-2"), "finds nothing at i=0: less padding or fewer i"),
    "a window past the end": (SEEN.format("h=i*2+a"), "finds nothing at i=2"),
    "a constant over what a window reads": (
        IMAGE + "w CONST h\ny CONTRACT n i < x w | h=i+a",
        r"'w' has axes \['h'\], which are read through a window",
    ),
    "a rectifier with a window": (IMAGE + "y RELU n i < x | h=i+a", "has a window: only CONTRACT and MAX"),
    "a constant with a window": (IMAGE + "w CONST a | h=i+a\ny CONTRACT n i < x w | h=i+a", "'w' .*has a window"),
    "a largest that keeps its taps": (IMAGE + "y MAX n i a < x | h=i+a", r"keeps the taps \['a'\] of its windows"),
    "a largest of a new axis": (IMAGE + "y MAX n i < x", r"axes \['i'\] are in no operand"),
    "a largest of two": (IMAGE + "y MAX n h < x x", "2 operands, expected 1 to 1"),
    "a largest's format": ("x INPUT n h @ 8/3\ny MAX n < x @ 8/4", "format is not that of 'x'"),
    "labels of inference": (IMAGE + "t LABELS n\ny RELU n h < x", "'t' .*belongs to a training step, which has an ERROR"),
    "a mask of inference": (IMAGE + "y MASK n h < x x", "'y' .*belongs to a training step"),
    "labels with axes": (IMAGE + "t LABELS n h\ne ERROR n h < x t", "'t' .*labels have the batch axis n alone"),
    "an error without labels": (
        IMAGE + "r RELU n h < x\ne ERROR n h < x r",
        r"'e' .*'r' \(RELU\), expected scores of its own axes, and LABELS",
    ),
    "an error of other axes": (IMAGE + "t LABELS n\ne ERROR n i < x t", r"'e' .*reads 'x' \(n h\)"),
    "two errors": (IMAGE + "t LABELS n\ne ERROR n h < x t\nf ERROR n h < x t", r"\['e', 'f'\] are all an ERROR"),
    "multiplied labels": (IMAGE + "t LABELS n\ne ERROR n h < x t\ny CONTRACT n h < x t", "'y' .*reads the labels: ERROR alone does"),
    "a mask of other axes": (IMAGE + "t LABELS n\ne ERROR n h < x t\ny CONTRACT n < x e\nz MASK n h < e y", r"not those of \['y'\]"),
    "an integer training step": (
        "x INPUT n h @ 8/3\nt LABELS n @ 8/0\ne ERROR n h < x t @ 8/3",
        "a training step computes in floats",
    ),
    "operands too far apart to align": ("x INPUT n h @ 8/3\nb CONST h @ 8/60\ny ADD n h < x b @ 32/60", "'y' .*57"),
}


@pytest.mark.parametrize(("text", "words"), FAULTS.values(), ids=FAULTS)
def test_an_illegal_graph_is_refused_by_name_and_fault(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        verify(written(text, **SIZE))


LAYER = written(INTEGER + "y CONTRACT n i < x w @ 32/7", **SIZE)


@pytest.mark.parametrize(
    ("consts", "words"),
    [
        ({}, "'w' .*has no array"),
        ({"w": np.zeros((3, 4), np.int64)}, r"'w' .*shape \(3, 4\) and its axes have \(4, 3\)"),
        ({"w": np.full((4, 3), np.nan)}, "NaN or infinite"),
        ({"w": np.full((4, 3), -np.inf)}, "NaN or infinite"),
        ({"w": np.zeros((4, 3))}, "holds float64, expected integers"),
        ({"w": np.full((4, 3), 128)}, "runs from 128 to 128 and 8 bits from -128 to 127"),
        ({"w": np.full((4, 3), -129)}, "runs from -129 to -129"),
        ({"w": np.zeros((4, 3), np.int64), "v": np.zeros(2)}, r"constants \['v'\] belong to no CONST op"),
    ],
)
def test_a_constant_that_does_not_fit_its_op_is_refused(consts: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        verify(replace(LAYER, consts=consts))


TRAINING = written(IMAGE + WEIGHT + "y CONTRACT n i < x w\nt LABELS n\ne ERROR n i < y t\ng CONTRACT h i < x e", **SIZE)


def test_the_output_of_a_training_step_are_its_scores() -> None:
    graph = verify(replace(TRAINING, gradients={"w": "g"}))
    assert graph.trains and not LAYER.trains
    assert graph.output.name == "y"


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (replace(TRAINING, gradients={"w": "e"}), "op 'e' is no gradient of 'w': name a constant, and an op of its axes"),
        (replace(TRAINING, gradients={"w": "nowhere"}), "'nowhere' is no gradient of 'w'"),
        (replace(TRAINING, gradients={"x": "g"}), "'g' is no gradient of 'x'"),
        (replace(LAYER, gradients={"w": "w"}), r"gradients of \['w'\] and no ERROR"),
    ],
)
def test_a_gradient_of_something_else_is_refused(graph: Graph, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        verify(graph)


@settings(max_examples=50, deadline=None)
@given(graph=float_graphs(windows=True))
def test_a_legal_graph_passes_and_is_the_same(graph: Graph) -> None:
    assert verify(graph) is graph
    assert not graph.integer
    assert graph.parameter_bits == 32 * graph.parameters == 32 * sum(const.size for const in graph.consts.values())


def test_bits_are_counted_at_each_constant_s_format() -> None:
    graph = verify(written(INTEGER + "y CONTRACT n i < x w @ 32/7\nb CONST i @ 32/7\nz ADD n i < y b @ 32/7", **SIZE))
    assert (graph.parameters, graph.parameter_bits) == (12 + 3, 12 * 8 + 3 * 32)
    assert [completion(graph, op) for op in (graph["y"], graph["z"])] == [graph["z"], None]
    assert biases(graph, graph["z"]) == ["b"]
    assert interpret(graph, np.zeros((1, 4), int)).tolist() == [graph.consts["b"].tolist()]


def test_an_op_that_is_not_there_is_a_missing_key() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        LAYER["nowhere"]
