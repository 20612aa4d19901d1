"""Planning: what lies beside each other is apart, and all that moved out had no room."""

from itertools import combinations

import numpy as np
from graphs import TILES, features, float_graphs
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from windowed import residual_network

from bayestt.ir.bind import bind
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph
from bayestt.ir.group import Group, groups
from bayestt.ir.place import length
from bayestt.ir.plan import Plan, plan
from bayestt.ir.quantize import quantize
from bayestt.ir.room import Room

SILICON = TILES["16 x 4 silicon"]


def planned(graph: Graph, room: Room) -> tuple[Plan, dict[str, int]]:
    """The plan of a graph on the silicon, and the sizes of axes."""
    size = {**graph.size, "n": 3, "+": 2}
    items = [bind(item, SILICON, size)[0] if isinstance(item, Group) else item for item in groups(graph)]
    return plan(items, graph.input, SILICON, size, room), size


def check_apart(found: Plan, size: dict[str, int]) -> None:
    """At every step, what is needed then or later and is there already lies apart from all else, buffers included."""
    reads = [[found.tensors[name].place for name in step.group.x] for step in found.steps]
    writes = [step.group.y for step in found.steps]
    for number, step_cut in enumerate(found.cuts):
        later = {place for places in reads[number:] for place in places}
        here = (later & {*writes[:number], *reads[0]}) | {*reads[number], writes[number]}
        spans = {"data": [(buffer.address, buffer.length) for buffer in step_cut.buffers.values()], "external": []}
        for place in here - {found.output}:
            memory = "external" if place in found.external else "data"
            spans[memory].append((found.addresses[place], length(found.tensors[place].strides, size)))
        for memory, limit in (("data", found.data_size), ("external", found.external_size)):
            assert all(address >= 0 and address + extent <= limit for address, extent in spans[memory])
            for (one, extent), (other, width) in combinations(spans[memory], 2):
                assert one + extent <= other or other + width <= one


@settings(max_examples=50)
@given(float_graphs(windows=True), st.integers(0, 40))
def test_tensors_and_buffers_of_a_step_lie_apart(graph: Graph, more: int) -> None:
    integer = quantize(fold(graph), np.random.default_rng(0).normal(size=(9, features(graph))))
    assume(isinstance(groups(integer)[-1], Group))
    free, size = planned(integer, Room())
    check_apart(free, size)
    assert not free.external and not any(found.buffers for found in free.cuts)
    for data in range(free.data_size, 0, -7):
        try:
            found, _ = planned(integer, Room(data + more))
        except ValueError:
            break
        check_apart(found, size)
        assert found.data_size <= data + more


def test_the_longest_alive_of_equals_moves_out() -> None:
    """In the last stage two of three equal tensors have room: the one that waits for the sum is stored."""
    graph = residual_network(blocks=2, widths=(4,), extent=8)
    found, _ = planned(graph, Room(3 * (2 * 4 * 64)))
    assert "stage0.block0.conv0.round" not in found.external
    assert {"stem.round", "stage0.block0.round"} <= found.external


def test_less_room_never_keeps_more_inside() -> None:
    graph = residual_network(blocks=1, widths=(4, 8), extent=8)
    outside = [len(planned(graph, Room(3 * data))[0].external) for data in (1000, 512, 256, 128)]
    assert outside == sorted(outside) and outside[0] == 0 < outside[-1]
