"""Contractions in pieces are the contractions, and what their lanes run over is what lanes can."""

from math import prod

import numpy as np
import pytest
from learnable import small_chain

from bayestt.algebra.einsum import einsum
from bayestt.algebra.formats import cp, tt_matrix
from bayestt.ir.training import Training, training
from hw.training.operation import in_pieces, layer_of, operations, parameter_of

PAPERS = {"fc0": tt_matrix((4, 4, 2, 16), (7, 4, 2, 16), 16), "fc1": tt_matrix((1, 16), (32, 16), 16)}
TRAININGS = {
    "chain": small_chain(False)[0],
    "strips": small_chain()[0],
    "one core": training({"fc": tt_matrix([6], [10], 1)}),
    "pieces": training({"a": tt_matrix([4, 6], [3, 5], 3), "b": cp([3, 2], [12, 2], 4), "c": tt_matrix([5, 1], [6, 1], 1)}),
    "powers": training({"a": tt_matrix([2, 12], [4, 3], 5), "b": tt_matrix([3, 20], [6, 4], 3)}),
    "paper's": training(PAPERS),
    "paper's strips": training(PAPERS, strips={"fc0": "i1"}),
}
LANES = [1, 2, 4, 8, 16]
every_training = pytest.mark.parametrize("made", TRAININGS.values(), ids=TRAININGS)
all_lanes = pytest.mark.parametrize("lanes", LANES)


@every_training
@all_lanes
def test_every_operation_is_its_contraction(made: Training, lanes: int) -> None:
    """The same numbers under the axes of the training and under pieces, row-major both."""
    random = np.random.default_rng(0)
    steps, size, _ = operations(made, lanes)
    assert tuple(each.contraction for each in steps) == made.contractions
    for each in steps:
        arrays = {name: random.integers(-9, 10, made.shape(axes)).astype(float) for name, axes in each.contraction.args}
        expected = einsum([*arrays.values()], [axes for _, axes in each.contraction.args], each.contraction.axes)
        read = {each.x: each.x_axes} | ({each.w: each.w_axes} if each.w else {})
        assert {*read} == {*arrays}
        parts = [arrays[name].reshape([size[axis] for axis in axes]) for name, axes in read.items()]
        assert einsum(parts, [*read.values()], each.y_axes).ravel().tolist() == expected.ravel().tolist()


@every_training
@all_lanes
def test_lanes_run_over_what_only_w_and_the_result_have(made: Training, lanes: int) -> None:
    steps, size, _ = operations(made, lanes)
    for each in steps:
        assert prod(size[axis] for axis in each.lanes) <= lanes
        assert {*each.lanes} <= ({*each.w_axes} & {*each.y_axes}) - {*each.x_axes, *each.strip}
        assert sorted((*each.outer, *each.lanes, *each.strip)) == sorted(each.y_axes)
        assert {*each.summed} == {*each.x_axes, *each.w_axes} - {*each.y_axes}


@every_training
@all_lanes
def test_a_value_is_read_in_the_pieces_in_which_it_is_made(made: Training, lanes: int) -> None:
    steps, size, pieces = operations(made, lanes)
    axes = {each.contraction.name: each.y_axes for each in steps}
    axes["image"] = tuple(axis for axis in in_pieces(made.image, pieces) if size[axis] > 1)
    for name, read in ((name, read) for each in steps for name, read in ((each.x, each.x_axes), (each.w, each.w_axes))):
        assert read == axes.setdefault(name, read)
    assert all(prod(size[piece] for piece in names) == size[axis] for axis, names in pieces.items())


@all_lanes
def test_without_a_second_operand_or_a_free_axis_one_lane_works(lanes: int) -> None:
    steps, _, _ = operations(TRAININGS["chain"], lanes)
    assert {each.contraction.name for each in steps if not each.w} == {"fc1.bias.gradient", "fc2.bias.gradient"}
    assert all(not each.lanes for each in steps if not each.w)


@pytest.mark.parametrize(("lanes", "taken"), [(16, (12,)), (8, (4,)), (2, (2,))])
def test_lanes_take_a_whole_axis_or_a_power_of_two_of_it(lanes: int, taken: tuple[int, ...]) -> None:
    steps, size, pieces = operations(training({"fc": tt_matrix([12], [3], 1)}), lanes)
    assert (steps[0].x, steps[0].w) == ("image", "fc.core0")
    assert tuple(size[axis] for axis in steps[0].lanes) == taken
    assert steps[0].lanes == pieces["fc.i1"][-1:] and prod(size[axis] for axis in pieces["fc.i1"]) == 12


def test_lanes_take_two_axes_where_that_takes_fewer_cycles() -> None:
    """The first core has a row of 2 and a rank of 4 that the image lacks, and sums 8: with both in 8 lanes none of them waits."""
    steps, size, _ = operations(training({"fc": tt_matrix([2, 4], [8, 8], 4)}), 8)
    assert steps[0].w == "fc.core0" and sorted(size[axis] for axis in steps[0].lanes) == [2, 4]


def test_axes_of_two_layers_share_what_both_have() -> None:
    """Rows 4 x 6 are read as columns 12 x 2: an axis of 2 that both have, one of 3 and the whole 4."""
    _, size, pieces = operations(TRAININGS["pieces"], 1)
    assert [size[axis] for axis in pieces["a.i2"]] == [3, 2]
    assert pieces["b.j1"] == ("a.i1", pieces["a.i2"][0]) and pieces["a.i2"][1:] == pieces["b.j2"]


def test_modes_without_common_parts_are_refused() -> None:
    words = r"value 'a' is made with axes \[3, 4\] and read with \[4, 3\], which have no common parts: give modes that are products"
    with pytest.raises(ValueError, match=words):
        operations(training({"a": tt_matrix([3, 4], [4, 4], 2), "b": tt_matrix([2, 2], [4, 3], 2)}), 4)


def test_names_say_of_which_layer_and_parameter_they_are() -> None:
    made, _, _ = small_chain()
    named = {each.name: parameter_of(made, each) for each in made.contractions}
    known = {"fc1": "fc1.core1", "fc1.partial0": "fc1.core0", "fc2.bias.gradient": "fc2.bias", "fc1.error": "fc2.core1"}
    assert known.items() <= named.items()
    assert all(named[gradient] == name for name, gradient in made.gradients.items())
    assert layer_of("fc1.core0") == "fc1" and layer_of("block.fc1.r1") == "block.fc1"
