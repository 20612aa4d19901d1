"""Covering: nests that together compute every result of a box once, from nothing that is not there."""

from graphs import TILES, written

from bayestt.ir.bind import bind
from bayestt.ir.cover import Place, cover, part_at
from bayestt.ir.graph import taps, verify
from bayestt.ir.group import groups
from bayestt.ir.nest import Nest

SAME = "x INPUT n h w @ 8/0\nv CONST i a b @ 8/0\ny CONTRACT n i p q < x v | h=p+a-1 w=q+b-1 @ 32/0"
SIZE = {"n": 3, "h": 6, "w": 6, "p": 6, "q": 6, "a": 3, "b": 3, "i": 6}
PLACES = {
    "x": Place(0, {"n": 1, "h": 18, "w": 3}),
    "w": Place(0, {"i": 4, "a": 24, "b": 8}),
    "init": Place(0, {}),
    "y": Place(0, {"n": 1, "i": 108, "p": 18, "q": 3}),
}


def covered(box: dict[str, range]) -> list[Nest]:
    """The nests of a part of a 3x3 convolution with a border."""
    graph = verify(written(SAME, **SIZE))
    (group,) = groups(graph)
    whole = {axis: range(extent) for axis, extent in SIZE.items()}
    tile = TILES["16 x 4 silicon"]
    return list(cover(bind(group, tile, SIZE)[0], {**whole, **box}, tile, PLACES, SIZE))


def test_a_border_makes_nine_nests_and_those_again_for_the_last_lanes() -> None:
    nests = covered({})
    assert len(nests) == 18
    assert sorted({nest.lane[1].extent for nest in nests}) == [2, 4]
    (window,) = (window for window in groups(verify(written(SAME, **SIZE)))[0].window if window.axis == "h")
    found = sum(len(taps(window, out, SIZE)) for out in range(6))
    assert sum(nest.macs for nest in nests) == 3 * 6 * found**2


def test_lanes_of_several_axes_go_on_in_the_next_row() -> None:
    """Three rows of five results are three words of four and one of three."""
    size = {"n": 3, "a": 6, "i": 3, "r": 5}
    graph = verify(written("x INPUT n a @ 8/0\nv CONST a i r @ 8/0\ny CONTRACT n i r < x v @ 32/0", **size))
    (group,) = groups(graph)
    tile = TILES["16 x 4 silicon"]
    places = {
        "x": Place(0, {"n": 1, "a": 3}),
        "w": Place(0, {"a": 16, "r": 4}),
        "init": Place(0, {"r": 4}),
        "y": Place(7, {"n": 1, "i": 15, "r": 3}),
    }
    whole = {axis: range(extent) for axis, extent in size.items()}
    full, rest = cover(bind(group, tile, size)[0], whole, tile, places, size)
    assert [(loop.extent, loop.x, loop.w, loop.init, loop.y) for loop in full.outer] == [(3, 0, 4, 4, 12)]
    assert [(nest.lane[1].axis, nest.lane[1].extent, nest.lane[1].y) for nest in (full, rest)] == [("i r", 4, 3), ("i r", 3, 3)]
    assert (full.w, full.init, full.y, rest.w, rest.init, rest.y) == (0, 0, 7, 12, 12, 7 + 36)
    assert full.macs + rest.macs == 3 * 6 * 15


def test_what_lies_inside_is_one_nest() -> None:
    (nest,) = covered({"p": range(1, 5), "q": range(2, 4), "i": range(4)})
    assert nest.macs == 3 * 4 * 4 * 2 * 9
    assert (nest.x, nest.w, nest.y) == (0 * 18 + 1 * 3, 0, 1 * 18 + 2 * 3)


def test_a_corner_begins_with_the_first_taps_that_are_there() -> None:
    (nest,) = covered({"p": range(0, 1), "q": range(0, 1), "i": range(4)})
    assert (nest.x, nest.w, nest.y) == (0, 24 + 8, 0)
    assert [loop.extent for loop in nest.reduce] == [2, 2]
    assert [(loop.x, loop.w) for loop in nest.reduce] == [(18, 24), (3, 8)]


def test_a_part_begins_at_its_address() -> None:
    box = {"n": range(3), "h": range(2, 5), "w": range(1, 3)}
    place = part_at(100, {"n": 1, "h": 6, "w": 3}, box)
    assert place.at(box) == 100
    assert place.address == 100 - 2 * 6 - 3
