"""Where every tensor lies, and how every step is cut, so that all fits the memories of a machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bayestt.ir.cut import Cut, Work, cut, demands
from bayestt.ir.graph import Op
from bayestt.ir.nest import Nest
from bayestt.ir.place import allocate, length
from bayestt.ir.room import Room
from bayestt.ir.step import Step
from bayestt.ir.steps import Tensor, steps


@dataclass(frozen=True)
class Plan:
    """Steps in order, each with its cut; tensors, the places in external memory, and the address of every place in its memory."""

    steps: tuple[Step, ...]
    cuts: tuple[Cut, ...]
    tensors: Mapping[str, Tensor]
    external: frozenset[str]
    addresses: Mapping[str, int]
    data_size: int
    external_size: int

    @property
    def output(self) -> str:
        """The tensor of the scores."""
        return self.steps[-1].group.y


def plan(items: Sequence[Step | Op], image: Op, tile: Nest, size: Mapping[str, int], room: Room) -> Plan:
    """The plan of bound groups that keeps in external memory only what does not fit; an op whose smallest strip does not is refused.

    Wherever tensors and the strips of others do not fit beside each other, the largest of them, of several the longest alive, moves out.
    """
    external: frozenset[str] = frozenset()
    while True:
        found = _planned(items, image, tile, size, room, external)
        if isinstance(found, Plan):
            return found
        external |= found


def _planned(
    items: Sequence[Step | Op], image: Op, tile: Nest, size: Mapping[str, int], room: Room, external: frozenset[str]
) -> Plan | frozenset[str]:
    """The plan in which these places lie in external memory; where it does not fit, places that must go there too."""
    made, tensors = steps(items, image, tile, size, external)
    lives = _lives(made, tensors)
    given = tensors[image.name].place
    apart = {given} - external if room.image else set()
    if apart and length(tensors[given].strides, size) > len(room.image):
        return frozenset(apart)
    # A reduction that its tile overshoots reads on behind its operand, times zero weights: that must still be memory.
    overshoot = sum((loop.extent - 1) * loop.x for loop in tile.reduce)
    inside = {place: length(tensors[place].strides, size) + overshoot for place in lives if place not in external | apart}
    works = [Work(step, tensors, _outside(step, tensors, external), tile, size) for step in made]
    if crowded := _crowded(works, inside, lives, external, room):
        return crowded
    addresses, data_size = allocate(inside, lives)
    if beyond := [tensors[place].origin for place in inside if addresses[place] + inside[place] > room.data]:
        return frozenset(beyond)
    alive = [_alive(inside, lives, number) for number in range(len(works))]
    cuts = [cut(work, room, [(addresses[p], inside[p]) for p in places]) for work, places in zip(works, alive, strict=True)]
    if None in cuts:
        stuck = [places for found, places in zip(cuts, alive, strict=True) if found is None]
        return frozenset(tensors[_largest(places, inside, lives)].origin for places in stuck)
    ends = [buffer.address + buffer.length for found in cuts for buffer in found.buffers.values()]
    outside, external_size = allocate({place: length(tensors[place].strides, size) for place in external}, lives)
    addresses |= outside | {place: room.image.start for place in apart}
    return Plan(tuple(made), tuple(cuts), tensors, external, addresses, max([data_size, *ends]), external_size)


def _lives(made: Sequence[Step], tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """First and last step of every place; the image lives before the first step, scores lie elsewhere."""
    lives: dict[str, tuple[int, int]] = {}
    for number, step in enumerate(made):
        for name in step.group.x:
            place = tensors[name].place
            lives[place] = lives.get(place, (-1, 0))[0], number
        lives[step.group.y] = number, number
    del lives[made[-1].group.y]
    return lives


def _outside(step: Step, tensors: Mapping[str, Tensor], external: frozenset[str]) -> tuple[str, ...]:
    """A step's tensors that lie in external memory."""
    return tuple(name for name in dict.fromkeys((*step.group.x, step.group.y)) if tensors[name].origin in external)


def _crowded(
    works: Sequence[Work], inside: Mapping[str, int], lives: Mapping[str, tuple[int, int]], external: frozenset[str], room: Room
) -> frozenset[str]:
    """The places that must move out so that every step has room for strips of one row, or for the smallest when it is alone."""
    moved: frozenset[str] = frozenset()
    for number, work in enumerate(works):
        step, tensors = work.step, work.tensors
        while True:
            alive = [place for place in _alive(inside, lives, number) if tensors[place].origin not in moved]
            row, least = demands(replace(work, outside=_outside(step, tensors, external | moved)), room)
            if sum(inside[place] for place in alive) + (row if alive else least) <= room.data:
                break
            if not alive:
                raise ValueError(
                    f"op {step.group.y!r} needs {least} elements of data memory for its smallest strip, and the machine has room for "
                    f"{room.data}: enlarge that memory"
                )
            moved |= {tensors[_largest(alive, inside, lives)].origin}
    return moved


def _alive(inside: Mapping[str, int], lives: Mapping[str, tuple[int, int]], number: int) -> list[str]:
    """The places in the data memory that a step must leave alone."""
    return [place for place in inside if lives[place][0] <= number <= lives[place][1]]


def _largest(places: Sequence[str], inside: Mapping[str, int], lives: Mapping[str, tuple[int, int]]) -> str:
    """The largest of some places, of several the longest alive."""
    return max(places, key=lambda place: (inside[place], lives[place][1] - lives[place][0]))
