"""Choosing: what all steps cost together is never more than with each one as it is cheapest alone."""

import numpy as np
import pytest
from graphs import TILES, features, float_graphs, written
from hypothesis import given, settings

from bayestt.ir.bind import bind, spent, turns
from bayestt.ir.choose import choose
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, Op, verify
from bayestt.ir.group import Group, groups
from bayestt.ir.nest import Nest
from bayestt.ir.quantize import quantize
from bayestt.ir.room import Room
from bayestt.ir.step import Step
from bayestt.ir.steps import steps

COPIED = """x INPUT n h @ 8/0
    v CONST h a b @ 8/0
    y CONTRACT n a b < x v @ 32/0
    r ROUND n a b < y @ 8/0
    w CONST a i @ 8/0
    s CONTRACT n b i < r w @ 32/0"""


def sizes(graph: Graph, tile: Nest) -> dict[str, int]:
    """The size of every axis on a machine."""
    return {**graph.size, "n": next((loop.extent for loop in tile.lane if loop.axis == "n"), 1), "+": 2}


def together(items: list[Step | Op], graph: Graph, tile: Nest) -> float:
    """What all steps cost, copies between them included."""
    size = sizes(graph, tile)
    made, tensors = steps(items, graph.input, tile, size, frozenset())
    return sum(spent(step, tile, size, turns, tensors[step.group.x[0]].strides, tensors[step.group.y].strides) for step in made)


@pytest.mark.parametrize("name", TILES)
@settings(max_examples=25, deadline=None)
@given(graph=float_graphs(windows=True))
def test_no_step_beside_a_copy_is_better_changed(name: str, graph: Graph) -> None:
    integer, tile = quantize(fold(graph), np.random.default_rng(0).normal(size=(9, features(graph)))), TILES[name]
    size = sizes(integer, tile)
    options = [bind(item, tile, size) if isinstance(item, Group) else (item,) for item in groups(integer)]
    chosen = choose(groups(integer), integer.input, tile, size, Room(), turns)
    least = together(chosen, integer, tile)
    assert least <= together([each[0] for each in options], integer, tile)
    _, tensors = steps(chosen, integer.input, tile, size, frozenset())
    copied = {tensor.origin for tensor in tensors.values() if tensor.origin != tensor.place}
    for number, (item, each) in enumerate(zip(chosen, options, strict=True)):
        if isinstance(item, Step) and copied & {tensors[name].origin for name in (*item.group.x, item.group.y)}:
            for option in each:
                assert least <= together([*chosen[:number], option, *chosen[number + 1 :]], integer, tile)


@pytest.mark.parametrize(("h", "copies"), [(5, 0), (99, 1)])
def test_a_copy_is_made_where_idle_multipliers_cost_more(h: int, copies: int) -> None:
    """The machine wants b, which fills its lanes, innermost for the writer, and a for the reader."""
    graph = verify(written(COPIED, h=h, a=4, b=8, i=32))
    tile = TILES["dot product of 4 in 8 lanes"]
    size = sizes(graph, tile)
    chosen = choose(groups(graph), graph.input, tile, size, Room(), turns)
    made, _ = steps(chosen, graph.input, tile, size, frozenset())
    assert len(made) == 2 + copies
