"""Bounds of sums: nothing that a graph computes leaves them, and an image attains them."""

import numpy as np
import pytest
from graphs import extremes, features, float_graphs, images, written
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, Op, verify
from bayestt.ir.interpret import interpret
from bayestt.ir.overflow import Sum, intervals, overflow
from bayestt.ir.quantize import quantize

CONTRACTIONS = {
    "dense": ("w CONST h i", "y CONTRACT n i < x w @ 32/0"),
    "one of each": ("w CONST k h", "y CONTRACT n k h < x w @ 32/0"),
    "weights that come together": ("w CONST h i j", "y CONTRACT n i < w x @ 32/0"),
    "elements that have one weight": ("w CONST i", "y CONTRACT n i < x w @ 32/0"),
    "no weights": ("", "y CONTRACT n k < x @ 32/0"),
    "window": ("w CONST i k t", "y CONTRACT n i o < x w | h=o*2+t*1-1 @ 32/0"),
    "window that is kept": ("w CONST k t", "y CONTRACT n o t < x w | h=o*1+t*2-2 @ 32/0"),
}
SIZE = {"h": 5, "j": 2, "k": 3, "i": 4, "o": 3, "t": 3}


@settings(max_examples=80, deadline=None)
@given(graph=float_graphs(windows=True), bits=st.integers(2, 8), extreme=st.booleans(), seed=st.integers(0, 99))
def test_no_value_leaves_its_interval(graph: Graph, bits: int, extreme: bool, seed: int) -> None:
    integer = quantize(fold(graph), np.random.default_rng(seed).normal(size=(9, features(graph))), bits)
    if extreme:
        integer = extremes(integer, seed)
    found, sums = intervals(integer), {each.name: each for each in overflow(integer)}

    def judged(op: Op, value: np.ndarray) -> np.ndarray:
        low, high = found[op.name]
        if low.min() >= op.format.low and high.max() <= op.format.high:
            assert (low <= value).all() and (value <= high).all()
        if op.name in sums and sums[op.name].fits:
            assert sums[op.name].low <= value.min() and value.max() <= sums[op.name].high
        return value

    for extreme_images in (False, True):
        interpret(integer, images(integer, 20, seed, extreme_images), judged)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(CONTRACTIONS)), st.integers(2, 16), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_an_image_attains_each_bound_of_a_contraction(name: str, bits: int, weight_bits: int, seed: int) -> None:
    constant, contraction = CONTRACTIONS[name]
    graph = written(f"x INPUT n k h @ {bits}/0\n" + (f"{constant} @ {weight_bits}/0\n" if constant else "") + contraction, **SIZE)
    random, half = np.random.default_rng(seed), 1 << (weight_bits - 1)
    graph = verify(Graph(graph.ops, graph.size, {key: random.integers(-half, half, const.shape) for key, const in graph.consts.items()}))
    # How much each element adds to each sum, from images in which it alone is 1.
    weights = interpret(graph, np.eye(features(graph), dtype=int))
    low, high = (end.ravel() for end in intervals(graph)["y"])
    assume(low.min() >= -(2**31) and high.max() < 2**31)
    ends = graph.input.format
    for sum_number in range(len(low)):
        least = np.where(weights[:, sum_number] > 0, ends.low, ends.high)
        most = np.where(weights[:, sum_number] > 0, ends.high, ends.low)
        attained = interpret(graph, np.stack([least, most]))[:, sum_number]
        assert attained.tolist() == [low[sum_number], high[sum_number]]
    assert overflow(graph) == (Sum("y", int(low.min()), int(high.max()), 32),)


@given(st.integers(-(2**40), 2**40), st.integers(0, 2**40))
def test_the_needed_width_is_the_smallest(low: int, more: int) -> None:
    needed = Sum("y", low, low + more, 32).needed_bits
    holds = [-(2 ** (bits - 1)) <= low and low + more < 2 ** (bits - 1) for bits in (needed - 1, needed) if bits > 0]
    assert holds in ([False, True], [True])


def test_a_bias_belongs_to_its_sum() -> None:
    """Before it the sum needs 33 bits; with it all sums fit, and so the accumulator comes back from where it wrapped around."""
    graph = written("x INPUT n h @ 16/0\nw CONST h @ 16/0\ny CONTRACT n < x w @ 32/0\nb CONST @ 32/0\nz ADD n < y b @ 32/0", h=2)
    graph = verify(Graph(graph.ops, graph.size, {"w": np.full(2, -(2**15)), "b": np.array(-(2**16))}))
    assert intervals(graph)["y"][1] == 2**31
    (found,) = overflow(graph)
    assert found == Sum("z", -(2**31) + 2**16 - 2**16, 2**31 - 2**16, 32) and found.fits
    assert interpret(graph, np.full((1, 2), -(2**15))).tolist() == [[2**31 - 2**16]]


def test_a_sum_that_may_wrap_is_named_and_may_be_anything_afterwards() -> None:
    text = "x INPUT n h @ 16/0\nw CONST h @ 16/0\ny CONTRACT n < x w @ 32/0\nz ROUND n < y @ 8/-24 >> 24"
    graph = written(text, h=3)
    graph = verify(Graph(graph.ops, graph.size, {"w": np.full(3, 2**15 - 1)}))
    (found,) = overflow(graph)
    assert not found.fits and str(found) == "33 of 32 bits, in y, which may wrap around"
    assert [end.tolist() for end in intervals(graph)["z"]] == [[-128], [127]]


def test_places_at_the_border_have_smaller_intervals() -> None:
    graph = written("x INPUT n h @ 8/0\nw CONST t @ 8/0\ny CONTRACT n o < x w | h=o*1+t*1-1 @ 32/0", h=4, o=4, t=3)
    graph = verify(Graph(graph.ops, graph.size, {"w": np.array([1, 1, 1])}))
    assert intervals(graph)["y"][1].tolist() == [[254, 381, 381, 254]]


def test_roundings_rectifiers_and_the_largest_keep_to_their_ends() -> None:
    text = """x INPUT n h @ 8/0
        w CONST i @ 8/0
        y CONTRACT n i h < x w @ 32/0
        a RELU n i h < y @ 32/0
        r ROUND n i h < a @ 4/-5 >> 5
        m MAX n i < r @ 4/-5
        v VIEW n k < m @ 4/-5
        s ADD n k < v v @ 32/-5"""
    graph = written(text, h=2, i=2, k=2)
    graph = verify(Graph(graph.ops, graph.size, {"w": np.array([1, -3])}))
    assert [end.tolist() for end in intervals(graph)["s"]] == [[[0, 0]], [[8, 14]]]


def test_a_float_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="no accumulators: give the integer graph"):
        overflow(verify(written("x INPUT n h\ny RELU n h < x", h=2)))
