"""Packed constants: every element lies where its strides say, everything else is zero."""

from itertools import product

import numpy as np
import pytest
from graphs import TILES
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.ir.nest import Loop
from bayestt.ir.pack import pack, packed_length


@settings(max_examples=150, deadline=None)
@given(data=st.data(), tile=st.sampled_from(list(TILES)), stream=st.sampled_from(["w", "init"]), seed=st.integers(0, 99))
def test_every_element_lies_where_its_strides_say(data: st.DataObject, tile: str, stream: str, seed: int) -> None:
    axes = tuple(data.draw(st.permutations(["a", "b", "c"]))[: data.draw(st.integers(0, 3))])
    size = {axis: data.draw(st.integers(1, 7)) for axis in "abcd"}
    loops = [*TILES[tile].lane, *TILES[tile].reduce]
    moving = [loop for loop in loops if getattr(loop, stream)]
    order = data.draw(st.permutations("abcd"))
    ends = sorted(data.draw(st.lists(st.integers(0, 4), min_size=len(moving) + 1, max_size=len(moving) + 1)))
    chosen = {loop.axis: tuple(order[start:stop]) for loop, start, stop in zip(moving, ends, ends[1:], strict=False)}
    bound = [(loop, chosen.get(loop.axis, ())) for loop in loops]
    array = np.random.default_rng(seed).integers(1, 100, [size[axis] for axis in axes])
    words, strides = pack(array, axes, bound, stream, size)

    inner = [axis for names in chosen.values() for axis in names]
    expected = np.zeros_like(words)
    every = list(dict.fromkeys([*axes, *inner]))
    for index in product(*(range(size[axis]) for axis in every)):
        at = dict(zip(every, index, strict=True))
        address = sum(i * strides[axis] for axis, i in at.items() if axis not in inner)
        for loop in moving:
            together = 0
            for axis in chosen[loop.axis]:
                together = together * size[axis] + at[axis]
            tiles, lane = divmod(together, loop.extent)
            address += lane * getattr(loop, stream) + (tiles * strides[chosen[loop.axis][-1]] if chosen[loop.axis] else 0)
        expected[address] = array[tuple(at[axis] for axis in axes)]
    assert words.dtype == np.int64
    assert len(words) == packed_length(axes, bound, stream, size)
    assert (words == expected).all()


def test_a_word_is_filled_up_with_zeros() -> None:
    words, strides = pack(np.arange(1, 6), ("i",), [(Loop("lane", 4, w=1), ("i",))], "w", {"i": 5})
    assert words.tolist() == [1, 2, 3, 4, 5, 0, 0, 0]
    assert strides == {"i": 4}
    words, strides = pack(np.array([[1, 2], [3, 4]]), ("h", "i"), [(Loop("lane", 2, w=1), ())], "w", {"h": 2, "i": 2})
    assert (words.tolist(), strides) == ([1, 0, 2, 0, 3, 0, 4, 0], {"h": 4, "i": 2})


def test_a_bias_of_one_number_is_repeated_over_the_lanes() -> None:
    words, strides = pack(np.array(7), (), [(Loop("lane", 4, init=1), ("i",))], "init", {"i": 6})
    assert (words.tolist(), strides) == ([7, 7, 7, 7, 7, 7, 0, 0], {"i": 4})


@pytest.mark.parametrize("stride", [2, 3])
def test_a_tile_with_gaps_in_its_words_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=r"strides of w over \['lane'\] do not fill a word"):
        pack(np.arange(4), ("i",), [(Loop("lane", 4, w=stride), ("i",))], "w", {"i": 4})
