"""Steps: copies where strides do not suit a reader, none where a tensor lies outside, and views where their operands lie."""

from graphs import TILES, written

from bayestt.ir.bind import bind
from bayestt.ir.graph import verify
from bayestt.ir.group import Group, groups
from bayestt.ir.step import Step
from bayestt.ir.steps import Tensor, steps

SIZE = {"h": 5, "a": 4, "b": 8, "i": 8, "k": 32, "n": 1, "+": 2}
CHAIN = """x INPUT n h @ 8/0
    v CONST h a b @ 8/0
    y CONTRACT n a b < x v @ 32/0
    r ROUND n a b < y @ 8/0
    w CONST a i @ 8/0
    s CONTRACT n b i < r w @ 32/0"""
VIEWED = """x INPUT n b a @ 8/0
    r RELU n a b < x @ 8/0
    v VIEW n k < r @ 8/0
    s RELU n k < v @ 8/0"""
SUM = """x INPUT n a b @ 8/0
    y RELU n b a < x @ 8/0
    s ADD n a b < x y @ 32/0"""


def made(text: str, tile: str, *external: str) -> tuple[list[Step], dict[str, Tensor]]:
    """The steps and tensors of a graph."""
    graph = verify(written(text, **SIZE))
    items = [bind(item, TILES[tile], SIZE)[0] if isinstance(item, Group) else item for item in groups(graph)]
    return steps(items, graph.input, TILES[tile], SIZE, frozenset(external))


def read(found: list[Step]) -> list[str]:
    """What reads what."""
    return [f"{' '.join(step.group.x)} -> {step.group.y}" for step in found]


def test_a_layout_that_suits_no_reader_is_copied_but_not_outside() -> None:
    """The writer has b in its lanes, the reader sums a: both want theirs innermost."""
    inside, tensors = made(CHAIN, "dot product of 4 in 8 lanes")
    assert read(inside) == ["x -> r", "r -> r.copy1", "r.copy1 -> s"]
    assert (tensors["r"].strides["b"], tensors["r.copy1"].strides["a"]) == (1, 1)
    assert (tensors["r"].origin, tensors["r.copy1"].origin, tensors["r.copy1"].place) == ("r", "r", "r.copy1")
    outside, tensors = made(CHAIN, "dot product of 4 in 8 lanes", "r")
    assert read(outside) == ["x -> r", "r -> s"]
    assert tensors["r"].strides == {"n": 32, "a": 8, "b": 1}


def test_a_view_lies_where_its_operand_does() -> None:
    found, tensors = made(VIEWED, "one image")
    assert (tensors["v"].place, tensors["v"].strides, read(found)) == ("r", {"n": 1, "k": 1}, ["x -> r", "v -> s"])


def test_operands_of_a_sum_in_one_memory_have_the_same_strides() -> None:
    found, tensors = made(SUM, "one image")
    first, second = (tensors[name].strides for name in found[-1].group.x)
    assert first == second
    found, tensors = made(SUM, "one image", "x")
    assert read(found) == ["x -> y", "x y -> s"]
    assert tensors["x"].strides == {"n": 1, "a": 8, "b": 1}
