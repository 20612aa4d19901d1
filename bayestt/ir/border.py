"""Where windows meet the border of an image: stretches of places that find the same taps."""

from collections.abc import Mapping

from bayestt.algebra.einsum import Axes
from bayestt.ir.graph import Window, taps


def runs(window: Window, outs: range, size: Mapping[str, int]) -> list[tuple[range, range]]:
    """A window's places in stretches that find the same taps: (places, taps) in order."""
    found: list[tuple[range, range]] = []
    for out in outs:
        valid = taps(window, out, size)
        if found and found[-1][1] == valid:
            found[-1] = (range(found[-1][0].start, out + 1), valid)
        else:
            found.append((range(out, out + 1), valid))
    return found


def seen(window: Window, outs: range, size: Mapping[str, int]) -> range:
    """The elements of its axis, from first to last, that a window finds at some of its places."""
    ends = [out * window.stride + tap * window.dilation - window.padding for out in outs for tap in _ends(taps(window, out, size))]
    return range(min(ends), max(ends) + 1)


def ragged(window: Window, axes: Axes, size: Mapping[str, int]) -> bool:
    """Whether a result with these axes sums over (place, tap) pairs of which some find nothing and the others are no boxes of places."""
    bordered = len(runs(window, range(size[window.out]), size)) > 1 or len(taps(window, 0, size)) < size[window.tap]
    return bordered and (window.out not in axes or window.tap in axes)


def _ends(valid: range) -> tuple[int, int]:
    """First and last of the taps."""
    return valid[0], valid[-1]
