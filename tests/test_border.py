"""Borders: stretches of places with the same taps, and what they see, against counting one place after another."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from bayestt.ir.border import ragged, runs, seen
from bayestt.ir.graph import Window, taps


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, dict[str, int], range]:
    """A legal window, sizes, and some of its places."""
    size = {"h": draw(st.integers(1, 9)), "t": draw(st.integers(1, 4))}
    window = Window("h", "o", "t", draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 4)))
    found = [bool(taps(window, out, size)) for out in range(20)]
    window = window if found[0] else Window("h", "o", "t", window.stride, window.dilation)
    size["o"] = draw(st.integers(1, [*(bool(taps(window, out, size)) for out in range(20)), False].index(False)))
    first = draw(st.integers(0, size["o"] - 1))
    return window, size, range(first, draw(st.integers(first + 1, size["o"])))


def found_by(window: Window, out: int, size: dict[str, int]) -> list[tuple[int, int]]:
    """Every (tap, element) of a place that is there, by trying all of them."""
    places = [(tap, out * window.stride + tap * window.dilation - window.padding) for tap in range(size["t"])]
    return [(tap, element) for tap, element in places if 0 <= element < size["h"]]


@given(windows())
def test_a_run_is_a_box_of_places_and_taps_that_are_all_there(case: tuple[Window, dict[str, int], range]) -> None:
    window, size, outs = case
    stretches = runs(window, outs, size)
    pairs = [pair for places, valid in stretches for pair in product(places, valid)]
    assert sorted(pairs) == sorted((out, tap) for out in outs for tap, _ in found_by(window, out, size))
    assert all(one[1] != other[1] for one, other in zip(stretches, stretches[1:], strict=False))


@given(windows())
def test_what_a_window_sees_runs_from_its_first_element_to_its_last(case: tuple[Window, dict[str, int], range]) -> None:
    window, size, outs = case
    elements = [element for out in outs for _, element in found_by(window, out, size)]
    assert seen(window, outs, size) == range(min(elements), max(elements) + 1)


@given(windows())
def test_only_sums_over_what_is_no_box_are_ragged(case: tuple[Window, dict[str, int], range]) -> None:
    window, size, _ = case
    all_there = all(len(found_by(window, out, size)) == size["t"] for out in range(size["o"]))
    assert not ragged(window, ("n", "o"), size)
    assert ragged(window, ("n", "t"), size) == ragged(window, ("n",), size) == ragged(window, ("o", "t"), size) == (not all_there)


def test_a_kernel_of_three_with_border_makes_three_runs() -> None:
    size = {"h": 8, "o": 8, "t": 3}
    assert runs(Window("h", "o", "t", padding=1), range(8), size) == [
        (range(0, 1), range(1, 3)),
        (range(1, 7), range(0, 3)),
        (range(7, 8), range(0, 2)),
    ]
