"""Binding: which axes a machine runs at once, and that windows take part where their strides fit."""

import pytest
from graphs import TILES, written

from bayestt.ir.bind import bind
from bayestt.ir.graph import verify
from bayestt.ir.group import groups

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


def test_the_largest_is_found_one_after_another() -> None:
    assert bound(POOL, "dot product of 4 in 8 lanes", 3) == ([""], [""])
    assert bound(POOL, "16 x 4 silicon", 3) == (["n", ""], [])


def test_places_in_lanes_want_the_stride_of_what_they_read() -> None:
    size = {**SIZE, "p": 8, "q": 8}
    (group,) = groups(verify(written(CONVOLUTION.format(stride=""), **size)))
    step = bind(group, TILES["rows of one image"], size)[0]
    assert (step.wants("x", size), step.wants("y", size)) == ({"h": 1}, {"p": 1})
