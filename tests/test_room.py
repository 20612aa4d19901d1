"""Lowering for small memories: the same results, all addresses within them, and nothing outside that has room inside."""

import re
from dataclasses import replace
from itertools import pairwise
from math import prod
from random import Random
from time import monotonic

import numpy as np
import pytest
from graphs import TILES, features, float_graphs, images, written
from hypothesis import given, settings
from hypothesis import strategies as st
from windowed import residual_network

from bayestt.ir.bind import Cost, turns
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, verify
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.nest import Nest
from bayestt.ir.quantize import quantize
from bayestt.ir.room import Room
from bayestt.ir.schedule import Schedule, execute

SILICON = TILES["16 x 4 silicon"]
ROOMS = st.builds(Room, st.integers(1, 60), st.integers(1, 40), st.integers(1, 20))
NEEDS = {"elements of data memory": "data", "weights": "weights", "initial sums": "inits"}
CONVOLUTION = """x INPUT n c h w @ 8/0
    v CONST i c a b @ 8/0
    y CONTRACT n i p q < x v | h=p+a-1 w=q+b-1 @ 32/0
    r ROUND n i p q < y @ 8/-6 >> 6
    s CONTRACT n i < r @ 32/-6"""
SIZE = {"c": 2, "h": 6, "w": 4, "i": 8, "p": 6, "q": 4, "a": 3, "b": 3}


def lowered(graph: Graph, tile: Nest, room: Room, cost: Cost = turns) -> tuple[Schedule, Room]:
    """The schedule for a room, which grows by what each refusal asks for: that must suffice."""
    while True:
        try:
            return lower(graph, tile, room, cost), room
        except ValueError as refusal:
            needed, what, had = re.search(r"needs (\d+) (.*?) for its smallest .* has room for (\d+)", str(refusal)).groups()
            assert int(needed) > int(had) == getattr(room, NEEDS[what])
            room = replace(room, **{NEEDS[what]: int(needed)})


def reach(nest: Nest, stream: str) -> tuple[int, int]:
    """The lowest and the highest address of a stream."""
    loops = nest.outer + nest.lane + (nest.reduce if stream in "xw" else ())
    ends = [(loop.extent - 1) * getattr(loop, stream) for loop in loops]
    return getattr(nest, stream) + sum(min(end, 0) for end in ends), getattr(nest, stream) + sum(max(end, 0) for end in ends)


def check_within(schedule: Schedule, room: Room) -> None:
    """No nest leaves its memories, and none of those is larger than its room."""
    sizes = {"data": schedule.data_size, "external": schedule.external_size, "scores": schedule.score_size}
    assert schedule.data_size <= room.data
    for nest in schedule.nests:
        lengths = {"x": sizes[nest.source], "w": len(schedule.weights), "init": len(schedule.inits), "y": sizes[nest.target]}
        for stream, length in lengths.items():
            low, high = reach(nest, stream)
            assert 0 <= low <= high < length
            assert stream not in ("w", "init") or high - low < {"w": room.weights, "init": room.inits}[stream]


def check_moves_copy(schedule: Schedule) -> None:
    """What comes from external memory or goes there is a pure copy between it and the data memory."""
    for nest in (nest for nest in schedule.nests if nest.moves):
        assert {nest.source, nest.target} == {"data", "external"}
        assert (nest.reduce, nest.shift, nest.relu, nest.maximum) == ((), 0, False, False)
        assert [reach(nest, stream)[1] - reach(nest, stream)[0] for stream in ("w", "init")] == [0, 0]
        assert (schedule.weights[nest.w], schedule.inits[nest.init]) == (1, 0)


@pytest.mark.parametrize("tile", TILES)
@settings(max_examples=25, deadline=None)
@given(graph=float_graphs(windows=True), room=ROOMS, bits=st.sampled_from([4, 8]), seed=st.integers(0, 99))
def test_every_graph_in_every_room_equals_interpret(tile: str, graph: Graph, room: Room, bits: int, seed: int) -> None:
    integer = quantize(fold(graph), np.random.default_rng(seed).normal(size=(20, features(graph))), bits)
    x = images(integer, 3, seed, extreme=bool(seed % 2))
    schedule, room = lowered(integer, TILES[tile], room)
    check_within(schedule, room)
    check_moves_copy(schedule)
    assert (execute(schedule, x) == interpret(integer, x)).all()


@pytest.mark.parametrize("tile", TILES)
@settings(max_examples=40, deadline=None)
@given(graph=float_graphs(windows=True), room=st.one_of(st.just(Room()), st.builds(Room, st.integers(20, 400))), seed=st.integers(0, 99))
def test_whatever_a_nest_costs_the_result_is_the_same(tile: str, graph: Graph, room: Room, seed: int) -> None:
    """Costs drawn at random choose every way to bind that there is, sooner or later."""
    integer = quantize(fold(graph), np.random.default_rng(seed).normal(size=(20, features(graph))))
    x = images(integer, 3, seed, extreme=bool(seed % 2))
    schedule, room = lowered(integer, TILES[tile], room, lambda nest: Random(f"{seed} {nest.outer} {nest.lane}").random())
    check_within(schedule, room)
    assert (execute(schedule, x) == interpret(integer, x)).all()


@settings(max_examples=40, deadline=None)
@given(graph=float_graphs(windows=True), tile=st.sampled_from(list(TILES)), seed=st.integers(0, 99))
def test_what_has_room_stays_inside(graph: Graph, tile: str, seed: int) -> None:
    integer = quantize(fold(graph), np.random.default_rng(seed).normal(size=(20, features(graph))))
    free = lower(integer, TILES[tile])
    limited = lower(integer, TILES[tile], Room(free.data_size, max(len(free.weights), 1), max(len(free.inits), 1)))
    assert (free.nests, free.layout) == (limited.nests, limited.layout)
    assert free.external_size == limited.external_size == free.moved == 0


@pytest.mark.parametrize("data", [24 * 48, 24 * 30, 24 * 12, 24 * 7])
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("tile", ["16 x 4 silicon", "one image", "dot product of 4 in 8 lanes"])
def test_a_residual_network_runs_in_any_room(tile: str, rank: int, data: int) -> None:
    graph = residual_network(blocks=1, widths=(2, 3), extent=6, rank=rank)
    schedule = lower(graph, TILES[tile], Room(data, 300, 8))
    x = images(graph, 2, 0, extreme=False)
    check_within(schedule, Room(data, 300, 8))
    assert (execute(schedule, x) == interpret(graph, x)).all()
    assert schedule.moved or data > 24 * 30 or tile != "16 x 4 silicon"


def convolution(**size: int) -> Graph:
    """One convolution of 3x3 with a border, rounded and summed."""
    return verify(written(CONVOLUTION, **{**SIZE, **size}))


def brought(schedule: Schedule, name: str) -> int:
    """Elements of one image that an op brings in."""
    return sum(nest.macs for nest in schedule.nests if nest.source == "external" and nest.name == name) // schedule.images


@pytest.mark.parametrize(
    ("data", "heights", "rows"),
    [
        (4 * 32 + 3 * 32, [3, 3], 4 + 4),
        (4 * 32 + 2 * 32, [2, 2, 2], 3 + 4 + 3),
        (3 * 32 + 1 * 32, [1, 1, 1, 1, 1, 1], 2 + 3 + 3 + 3 + 3 + 2),
    ],
)
def test_strips_are_as_high_as_fits_and_load_their_halo_again(data: int, heights: list[int], rows: int) -> None:
    """A row of x has 8 channels of 4 elements, and so has one of y."""
    schedule = lower(convolution(c=8), SILICON, Room(3 * data))
    stores = [nest for nest in schedule.nests if nest.target == "external"]
    assert [nest.macs // (3 * 32) for nest in stores] == heights
    assert brought(schedule, "r") == 32 * rows


def test_where_rows_are_too_long_output_channels_are_cut() -> None:
    """A row of x is loaded once for both halves of a row of y."""
    schedule = lower(convolution(c=8), SILICON, Room(3 * (3 * 32 + 16)))
    stores = [nest for nest in schedule.nests if nest.target == "external"]
    assert [nest.macs // 3 for nest in stores] == [16] * 12
    assert brought(schedule, "r") == 32 * 16


def test_only_the_largest_move_out() -> None:
    """Two tensors of 20 elements have no room beside each other, one and small ones have."""
    text = """x INPUT n h @ 8/0
        l RELU n h < x @ 8/0
        v CONST h i @ 8/0
        a CONTRACT n i < l v @ 32/0
        r ROUND n i < a @ 8/-6 >> 6
        w CONST i k @ 8/0
        s CONTRACT n k < r w @ 32/-6"""
    schedule = lower(verify(written(text, h=20, i=4, k=3)), SILICON, Room(3 * 30))
    assert {name for name, layout in schedule.layout.items() if layout.memory == "external"} == {"x"}
    assert [nest.macs // 3 for nest in schedule.nests if nest.moves] == [10, 10]


def test_one_operand_of_a_sum_may_lie_inside() -> None:
    text = "x INPUT n h w @ 8/0\na RELU n h w < x @ 8/0\nb RELU n h w < a @ 8/0\ns ADD n w h < b x @ 32/0"
    graph = verify(written(text, h=4, w=5))
    schedule = lower(graph, SILICON, Room(3 * 45))
    assert [schedule.layout[name].memory for name in ("x", "a", "b")] == ["external", "data", "data"]
    x = images(graph, 3, 0, extreme=True)
    assert (execute(schedule, x) == interpret(graph, x)).all()


@pytest.mark.parametrize(
    ("channels", "data", "expected"),
    [
        (2, 48 + 64, [0, 1]),  # x is inside: all strips of one part come before those of the other
        (8, 7 * 32, [0, 1, 0, 1]),  # two strips of x: to load them twice costs more than to load the weights twice
        (8, 3 * 32 + 16, [0, 1]),  # six strips of x
    ],
)
def test_the_order_of_strips_and_parts_brings_in_less(channels: int, data: int, expected: list[int]) -> None:
    part = 9 * channels * 4
    schedule = lower(convolution(c=channels), SILICON, Room(3 * data, weights=part))
    parts = [nest.w // part for nest in schedule.nests if nest.name == "r" and not nest.moves]
    assert [part for part, before in zip(parts, [None, *parts], strict=False) if part != before] == expected


def test_constants_of_an_op_lie_together_and_each_is_packed_once() -> None:
    graph = residual_network(blocks=1, widths=(4, 8), extent=8)
    whole = lower(graph, SILICON)
    cut = lower(graph, SILICON, Room(3 * 200, 300, 8))
    assert sorted(cut.weights.tolist()) == sorted([*whole.weights.tolist(), 1, 0, 0, 0])
    spans: dict[str, list[int]] = {}
    for nest in (nest for nest in cut.nests if not nest.moves):
        spans.setdefault(nest.name, []).extend(reach(nest, "w"))
    ends = [(min(span), max(span)) for span in spans.values()]
    assert all(one[1] < other[0] for one, other in pairwise(ends))


def test_a_batch_moves_in_whole_words() -> None:
    schedule = lower(residual_network(blocks=1, widths=(2, 3), extent=6), SILICON, Room(3 * 80))
    assert [nest for nest in schedule.nests if nest.moves]
    for nest in schedule.nests:
        assert not nest.moves or (nest.lane[0].axis, nest.lane[0].extent, nest.lane[0].x, nest.lane[0].y) == ("n", 3, 1, 1)


@pytest.mark.parametrize(
    ("room", "message"),
    [
        (Room(3 * 21), "op 'r' needs 66 elements of data memory for its smallest strip, and the machine has room for 63: enlarge"),
        (Room(weights=71), "op 'r' needs 72 weights for its smallest part, and the machine has room for 71"),
        (Room(inits=3), "op 'r' needs 4 initial sums for its smallest part, and the machine has room for 3"),
    ],
)
def test_a_room_too_small_is_refused_with_what_is_needed(room: Room, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lower(convolution(), SILICON, room)


def test_a_residual_network_multiplies_nothing_in_vain() -> None:
    """ResNet-20: every tap that is there, once; additions and pools once an element; strips change nothing."""
    graph = residual_network(blocks=3, widths=(16, 32, 64), extent=32)

    def conv(inside: int, width: int, extent: int, image: int, taps: int = 3, stride: int = 1) -> int:
        found = sum(0 <= out * stride + tap - taps // 2 < image for out in range(extent) for tap in range(taps))
        return inside * width * found**2

    expected = conv(3, 16, 32, 32) + 64 * 10 + 64 * 8 * 8
    for inside, width, extent in ((16, 16, 32), (16, 32, 16), (32, 64, 8)):
        stride = 2 if inside < width else 1
        expected += conv(inside, width, extent, extent * stride, stride=stride) + 5 * conv(width, width, extent, extent)
        expected += conv(inside, width, extent, extent * stride, 1, stride) if stride > 1 else 0
        expected += 3 * 2 * prod((width, extent, extent))
    free, cut = lower(graph, SILICON), lower(graph, SILICON, Room(3 * 8192, 16384, 64))
    assert free.macs == cut.macs == expected
    assert cut.moved < 1_000_000 < len(cut.weights) * 4
    assert not [nest.name for nest in free.nests if "copy" in nest.name]


@pytest.mark.parametrize("rank", [0, 8])
def test_a_deep_network_is_lowered_in_seconds(rank: int) -> None:
    """ResNet-110 and its Tucker-2 form, for 32 KiB of activations and 16 KiB of weights: about a second each, without copies."""
    graph = residual_network(blocks=18, widths=(16, 32, 64), extent=32, rank=rank)
    started = monotonic()
    schedule = lower(graph, SILICON, Room(3 * 8192, 16384, 4096))
    assert monotonic() - started < 20
    assert not [nest.name for nest in schedule.nests if "copy" in nest.name]
