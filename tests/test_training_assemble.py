"""Assembling a training: what is done in which order, on the smallest machine, and what does not fit is said."""

from dataclasses import replace
from itertools import groupby
from math import prod

import numpy as np
import pytest
from learnable import as_lists, small_chain
from test_training_layout import smallest
from test_training_operation import TRAININGS, every_training

from bayestt.algebra.formats import cp, tt_matrix, tucker
from bayestt.ir.descend import Rule, descend
from bayestt.ir.start import start
from bayestt.ir.training import Training, training
from hw.emulate import shape
from hw.training.arch import SPACING, Kind, TrainingArch
from hw.training.assemble import arch_for, assemble
from hw.training.emulate import emulate
from hw.training.layout import WHAT

FREE = {Kind.MULTIPLY, Kind.BIAS, Kind.MASK, Kind.MOVE, Kind.CLEAN}
"""Kinds that take a step a cycle."""


@every_training
@pytest.mark.parametrize("lanes", [1, 16])
def test_one_less_of_anything_is_refused(made: Training, lanes: int) -> None:
    arch = arch_for(made, lanes)
    assert assemble(made, arch).needed == {field: getattr(arch, field) for field in WHAT}
    for field, what in WHAT.items():
        if (there := getattr(arch, field)) > (2 if field in ("ranks", "contractions") else 1):
            with pytest.raises(ValueError, match=f"the training needs {there} {what}, there is room for {there - 1}: raise .*{field}$"):
                assemble(made, replace(arch, **{field: there - 1}))


@every_training
@pytest.mark.parametrize("lanes", [2, 16])
def test_each_contraction_is_multiplied_once_or_once_a_strip_and_once_more_backward(made: Training, lanes: int) -> None:
    program = smallest(made, lanes)
    multiplied = dict.fromkeys(range(len(made.contractions)), 0)
    for each in program.image_part:
        if each.kind == Kind.MULTIPLY:
            multiplied[each.number] += prod(shape(each)) * each.lanes
    for number, each in enumerate(made.contractions):
        needed = prod(made.shape(tuple(dict.fromkeys(axis for _, axes in each.args for axis in axes))))
        again = each in made.forward and made.strips & {*each.axes} and not each.bias
        assert multiplied[number] == needed * (2 if again else 1), each.name


@every_training
def test_a_batch_moves_all_parameters_then_scales_then_shifts(made: Training) -> None:
    kinds = [(kind, len([*each])) for kind, each in groupby(each.kind for each in smallest(made, 4).batch_part)]
    ranks = {parameter.rank for parameter in made.parameters.values()} - {""}
    strengths, moves, *scales, cleans, controls = kinds if ranks else [(Kind.STRENGTH, 0), *kinds]
    assert (strengths, moves) == ((Kind.STRENGTH, len(ranks)), (Kind.MOVE, len(made.parameters)))
    assert scales == [(Kind.SCALE, 1), (Kind.SURVIVE, 1)] * len(ranks)
    assert (cleans, controls) == ((Kind.CLEAN, len(made.parameters)), (Kind.CONTROL, len(made.contractions)))


@every_training
def test_all_others_have_eight_cycles_for_a_step(made: Training) -> None:
    program = smallest(made, 4)
    for each in (*program.image_part, *program.batch_part):
        inner = each.loops[0]
        still = not any(inner[stream] for stream in ("x", "w", "init", "y"))
        assert each.kind in FREE or (each.reduce == 1 and inner.steps + 1 == SPACING and still)


def test_the_same_training_gives_the_same_words() -> None:
    first, second = (assemble(made, arch_for(made, 4)) for made, _, _ in (small_chain(), small_chain()))
    assert first.code == second.code and first.layout == second.layout


@pytest.mark.parametrize("loops", [1, 2])
def test_too_few_loops_are_refused(loops: int) -> None:
    made, _, _ = small_chain()
    arch = arch_for(made, 4)
    assert arch.loops == 3
    with pytest.raises(ValueError, match=f"an instruction needs {loops + 1} loops, there is room for {loops}: .* of more loops"):
        assemble(made, replace(arch, loops=loops))


def test_entries_of_more_than_two_ranks_are_refused() -> None:
    words = "parameter 'fc.core0' is of ranks fc.r1, fc.r2, fc.r3, fc.r4, the machine takes at most two of an entry: give another format"
    with pytest.raises(ValueError, match=words):
        arch_for(training({"fc": tucker([2, 4], [4, 4], 2)}))
    for form in (tt_matrix([2, 2, 2], [2, 2, 2], 2), cp([2, 2, 2], [2, 2, 2], 2)):
        assert arch_for(training({"fc": form})).ranks == 1 + sum(form.size[axis] for axis in form.ranks)


def test_a_machine_is_as_large_as_a_training_needs() -> None:
    """Here for 8 x 256 x 32 partial sums and more."""
    made = training({"fc": tt_matrix([8, 8], [32, 32], 256)})
    arch = arch_for(made, 1)
    assert arch.activation_depth > 1 << 16 and arch.address_bits == 18
    assert assemble(made, arch).needed["activation_depth"] == arch.activation_depth


def test_an_axis_longer_than_a_loop_is_refused_and_walked_by_a_machine_of_longer_ones() -> None:
    """5003 pixels along one axis, a prime, of which a loop of 12 bits runs over 4096 at most."""
    made = training({"fc": tt_matrix([4], [5003], 1)})
    images, labels = np.random.default_rng(0).integers(-128, 128, (1, 5003)), np.array([1])
    state = start(made, images, labels, 0)
    words = "5003 indices, a loop 4096 steps at most: give a net of smaller modes, or assemble for a TrainingArch of more extent_bits"
    with pytest.raises(ValueError, match=words):
        arch_for(made, 4)
    program = assemble(made, TrainingArch(4, extent_bits=13, activation_depth=1 << 13, latent_depth=1 << 13))
    assert as_lists(emulate(program, state, images, labels, Rule(6))) == as_lists(descend(made, state, images, labels, Rule(6)))


def test_sixteen_lanes_are_taken_unless_told_and_no_loop_nor_bit_of_one_too_many() -> None:
    arch = arch_for(TRAININGS["strips"])
    assert arch == arch_for(TRAININGS["strips"], 16) and arch.lanes == 16
    with pytest.raises(ValueError, match=f"needs {arch.loops} loops, there is room for {arch.loops - 1}"):
        assemble(TRAININGS["strips"], replace(arch, loops=arch.loops - 1))
    program = assemble(TRAININGS["strips"], arch)
    longest = max(loop.steps for each in (*program.image_part, *program.batch_part) for loop in each.loops)
    assert longest.bit_length() == arch.extent_bits
