"""Where values of a training lie: each in its bank, apart from all others that live, and in one word what lanes read at once."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from test_training_operation import TRAININGS, all_lanes, every_training

from bayestt.algebra.formats import tt_matrix
from bayestt.ir.training import Training, training
from hw.emulate import walk
from hw.training.arch import CLASSES, Bank, Kind, TrainingArch
from hw.training.assemble import arch_for, assemble
from hw.training.emulate import lane_offsets
from hw.training.layout import WHAT, check_fits
from hw.training.operation import operations
from hw.training.program import TrainingProgram


@cache
def smallest(made: Training, lanes: int) -> TrainingProgram:
    """The program of a training on the smallest machine of so many lanes."""
    return assemble(made, arch_for(made, lanes))


@every_training
@all_lanes
def test_values_are_inside_their_bank_and_every_element_has_a_place_of_its_own(made: Training, lanes: int) -> None:
    program = smallest(made, lanes)
    depths = {Bank.ACTIVATION: "activation_depth", Bank.ERROR: "error_depth", Bank.LATENT: "latent_depth"}
    axes = _axes(program)
    taken = defaultdict(list)
    for name, place in program.layout.places.items():
        at = place.addresses([axis for axis in axes[name] if axis in place.strides], program.layout.size).ravel()
        assert len({*at}) == len(at), f"elements of {name} share a place"
        assert at.min() >= 0 and at.max() < getattr(program.arch, depths[place.bank]) * lanes
        taken[place.bank] += at.tolist()
    for bank in (Bank.ACTIVATION, Bank.LATENT):
        assert len({*taken[bank]}) == len(taken[bank]), f"values of {bank} share a place"
    assert min(taken[Bank.ACTIVATION]) >= lanes, "the first word is a one and zeros"
    begins = [place.addresses([*place.strides], program.layout.size).ravel() for place in program.layout.inits.values()]
    assert len({*np.concatenate(begins)}) == sum(map(len, begins)) and min(map(min, begins)) >= lanes
    assert max(map(max, begins)) < program.arch.init_depth * lanes


@every_training
@all_lanes
def test_what_lanes_read_at_once_lies_in_one_word_in_order(made: Training, lanes: int) -> None:
    program = smallest(made, lanes)
    for each in operations(made, lanes)[0]:
        for name, axes in {each.w: each.w_axes, each.contraction.bias: each.y_axes}.items():
            place = program.layout.places[name] if name == each.w and name else program.layout.inits.get(name)
            if place:
                outside = [axis for axis in axes if axis not in each.lanes and axis in place.strides]
                at = place.addresses([*outside, *each.lanes], program.layout.size).reshape(
                    *(program.layout.size[axis] for axis in outside), -1
                )
                assert (at % lanes == np.arange(at.shape[-1])).all() and (at // lanes == at[..., :1] // lanes).all()


@every_training
@all_lanes
def test_what_is_read_was_last_written_by_whom_it_is_of(made: Training, lanes: int) -> None:
    """Instruction by instruction, every element's last writer: so no value lies on another that is still read."""
    program = smallest(made, lanes)
    arch, (steps, _, _) = program.arch, operations(made, lanes)
    owner = {bank: np.full(1 << arch.address_bits, "", object) for bank in Bank}
    owner[Bank.ACTIVATION][program.layout.addresses("image", made.image)] = "image"
    for name, parameter in made.parameters.items():
        owner[Bank.LATENT][program.layout.addresses(name, parameter.axes)] = name
    for instruction in program.image_part:
        at, each = walk(instruction, arch), steps[instruction.number].contraction
        match Kind(instruction.kind):
            case Kind.MULTIPLY:
                step, across = steps[instruction.number], np.arange(instruction.lanes)
                assert {*owner[Bank(instruction.x_from)][at["x"]].flat} == {step.x}
                words = at["w"][..., None] * lanes + across
                assert {*owner[Bank(instruction.w_from)][words].flat} == {step.w}
                owner[Bank(instruction.target)][(at["y"][:, :1] + lane_offsets(instruction)) % len(owner[Bank.ERROR])] = each.name
            case Kind.PEAK | Kind.ODDS:
                assert {*owner[Bank.ACTIVATION][at["x"]].flat} == {made.scored.name}
            case Kind.CHANCE:
                owner[Bank.ERROR][at["y"]] = "error"
            case Kind.MASK:
                assert {*owner[Bank.ACTIVATION][at["x"]].flat} == {each.mask}
                assert {*owner[Bank.ERROR][at["y"]].flat} == {each.name}


def test_errors_take_the_room_of_others() -> None:
    made = TRAININGS["paper's"]
    program = smallest(made, 16)
    sizes = {name: np.prod(made.shape(axes)) for name, axes in _whole(made).items() if program.layout.places[name].bank is Bank.ERROR}
    assert len(sizes) == 6 and max(sizes.values()) <= 16 * program.arch.error_depth < sum(sizes.values())


def test_of_a_layer_in_strips_one_strip_is_kept() -> None:
    whole, strips = (smallest(made, 16) for made in (TRAININGS["paper's"], TRAININGS["paper's strips"]))
    pieces = strips.layout.pieces["fc0.i1"]
    for name in ("fc0.partial0", "fc0.partial1", "fc0.partial2", "fc0.partial0.error", "fc0.partial2.error"):
        assert not {*pieces} & {*strips.layout.places[name].strides}
    assert {*pieces} <= {*strips.layout.places["fc0"].strides}, "the next layer reads it"
    assert strips.arch.activation_depth < whole.arch.activation_depth / 3 and strips.arch.error_depth < whole.arch.error_depth / 3


def test_more_scores_than_a_machine_takes_are_refused() -> None:
    made = {scores: training({"fc": tt_matrix([scores // 4, 4], [4, 4], 3)}) for scores in (CLASSES, CLASSES + 4)}
    assert arch_for(made[CLASSES]).lanes == 16
    with pytest.raises(ValueError, match="the training has 260 scores, the machine takes 256 at most: give a net with fewer"):
        arch_for(made[CLASSES + 4])


@pytest.mark.parametrize(("field", "what"), WHAT.items(), ids=WHAT)
def test_what_does_not_fit_is_named(field: str, what: str) -> None:
    arch = TrainingArch(**{field: 7})
    check_fits({field: 7}, arch)
    with pytest.raises(ValueError, match=f"the training needs 8 {what}, there is room for 7: raise TrainingArch.{field}"):
        check_fits({field: 8}, arch)


def _axes(program: TrainingProgram) -> Mapping[str, tuple[str, ...]]:
    """By name the pieces of a value's axes."""
    layout = program.layout
    pieces = {
        name: [piece for axis in axes for piece in layout.pieces.get(axis, (axis,))] for name, axes in _whole(program.training).items()
    }
    return {name: tuple(piece for piece in each if layout.size[piece] > 1) for name, each in pieces.items()}


def _whole(made: Training) -> Mapping[str, tuple[str, ...]]:
    """By name the axes of a value that has a place."""
    gradients = {*made.gradients.values()}
    axes = {"image": made.image, "error": made.scored.axes} | {name: parameter.axes for name, parameter in made.parameters.items()}
    return axes | {each.name: each.axes for each in made.contractions if each.name not in gradients}
