"""What a training step takes, against counts by hand."""

import pytest
from graphs import written

from bayestt.ir.differentiate import differentiate
from bayestt.ir.graph import verify
from bayestt.report.training_step import Memory, memory, multiplications

NET = """x INPUT n h
    v VIEW n a b < x
    w CONST a i r
    u CONST b r
    y CONTRACT n i < v w u
    c CONST i
    z ADD n i < y c
    p RELU n i < z
    d CONST i o
    s CONTRACT n o < p d"""
SIZE = {"h": 12, "a": 3, "b": 4, "i": 5, "r": 2, "o": 7}
STEP = differentiate(verify(written(NET, **SIZE)))
"""x u takes 24 (x w would take 120), times w 30; back to w and to x u 30 each, to u 24; the last layer 35, back to d and to p 35 each."""


@pytest.mark.parametrize("images", [1, 10])
def test_multiplications_are_those_counted_by_hand(images: int) -> None:
    assert multiplications(STEP, images) == images * (24 + 30 + 30 + 30 + 24 + 3 * 35)


def test_what_is_not_pairwise_is_not_counted() -> None:
    with pytest.raises(ValueError, match="'y' multiplies 3 operands: give a graph without windows, folded or differentiated"):
        multiplications(verify(written(NET, **SIZE)))
    with pytest.raises(ValueError, match="through windows"):
        multiplications(verify(written("x INPUT n h\nw CONST k\ny CONTRACT n o < x w | h=o+k", h=4, k=2, o=3)))


@pytest.mark.parametrize("images", [1, 10])
def test_memory_is_what_is_read_again_and_what_is_there_at_the_busiest_moment(images: int) -> None:
    """Kept: x, x u and p; busiest when the error is made, of scores and labels: those and these."""
    parameters, kept = 3 * 5 * 2 + 4 * 2 + 5 + 5 * 7, 12 + 3 * 2 + 5
    assert memory(STEP, images) == Memory(parameters, parameters, images * kept, images * (kept + 7 + 1 + 7))


def test_a_graph_that_does_not_train_has_no_training_memory() -> None:
    with pytest.raises(ValueError, match="no training step"):
        memory(verify(written(NET, **SIZE)))
