"""Schedules: batches of any number of images, layouts that lose nothing, and whole programs against the graph they came from."""

from itertools import product

import numpy as np
import pytest
from graphs import TILES, images, written
from hypothesis import given
from hypothesis import strategies as st

from bayestt.ir.graph import Graph, verify
from bayestt.ir.interpret import interpret
from bayestt.ir.lower import lower
from bayestt.ir.room import Room
from bayestt.ir.schedule import Layout, batches, execute

TWO_LAYERS = """x INPUT n h @ 8/0
    w CONST h i @ 8/0
    y CONTRACT n i < x w @ 32/0
    b CONST i @ 32/0
    z ADD n i < y b @ 32/0
    t RELU n i < z @ 32/0
    r ROUND n i < t @ 8/-9 >> 9
    v CONST i k @ 8/0
    s CONTRACT n k < r v @ 32/-9"""


@given(count=st.integers(1, 20), together=st.integers(1, 7), features=st.integers(1, 4))
def test_batches_hold_every_image_once_and_zeros_after_the_last(count: int, together: int, features: int) -> None:
    x = np.arange(1, count * features + 1).reshape(count, features)
    groups = list(batches(x, together))
    assert all(group.shape == (together, features) for group, _ in groups)
    assert [real for _, real in groups[:-1]] == [together] * (len(groups) - 1)
    assert np.concatenate([group[:real] for group, real in groups]).tolist() == x.tolist()
    assert not groups[-1][0][groups[-1][1] :].any()


def test_images_of_any_shape_are_flat_in_a_batch() -> None:
    assert [(group.tolist(), real) for group, real in batches(np.arange(12).reshape(3, 2, 2), 2)] == [
        ([[0, 1, 2, 3], [4, 5, 6, 7]], 2),
        ([[8, 9, 10, 11], [0, 0, 0, 0]], 1),
    ]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), max_size=3), st.integers(0, 50))
def test_a_layout_addresses_by_its_strides(axes: list[tuple[int, int]], address: int) -> None:
    extents, strides = tuple(extent for extent, _ in axes), tuple(stride for _, stride in axes)
    found = Layout(address, tuple("abc"[: len(axes)]), extents, strides).addresses
    assert np.shape(found) == extents
    for index in product(*map(range, extents)):
        assert found[index] == address + sum(i * stride for i, stride in zip(index, strides, strict=True))


@pytest.mark.parametrize("count", [1, 3, 4, 7])
@pytest.mark.parametrize("tile", TILES)
def test_any_number_of_images_runs(tile: str, count: int) -> None:
    graph = verify(written(TWO_LAYERS, h=5, i=6, k=3))
    x = images(graph, count, 0, extreme=True)
    schedule = lower(graph, TILES[tile])
    assert (execute(schedule, x) == interpret(graph, x)).all()
    assert schedule.layout[schedule.input].axes[0] == schedule.layout[schedule.output].axes[0] == "n"


@pytest.mark.parametrize("tile", TILES)
def test_a_schedule_counts_its_work_and_writes_every_score_once(tile: str) -> None:
    schedule = lower(verify(written(TWO_LAYERS, h=8, i=8, k=4)), TILES[tile])
    assert schedule.macs == sum(nest.macs for nest in schedule.nests) // schedule.images >= 8 * 8 + 8 * 4
    assert schedule.macs == 8 * 8 + 8 * 4 or tile != "one multiplier"
    addresses = schedule.layout[schedule.output].addresses.ravel()
    assert len(set(addresses.tolist())) == addresses.size == 4 * schedule.images
    assert addresses.max() < schedule.score_size


def test_what_moves_is_counted_apart_from_what_is_multiplied() -> None:
    """The image moves in, each of two wide tensors out and in again."""
    text = "x INPUT n h @ 8/0\na RELU n h < x @ 8/0\nb RELU n h < a @ 8/0\nw CONST h @ 8/0\ns CONTRACT n < b w @ 32/0"
    graph = verify(written(text, h=40))
    free, tight = lower(graph, TILES["16 x 4 silicon"]), lower(graph, TILES["16 x 4 silicon"], Room(3 * 40))
    assert (free.moved, tight.moved) == (0, 40 + 2 * 40 + 2 * 40)
    assert free.macs == tight.macs == 3 * 40
    assert (free.external_size, tight.external_size) == (0, 3 * 80)


EIGHT = "x INPUT n h @ 8/0\n"
NASTY = {
    "a dead end after the output began": EIGHT
    + "w CONST h i @ 8/0\ny CONTRACT n i < x w @ 32/0\nd RELU n h < x @ 8/0\ns RELU n i < y @ 32/0",
    "a dead end of the shape of the output": EIGHT
    + "w CONST h @ 8/0\ny CONTRACT n h < x w @ 32/0\nd RELU n h < x @ 8/0\ns RELU n h < y @ 32/0",
    "an axis called term": "x INPUT n term @ 8/0\ns ADD n term < x x @ 32/0",
    "an axis called lane": "x INPUT n lane @ 8/0\nw CONST lane k @ 8/0\ns CONTRACT n k < x w @ 32/0",
    "one number in, one out": "x INPUT n @ 8/0\nw CONST @ 8/0\ny CONTRACT n < w x @ 32/0\nb CONST @ 32/3\ns ADD n < b y @ 32/3",
    "nothing to sum": EIGHT + "w CONST i @ 8/0\ns CONTRACT n i h < x w @ 32/0",
    "a sum without a weight": EIGHT + "s CONTRACT n < x @ 32/0",
    "an op read twice": EIGHT + "w CONST h @ 8/0\ny CONTRACT n h < x w @ 32/0\nr ROUND n h < y @ 8/-6 >> 6\ns ADD n h < r r @ 32/-6",
    "one constant for two ops": EIGHT + "w CONST h @ 8/0\ny CONTRACT n h < x w @ 32/0\ns ADD n h < w y @ 32/0",
    "views of views to the end": EIGHT + "a VIEW n a b < x @ 8/0\nb VIEW n k < a @ 8/0\ns VIEW n b a < b @ 8/0",
    "a view that a dead view follows": EIGHT + "a VIEW n a b < x @ 8/0\ns RELU n b a < a @ 8/0\nb VIEW n h < s @ 8/0",
    "the largest shift": EIGHT + "w CONST h @ 8/40\ny CONTRACT n h < x w @ 32/40\ns ROUND n h < y @ 2/9 >> 31",
    "roundings of roundings": EIGHT + "a ROUND n h < x @ 8/-1 >> 1\nb ROUND n h < a @ 4/-2 >> 1\ns ROUND n h < b @ 2/-2",
    "sixteen bits that are copied": EIGHT
    + "w CONST h a b @ 8/0\ny CONTRACT n a b < x w @ 32/0\nr ROUND n a b < y @ 16/0\nv CONST a k @ 8/0\ns CONTRACT n b k < r v @ 32/0",
}


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_odd_but_legal_graphs_run(tile: str, text: str) -> None:
    graph = verify(written(text, h=8, i=3, k=8, a=2, b=4, term=5, lane=5))
    x = images(graph, 5, 1, extreme=False)
    assert (execute(lower(graph, TILES[tile]), x) == interpret(graph, x)).all()


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_constants_of_any_integer_type_mean_the_same(dtype: type) -> None:
    text = EIGHT + "w CONST h i @ 8/0\ny CONTRACT n i < x w @ 32/0\nb CONST i @ 8/3\ns ADD n i < y b @ 32/3"
    graph = written(text, h=3, i=2)
    graph = verify(Graph(graph.ops, graph.size, {name: const.astype(dtype) for name, const in graph.consts.items()}))
    x = images(graph, 4, 0, extreme=True)
    assert (execute(lower(graph, TILES["one image"]), x) == interpret(graph, x)).all()
    assert (interpret(graph, x) == 8 * (x @ graph.consts["w"].astype(int)) + graph.consts["b"].astype(int)).all()
