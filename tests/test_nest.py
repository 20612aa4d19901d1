"""Replaying a nest against loops and einsum written by hand, and at the ends of its registers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayestt.algebra.fixed import requantize, wrap
from bayestt.ir.nest import Loop, Memory, Nest, replay

strides = st.integers(0, 6)
loops = st.lists(st.builds(Loop, st.just("a"), st.integers(1, 3), x=strides, w=strides, init=strides, y=strides), max_size=2).map(tuple)
rounding = {"shift": st.integers(0, 12), "relu": st.booleans(), "bits": st.integers(2, 16)}
nests = st.builds(Nest, loops, loops, loops, *[st.integers(0, 5)] * 4, **rounding, target=st.just("scores"))


def memory(seed: int) -> Memory:
    """Memories longer than any address of `nests`, full of random integers."""
    random = np.random.default_rng(seed)
    return Memory(*(random.integers(-(2**15), 2**15, 80) for _ in range(5)))


def reduce_strides(nest: Nest) -> tuple[list[int], list[int]]:
    """How far the reduce loops move x and w."""
    return [loop.x for loop in nest.reduce], [loop.w for loop in nest.reduce]


@settings(max_examples=150, deadline=None)
@given(nest=nests, seed=st.integers(0, 9))
def test_replay_is_the_loops_its_docstring_shows(nest: Nest, seed: int) -> None:
    found, start = memory(seed), memory(seed)
    replay(nest, found)
    expected = start.scores.copy()
    around = nest.outer + nest.lane
    for place in np.ndindex(*(loop.extent for loop in around)):
        x, w, init, y = (
            getattr(nest, stream) + sum(i * getattr(loop, stream) for i, loop in zip(place, around, strict=True))
            for stream in ("x", "w", "init", "y")
        )
        acc = start.inits[init]
        for k in np.ndindex(*(loop.extent for loop in nest.reduce)):
            moved = [sum(i * stride for i, stride in zip(k, strides, strict=True)) for strides in reduce_strides(nest)]
            acc += start.data[x + moved[0]] * start.weights[w + moved[1]]
        expected[y] = requantize(wrap(acc, nest.acc_bits), nest.shift, nest.bits, nest.relu)
    assert (found.scores == expected).all()
    for untouched in ("data", "weights", "inits"):
        assert (getattr(found, untouched) == getattr(start, untouched)).all()


def test_a_layer_of_a_batch_is_an_einsum() -> None:
    random = np.random.default_rng(0)
    x, w, b = random.integers(-128, 128, (3, 5)), random.integers(-128, 128, (5, 4)), random.integers(-(2**20), 2**20, 4)
    held = Memory(np.concatenate([x.ravel(), np.zeros(12, np.int64)]), w.ravel(), b, *np.zeros((2, 1), np.int64))
    nest = Nest((Loop("n", 3, x=5, y=4),), (Loop("h", 5, x=1, w=4),), (Loop("i", 4, w=1, init=1, y=1),), 0, 0, 0, 15, shift=9, relu=True)
    replay(nest, held)
    assert (held.data[15:].reshape(3, 4) == requantize(np.einsum("nh,hi->ni", x, w) + b, 9, 8, relu=True)).all()
    assert nest.macs == 60


@pytest.mark.parametrize(
    ("data", "weights", "init", "shift", "relu", "acc_bits", "expected"),
    [
        ([127], [127], 0, 0, False, 32, 127),
        ([-128], [127], 0, 0, False, 32, -128),
        ([-128], [127], 0, 0, True, 32, 0),
        ([1], [1], 2**31 - 1, 0, False, 32, -128),
        ([-1], [1], -(2**31), 0, True, 32, 127),
        ([1, -1], [1, 1], 2**31 - 1, 24, False, 32, 127),
        ([1], [64], 64, 6, False, 8, -2),
        ([3], [1], 0, 1, False, 32, 2),
        ([-3], [1], 0, 1, False, 32, -1),
    ],
)
def test_sums_wrap_only_at_their_end_and_results_saturate(
    data: list[int], weights: list[int], init: int, shift: int, relu: bool, acc_bits: int, expected: int
) -> None:
    held = Memory(np.array(data), np.array(weights), np.array([init]), *np.zeros((2, 1), np.int64))
    terms = (Loop("k", len(data), x=1, w=1),)
    replay(Nest((), terms, (), 0, 0, 0, 0, shift, relu, acc_bits=acc_bits, target="scores"), held)
    assert held.scores.tolist() == [expected]


@pytest.mark.parametrize("extent", [0, -1])
def test_a_loop_runs_at_least_once(extent: int) -> None:
    with pytest.raises(ValueError, match=f"'r1' runs {extent} times"):
        Loop("r1", extent)
