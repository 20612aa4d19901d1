"""Lowering: every legal graph, on every tile, computes what `interpret` says, bit for bit."""

import numpy as np
import pytest
from graphs import TILES, extremes, features, float_graphs, images, written
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.algebra.fixed import Fixed
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, Op, verify
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.quantize import quantize
from bayestt.ir.schedule import execute


@pytest.mark.parametrize("tile", TILES)
@settings(max_examples=60, deadline=None)
@given(graph=float_graphs(windows=True), bits=st.sampled_from([4, 8]), extreme=st.booleans(), seed=st.integers(0, 99))
def test_every_graph_on_every_tile_equals_interpret(tile: str, graph: Graph, bits: int, extreme: bool, seed: int) -> None:
    calibration = np.random.default_rng(seed).normal(size=(20, features(graph)))
    integer = quantize(fold(graph), calibration, bits)
    if extreme:
        integer = extremes(integer, seed)
    x = images(integer, 4, seed, extreme)
    assert (execute(lower(integer, TILES[tile]), x) == interpret(integer, x)).all()


SIX = "x INPUT n h w @ 8/0\n"
WINDOWS = {
    "places named as what they are places of": "y MAX n h w < x | h=h+a-1 w=w+b-1 @ 8/0\ns RELU n h w < y @ 8/0",
    "rows named as columns": "v CONST a b @ 8/0\ns CONTRACT n w h < x v | h=w+a-1 w=h+b-1 @ 32/0",
    "a constant for every place": "v CONST p a @ 8/0\nc CONST p @ 32/0\ny CONTRACT n p w < x v | h=p+a-1 @ 32/0\ns ADD n p w < y c @ 32/0",
    "more border than image": "v CONST a i @ 8/0\ns CONTRACT n i e < x v | h=e+a*3-4 @ 32/0",
    "taps that stay, places that are summed": "v CONST p @ 8/0\ns CONTRACT n a w < x v | h=p+a-1 @ 32/0",
    "the largest of all places": "s MAX n w < x | h=p+a-1 @ 8/0",
    "the largest of negative numbers": "y ROUND n h w < x @ 2/-6 >> 6\ns MAX n h w < y | h=h+a-1 w=w+b-1 @ 2/-6",
    "an average": "y CONTRACT n q w < x | h=q*2+t @ 32/0\ns ROUND n q w < y @ 8/-1 >> 1",
}


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("text", WINDOWS.values(), ids=WINDOWS)
def test_odd_but_legal_windows_run(tile: str, text: str) -> None:
    graph = verify(written(SIX + text, h=6, w=6, a=3, b=3, p=6, q=3, e=8, i=5, t=2))
    x = images(graph, 4, 1, extreme=True)
    assert (execute(lower(graph, TILES[tile]), x) == interpret(graph, x)).all()


def test_a_layout_that_suits_no_reader_is_copied() -> None:
    """The reader sums axis a, the writer has b in its lanes, the machine wants both innermost: a copy is cheapest."""
    eight, wide = Fixed(8, 0), Fixed(32, 0)
    ops = (
        Op("x", "INPUT", ("n", "h"), format=eight),
        Op("core0", "CONST", ("h", "a", "b"), format=eight),
        Op("core1", "CONST", ("a", "i"), format=eight),
        Op("first", "CONTRACT", ("n", "a", "b"), ("x", "core0"), wide),
        Op("round", "ROUND", ("n", "a", "b"), ("first",), eight),
        Op("last", "CONTRACT", ("n", "b", "i"), ("round", "core1"), wide),
    )
    random = np.random.default_rng(0)
    consts = {"core0": random.integers(-128, 128, (99, 4, 8)), "core1": random.integers(-128, 128, (4, 32))}
    graph = verify(Graph(ops, {"h": 99, "a": 4, "b": 8, "i": 32}, consts))
    schedule = lower(graph, TILES["dot product of 4 in 8 lanes"])
    assert [nest.name for nest in schedule.nests if "copy" in nest.name]
    x = images(graph, 3, 0, extreme=True)
    assert (execute(schedule, x) == interpret(graph, x)).all()


def test_memory_is_shared_by_tensors_that_never_meet() -> None:
    """A chain of steps needs two tensors at a time, not all of them."""
    eight, wide = Fixed(8, 0), Fixed(32, 0)
    ops, consts, sizes = [Op("x", "INPUT", ("n", "h0"), format=eight)], {}, {"h0": 10}
    for k in range(6):
        sizes[f"h{k + 1}"] = 10
        ops.append(Op(f"core{k}", "CONST", (f"h{k}", f"h{k + 1}"), format=eight))
        consts[f"core{k}"] = np.ones((10, 10), np.int64)
        ops.append(Op(f"step{k}", "CONTRACT", ("n", f"h{k + 1}"), (ops[-2].name, f"core{k}"), wide))
        ops.append(Op(f"round{k}", "ROUND", ("n", f"h{k + 1}"), (f"step{k}",), eight))
    graph = verify(Graph(tuple(ops[:-1]), sizes, consts))
    assert lower(graph, TILES["one image"]).data_size == 20


def test_what_cannot_be_lowered_is_said() -> None:
    graph = verify(Graph((Op("x", "INPUT", ("n", "h")), Op("y", "RELU", ("n", "h"), ("x",))), {"h": 2}, {}))
    with pytest.raises(ValueError, match="quantize it first"):
        lower(graph, TILES["one image"])
    narrow = TILES["one image"].__class__((), (), (), 0, 0, 0, 0, acc_bits=24)
    eight = Fixed(8, 0)
    ops = (
        Op("x", "INPUT", ("n", "h"), format=eight),
        Op("w", "CONST", ("h",), format=eight),
        Op("y", "CONTRACT", ("n",), ("x", "w"), Fixed(32, 0)),
    )
    with pytest.raises(ValueError, match="'y'.*32 bits and the machine in 24"):
        lower(verify(Graph(ops, {"h": 2}, {"w": np.ones(2, np.int64)})), narrow)
