"""Windows as strided views, contractions as matrix products: equal to the plain definitions, in any order in memory."""

from itertools import permutations

import numpy as np
import pytest
from graphs import windows_over
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.algebra.einsum import Axes, numbered
from bayestt.ir.contraction import contracted, seen
from bayestt.ir.graph import Op, Window, windowed


def plainly_seen(value: np.ndarray, axes: Axes, windows: tuple[Window, ...], size: dict[str, int], nothing: float) -> np.ndarray:
    """An activation through its windows, one after another, element by element."""
    for each in windows:
        at, extent = axes.index(each.axis), size[each.axis]
        around = np.moveaxis(value, at, 0)
        places = [
            [out * each.stride + tap * each.dilation - each.padding for tap in range(size[each.tap])] for out in range(size[each.out])
        ]
        empty = np.full(around.shape[1:], nothing)
        found = np.array([[around[place] if 0 <= place < extent else empty for place in taps] for taps in places])
        value = np.moveaxis(found, (0, 1), (at, at + 1))
        axes = (*axes[:at], each.out, each.tap, *axes[at + 1 :])
    return value


@settings(max_examples=100, deadline=None)
@given(data=st.data(), order=st.permutations(range(4)), nothing=st.sampled_from([0.0, -np.inf]))
def test_a_view_through_windows_is_what_they_say(data: st.DataObject, order: list[int], nothing: float) -> None:
    size = {axis: data.draw(st.integers(1, 6)) for axis in "chw"}
    axes, windows = ("n", *"chw"), data.draw(windows_over(tuple("chw"), size, 0))
    shape = [2, *(size[axis] for axis in "chw")]
    value = np.random.default_rng(0).normal(size=[shape[k] for k in order]).transpose(np.argsort(order))
    found, read = seen(value, axes, windows, size, nothing)
    assert read == windowed(Op("", "", (), window=windows), axes)
    assert np.array_equal(found, plainly_seen(value, axes, windows, size, nothing))
    with pytest.raises(ValueError, match="read-only"):
        found[:] = 0


@st.composite
def products(draw: st.DrawFn) -> tuple[Axes, Axes, Axes]:
    """Axes of an activation, of a constant, and of what they make."""
    x, w = (tuple(draw(st.permutations(names))[: draw(st.integers(0, 4))]) for names in ("abcd", "cdef"))
    kept = [axis for axis in dict.fromkeys(x + w) if draw(st.booleans())]
    return ("n", *x), w, tuple(draw(st.permutations(["n", *kept])))


@settings(max_examples=200, deadline=None)
@given(axes=products(), seed=st.integers(0, 99))
def test_a_matrix_product_is_the_einsum(axes: tuple[Axes, Axes, Axes], seed: int) -> None:
    random = np.random.default_rng(seed)
    size = {axis: int(random.integers(1, 5)) for axis in "nabcdef"}
    x_axes, w_axes, out = axes
    order = random.permutation(len(x_axes))
    x = random.integers(-9, 9, [size[x_axes[k]] for k in order]).astype(np.float32).transpose(np.argsort(order))
    w = random.integers(-9, 9, [size[axis] for axis in w_axes]).astype(np.float32)
    found = contracted(x, x_axes, w, w_axes, out)
    assert found.dtype == np.float32
    assert np.array_equal(found, np.einsum(*numbered([x, w], [x_axes, w_axes], out)))


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_channels_lie_together_after_a_layer(order: tuple[int, ...]) -> None:
    x = np.zeros((5, 4, 3)).transpose(order)
    assert contracted(x, ("n", "h", "c"), np.zeros((x.shape[2], 6)), ("c", "i"), ("n", "i", "h")).strides[1] == 8
