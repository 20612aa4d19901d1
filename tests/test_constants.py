"""Constants of a plan: what each part's places say is what the group has there."""

from itertools import product

import pytest
from graphs import TILES
from windowed import residual_network

from bayestt.ir.bind import bind
from bayestt.ir.constants import COPY, constants, part_of
from bayestt.ir.group import groups
from bayestt.ir.plan import plan
from bayestt.ir.room import Room


@pytest.mark.parametrize("room", [Room(), Room(3 * 200, 300, 8)])
@pytest.mark.parametrize("tile", ["16 x 4 silicon", "one multiplier"])
def test_every_weight_and_bias_lies_where_its_part_says(tile: str, room: Room) -> None:
    graph = residual_network(blocks=1, widths=(4, 8), extent=8)
    machine = TILES[tile]
    size = {**graph.size, "n": 3 if machine.lane else 1, "+": 2}
    found = plan([bind(group, machine, size)[0] for group in groups(graph)], graph.input, machine, size, room)
    packed = constants(found, machine, size)
    assert (COPY in packed.places) == bool(found.external)
    for number, (step, cut) in enumerate(zip(found.steps, found.cuts, strict=True)):
        lanes = {axis: loop.extent for loop, axes in step.lane for axis in axes if loop.w}
        for box in cut.boxes:
            place = packed.places[part_of(number, step, box)]
            for index in product(*(box[axis] for axis in step.group.weight_axes)):
                at = dict(zip(step.group.weight_axes, index, strict=True))
                address = place["w"].at(box)
                for axis, i in at.items():
                    inside, lane = divmod(i - box[axis].start, lanes.get(axis, 1))
                    address += inside * place["w"].strides[axis] + lane
                assert packed.weights[address] == step.group.weights[index]
            for k in box[step.group.init_axes[0]] if step.group.init_axes else ():
                inside, lane = divmod(k - box[step.group.init_axes[0]].start, lanes.get(step.group.init_axes[0], 1))
                address = place["init"].at(box) + inside * place["init"].strides[step.group.init_axes[0]] + lane
                assert packed.inits[address] == step.group.init[k]
