"""Places in memory: no two tensors alive together overlap, no two elements of one share an address."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bayestt.ir.place import allocate, arrange, length, squeeze
from bayestt.ir.schedule import Layout

lives = st.tuples(st.integers(-1, 8), st.integers(0, 8)).map(lambda ends: (min(ends), max(ends)))


@given(st.lists(st.tuples(st.integers(1, 20), lives), max_size=12))
def test_tensors_alive_together_lie_apart(demands: list[tuple[int, tuple[int, int]]]) -> None:
    lengths = {f"t{k}": extent for k, (extent, _) in enumerate(demands)}
    alive = {f"t{k}": life for k, (_, life) in enumerate(demands)}
    addresses, size = allocate(lengths, alive)
    for one, other in combinations(lengths, 2):
        apart = addresses[one] + lengths[one] <= addresses[other] or addresses[other] + lengths[other] <= addresses[one]
        meet = alive[one][0] <= alive[other][1] and alive[other][0] <= alive[one][1]
        assert apart or not meet
    assert size == max((addresses[name] + lengths[name] for name in lengths), default=0)
    needed = max((sum(lengths[n] for n in lengths if alive[n][0] <= step <= alive[n][1]) for step in range(-1, 9)), default=0)
    assert needed <= size <= sum(lengths.values())


def test_places_are_used_again() -> None:
    lengths = {"x": 10, "a": 4, "b": 10, "c": 4}
    addresses, size = allocate(lengths, {"x": (-1, 0), "a": (0, 1), "b": (1, 2), "c": (2, 2)})
    assert addresses == {"x": 0, "b": 0, "a": 10, "c": 10}
    assert size == 14


spans = st.tuples(st.integers(0, 30), st.integers(1, 8))


@given(st.lists(spans, max_size=4), st.lists(st.integers(1, 10), min_size=1, max_size=3), st.integers(1, 60))
def test_what_is_squeezed_in_lies_between_what_is_there(busy: list[tuple[int, int]], extents: list[int], size: int) -> None:
    lengths = {f"b{k}": extent for k, extent in enumerate(extents)}
    addresses = squeeze(lengths, busy, size)
    taken = {address for start, length in busy for address in range(start, start + length)}
    if addresses is None:
        widest = max(len(run) for run in "".join("x" if k in taken else " " for k in range(size)).split("x"))
        assert widest < sum(extents)
        return
    for name, extent in lengths.items():
        own = range(addresses[name], addresses[name] + extent)
        assert own.stop <= size and not taken & set(own)
        taken |= set(own)


@given(st.data())
def test_strides_keep_elements_apart_and_wishes_kept(data: st.DataObject) -> None:
    axes = tuple(data.draw(st.permutations("nabc"))[: data.draw(st.integers(0, 4))])
    size = {axis: data.draw(st.integers(1, 4)) for axis in "nabc"}
    wanted = {axis: data.draw(st.integers(1, 12)) for axis in axes if data.draw(st.booleans())}
    extents = tuple(size[axis] for axis in axes)
    strides = arrange(axes, size, wanted)
    if strides is None:
        ordered = sorted((stride, size[axis]) for axis, stride in wanted.items())
        assert any(below[0] * below[1] > above[0] for below, above in combinations(ordered, 2))
        return
    assert tuple(strides) == axes
    assert strides.items() >= wanted.items()
    taken = np.ravel(Layout(0, axes, extents, tuple(strides.values())).addresses) if axes else np.zeros(1, int)
    assert len(set(taken.tolist())) == taken.size
    assert max(taken) + 1 == length(strides, size)


def test_strides_without_wishes_are_row_major() -> None:
    assert arrange(("n", "h", "w"), {"n": 2, "h": 3, "w": 4}, {}) == {"n": 12, "h": 4, "w": 1}
    assert arrange(("n", "h", "w"), {"n": 2, "h": 3, "w": 4}, {"n": 1}) == {"n": 1, "h": 8, "w": 2}
    assert arrange(("h", "w"), {"h": 3, "w": 4}, {"h": 1, "w": 2}) is None
    assert arrange(("h", "w"), {"h": 1, "w": 4}, {"h": 1, "w": 1}) == {"h": 1, "w": 1}
