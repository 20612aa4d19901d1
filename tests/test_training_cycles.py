"""The formula of cycles against counts by hand, and in what part of them multipliers work; the gateware is held to it elsewhere."""

from itertools import pairwise
from math import prod

import pytest
from learnable import small_chain
from test_training_layout import smallest
from test_training_operation import TRAININGS, all_lanes

from hw.emulate import shape
from hw.training.arch import Kind, TrainingArch
from hw.training.cycles import cycles, instruction_cycles
from hw.training.script import pixels


def test_known_instructions() -> None:
    """Of 5 sums of 6 products in 4 lanes each begins 6 cycles after the one before; in 9 lanes, 9. Units take 8 cycles for each of 3."""
    layout, loops = TrainingArch().instruction, [{"steps": 5}, {"steps": 4}]
    multiply = {"kind": Kind.MULTIPLY, "loops": loops, "reduce": 1}
    assert instruction_cycles(layout.const({**multiply, "lanes": 4})) == 28 + 4 * 6 + 6 + 4
    assert instruction_cycles(layout.const({**multiply, "lanes": 9})) == 28 + 4 * 9 + 6 + 9
    move = {"kind": Kind.MOVE, "loops": [{"steps": 7}, {"steps": 2}], "reduce": 1, "lanes": 1}
    assert instruction_cycles(layout.const(move)) == 42 + 3 * 8
    assert instruction_cycles(layout.const({"kind": Kind.BIAS, "loops": [{"steps": 7}], "lanes": 1})) == 42 + 8


@all_lanes
@pytest.mark.parametrize("images", [1, 2, 7])
def test_every_image_takes_as_long_and_a_batch_ends_once(lanes: int, images: int) -> None:
    program = smallest(TRAININGS["strips"], lanes)
    places = pixels(program)
    image = int(places.max() - places.min()) + 1 + 1 + sum(map(instruction_cycles, program.image_part))
    assert cycles(program, images) == images * image + sum(map(instruction_cycles, program.batch_part))


def test_the_pixels_of_a_small_image_lie_side_by_side() -> None:
    made, _, _ = small_chain()
    assert sorted(pixels(smallest(made, 1)).tolist()) == [*range(1, 17)]


@pytest.mark.parametrize("lanes", [4, 16])
def test_multipliers_of_the_papers_net_work_in_nine_cycles_of_ten(lanes: int) -> None:
    """896-512-16 of rank 16: the multiplications of all contractions by those for which there would be time, from the label to the loss."""
    made = TRAININGS["paper's"]
    program = smallest(made, lanes)
    needed = sum(prod(made.shape(tuple(dict.fromkeys(axis for _, axes in each.args for axis in axes)))) for each in made.contractions)
    multiplied = [prod(shape(each)) * each.lanes for each in program.image_part if each.kind == Kind.MULTIPLY]
    image = (cycles(program, 2) - cycles(program, 1)) * lanes
    assert needed == sum(multiplied) == 2_904_592
    assert 0.9 <= needed / image < 1


@pytest.mark.parametrize("name", ["paper's", "paper's strips"])
def test_twice_the_lanes_take_little_more_than_half_the_cycles_of_an_image(name: str) -> None:
    programs = [smallest(TRAININGS[name], lanes) for lanes in (1, 2, 4, 8, 16)]
    images = [cycles(program, 2) - cycles(program, 1) for program in programs]
    assert all(0.5 < fewer / more < 0.57 for more, fewer in pairwise(images))
