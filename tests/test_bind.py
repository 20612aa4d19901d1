"""Binding: which axes a machine runs at once, and that windows take part where their strides fit."""

import pytest
from graphs import TILES, written

from bayestt.ir.bind import bind, spent, turns
from bayestt.ir.graph import verify
from bayestt.ir.group import groups
from bayestt.ir.room import Room

CONVOLUTION = """x INPUT n c h w @ 8/0
    v CONST i c a b @ 8/0
    y CONTRACT n i p q < x v | h=p{stride}+a-1 w=q{stride}+b-1 @ 32/0"""
POOL = "x INPUT n c h w @ 8/0\ny MAX n c p q < x | h=p*2+a w=q*2+b @ 8/0"
SIZE = {"c": 4, "i": 8, "h": 8, "w": 8, "a": 3, "b": 3, "n": 3}


def bound(text: str, tile: str, out: int) -> tuple[list[str], list[str]]:
    """The axes that the lane and the reduce loops of a tile take in the one group of a graph."""
    size = {**SIZE, "p": out, "q": out}
    (group,) = groups(verify(written(text, **size)))
    step = bind(group, TILES[tile], size)[0]
    return [" ".join(axes) for _, axes in step.lane], [" ".join(axes) for _, axes in step.reduce]


@pytest.mark.parametrize(
    ("tile", "stride", "expected"),
    [
        ("16 x 4 silicon", "", (["n", "i"], [])),
        ("dot product of 4 in 8 lanes", "", (["i"], ["c"])),
        ("rows of one image", "", (["p", "i"], [])),
        ("rows of one image", "*2", (["", "i"], [])),
        ("one multiplier", "", ([], [])),
    ],
)
def test_a_convolution_has_output_channels_in_its_lanes(tile: str, stride: str, expected: tuple) -> None:
    assert bound(CONVOLUTION.format(stride=stride), tile, 8 if not stride else 4) == expected


STEP = """x INPUT n a b @ 8/0
    v CONST a i r @ 8/0
    y CONTRACT n b i r < x v @ 32/0"""


@pytest.mark.parametrize(
    ("i", "r", "lane", "tiles"),
    [
        (2, 2, ("i", "r"), 1),
        (2, 3, ("r",), 2),
        (8, 3, ("i",), 6),
        (3, 5, ("i", "r"), 4),
        (1, 3, ("r",), 1),
        (3, 1, ("i",), 1),
    ],
)
def test_axes_that_do_not_fill_the_lanes_share_them(i: int, r: int, lane: tuple[str, ...], tiles: int) -> None:
    """Neither 2 nor 3 nor 5 fills 4 lanes; b, which x has too, may not be in them."""
    size = {"n": 3, "a": 6, "b": 5, "i": i, "r": r}
    (group,) = groups(verify(written(STEP, **size)))
    tile = TILES["16 x 4 silicon"]
    step = bind(group, tile, size)[0]
    assert [axes for _, axes in step.lane] == [("n",), lane]
    assert step.inner_axes == {*lane[1:]}
    assert spent(step, tile, size, turns) == 5 * tiles * 6
    inner = {"r": 3, "i": 3 * r} if len(lane) == 2 else {}
    assert step.wants("y", size) == {"n": 1, **inner}


def test_the_first_binding_is_the_cheapest_and_all_are_legal() -> None:
    size = {"n": 3, "a": 6, "b": 5, "i": 3, "r": 5}
    (group,) = groups(verify(written(STEP, **size)))
    tile = TILES["16 x 4 silicon"]
    steps = bind(group, tile, size)
    assert [step.lane[1][1] for step in steps] == [("i", "r"), ("i",), ("r",), ()]
    costs = [spent(step, tile, size, turns) for step in steps]
    assert costs == [5 * 4 * 6, 5 * 5 * 6, 5 * 3 * 2 * 6, 5 * 15 * 6]
    assert bind(group, tile, size, cost=lambda nest: -nest.turns)[0].lane[1][1] == ()


def test_what_must_be_cut_has_one_axis_in_its_lanes() -> None:
    size = {"n": 3, "a": 6, "b": 5, "i": 2, "r": 2}
    (group,) = groups(verify(written(STEP, **size)))
    tile = TILES["16 x 4 silicon"]
    for room, alone in (
        (Room(3 * (30 + 20), 24, 4), False),
        (Room(3 * (30 + 20) - 1, 24, 4), True),
        (Room(3 * (30 + 20), 23, 4), True),
        (Room(3 * (30 + 20), 24, 3), True),
    ):
        assert all(len(axes) < 2 for step in bind(group, tile, size, room) for _, axes in step.lane) == alone


def test_the_largest_is_found_one_after_another() -> None:
    assert bound(POOL, "dot product of 4 in 8 lanes", 3) == ([""], [""])
    assert bound(POOL, "16 x 4 silicon", 3) == (["n", ""], [])


def test_places_in_lanes_want_the_stride_of_what_they_read() -> None:
    size = {**SIZE, "p": 8, "q": 8}
    (group,) = groups(verify(written(CONVOLUTION.format(stride=""), **size)))
    step = bind(group, TILES["rows of one image"], size)[0]
    assert (step.wants("x", size), step.wants("y", size)) == ({"h": 1}, {"p": 1})
