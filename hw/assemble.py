"""From the nests of a schedule to the instruction words of our machine."""

from dataclasses import replace
from itertools import product

import numpy as np

from bayestt.ir.nest import Loop, Nest
from bayestt.ir.schedule import Schedule
from hw.arch import STREAMS, Arch
from hw.program import Program, check_fits


def assemble(schedule: Schedule, arch: Arch) -> Program:
    """The program of a schedule that was lowered for `arch.tile`; one for another machine, or too large for this one, is refused."""
    if schedule.images != arch.rows:
        raise ValueError(f"the schedule runs {schedule.images} images at once, expected {arch.rows}: lower the graph with Arch.tile")
    for name, constants in (("weights", schedule.weights), ("inits", schedule.inits)):
        if len(constants) % arch.lanes:
            raise ValueError(f"{len(constants)} {name} do not fill words of {arch.lanes}: lower the graph with Arch.tile")
    check_fits("data", -(-schedule.data_size // arch.rows), arch.data_depth, "data_depth")
    check_fits("score", -(-schedule.score_size // arch.rows), arch.score_depth, "score_depth")
    code = tuple(word for nest in schedule.nests for word in instructions(nest, arch))
    for nest in schedule.nests:
        _check_reach(nest, schedule)
    return Program(
        arch,
        code,
        schedule.weights.reshape(-1, arch.lanes),
        schedule.inits.reshape(-1, arch.lanes),
        _places(schedule, schedule.input, arch),
        _places(schedule, schedule.output, arch),
    )


def instructions(nest: Nest, arch: Arch) -> tuple[int, ...]:
    """A nest as instruction words: one, or more where it has more loops than an instruction."""
    lane = _lane(nest, arch)
    start = _in_words({stream: getattr(nest, stream) for stream in STREAMS}, nest, arch)
    outer = _merged([_loop_in_words(loop, nest, arch) for loop in nest.outer], arch)
    reduce = _merged([_loop_in_words(replace(loop, init=0, y=0), nest, arch) for loop in nest.reduce], arch)
    if len(reduce) > arch.loops:
        raise ValueError(f"nest {nest.name!r} sums over {len(reduce)} loops, expected at most {arch.loops}: raise Arch.loops")
    if long := [loop for loop in outer + reduce if loop.extent > 1 << arch.extent_bits]:
        raise ValueError(
            f"nest {nest.name!r} loops {long[0].extent} times over {long[0].axis!r}, expected at most {1 << arch.extent_bits}: "
            "raise Arch.extent_bits"
        )
    # Loops that find no level in the instruction run here.
    room = arch.loops - len(reduce)
    unrolled, outer = outer[: max(len(outer) - room, 0)], outer[max(len(outer) - room, 0) :]
    fields = {
        "loops": _levels(outer + reduce, arch),
        "reduce": len(reduce),
        "lanes": lane.extent,
        "lane_y": lane.y % (1 << arch.address_bits),
        "shift": nest.shift,
        "relu": nest.relu,
        "saturate": nest.bits < arch.acc_bits,
        "maximum": nest.maximum,
        "final": nest.target == "scores",
    }
    words = []
    for index in product(*(range(loop.extent) for loop in unrolled)):
        at = {s: start[s] + sum(i * getattr(loop, s) for i, loop in zip(index, unrolled, strict=True)) for s in STREAMS}
        words.append(arch.instruction.const({**at, **fields}).as_bits())
    return tuple(words)


def _check_reach(nest: Nest, schedule: Schedule) -> None:
    """Refuse a nest that leaves its memories."""
    sizes = {
        "x": schedule.data_size,
        "w": len(schedule.weights),
        "init": len(schedule.inits),
        "y": schedule.score_size if nest.target == "scores" else schedule.data_size,
    }
    for stream, size in sizes.items():
        loops = nest.outer + nest.lane + (nest.reduce if stream in "xw" else ())
        ends = [(loop.extent - 1) * getattr(loop, stream) for loop in loops]
        low = getattr(nest, stream) + sum(min(end, 0) for end in ends)
        high = getattr(nest, stream) + sum(max(end, 0) for end in ends)
        if low < 0 or high >= size:
            raise ValueError(f"nest {nest.name!r} moves {stream} from {low} to {high}, expected 0 to {size - 1}: its schedule is not legal")


def _lane(nest: Nest, arch: Arch) -> Loop:
    """The nest's loop over lanes, its `y` in words, after checking that the nest does at once what the machine does."""
    images, lane = (*nest.lane, Loop("lane", 1, w=1, init=1))[:2]
    facts = {
        "images": (images.extent, arch.rows),
        "more lane loops": (len(nest.lane) > 2, False),
        "strides of images": ((images.x, images.w, images.init, images.y), (1, 0, 0, 1)),
        "lanes": (lane.extent, min(lane.extent, 1 if nest.maximum else arch.lanes)),
        "strides of lanes": ((lane.x, lane.w, lane.init), (0, 1, 1)),
        "accumulator bits": (nest.acc_bits, arch.acc_bits),
        "result bits": (nest.bits, nest.bits if nest.target == "scores" and nest.bits == arch.acc_bits else arch.data_bits),
    }
    for what, (found, expected) in facts.items():
        if found != expected:
            raise ValueError(f"nest {nest.name!r} has {what} {found}, expected {expected}: lower the graph with Arch.tile")
    if nest.maximum and arch.acc_bits < (wide := arch.data_bits + arch.weight_bits):
        raise ValueError(f"nest {nest.name!r} compares products of {wide} bits, expected at most {arch.acc_bits}: raise Arch.acc_bits")
    if not 0 <= nest.shift <= 31:
        raise ValueError(f"nest {nest.name!r} shifts by {nest.shift}, expected 0 to 31: quantize the graph again")
    return replace(lane, y=_in_words({"y": lane.y}, nest, arch)["y"])


def _in_words(addresses: dict[str, int], nest: Nest, arch: Arch) -> dict[str, int]:
    """Addresses or strides in memory words instead of elements."""
    unit = {"x": arch.rows, "w": arch.lanes, "init": arch.lanes, "y": arch.rows}
    for stream, address in addresses.items():
        if address % unit[stream]:
            raise ValueError(f"nest {nest.name!r} moves {stream} by {address}, not by words of {unit[stream]}: lower it for Arch.tile")
    return {stream: address // unit[stream] for stream, address in addresses.items()}


def _loop_in_words(loop: Loop, nest: Nest, arch: Arch) -> Loop:
    """A loop with strides in words; one that runs once moves nothing."""
    return replace(loop, **_in_words({stream: getattr(loop, stream) if loop.extent > 1 else 0 for stream in STREAMS}, nest, arch))


def _merged(loops: list[Loop], arch: Arch) -> list[Loop]:
    """The same walk in fewer loops: without those that run once, and one for two where the inner one ends where the outer one steps to."""
    merged: list[Loop] = []
    for loop in loops:
        if loop.extent == 1:
            continue
        around = merged[-1] if merged else None
        seamless = around and all(getattr(around, stream) == loop.extent * getattr(loop, stream) for stream in STREAMS)
        if seamless and around.extent * loop.extent <= 1 << arch.extent_bits:
            merged[-1] = replace(loop, axis=f"{around.axis} {loop.axis}", extent=around.extent * loop.extent)
        else:
            merged.append(loop)
    return merged


def _levels(loops: list[Loop], arch: Arch) -> list[dict[str, int]]:
    """The loops as an instruction holds them, innermost first: a step takes back what the inner loops have moved."""
    levels, moved = [], dict.fromkeys(STREAMS, 0)
    for loop in reversed(loops):
        increments = {stream: (getattr(loop, stream) - moved[stream]) % (1 << arch.address_bits) for stream in STREAMS}
        levels.append({"steps": loop.extent - 1, **increments})
        moved = {stream: moved[stream] + (loop.extent - 1) * getattr(loop, stream) for stream in STREAMS}
    return levels


def _places(schedule: Schedule, name: str, arch: Arch) -> np.ndarray:
    """The word address of every element of an image in a tensor, in the order of its axes."""
    addresses = schedule.layout[name].addresses.reshape(arch.rows, -1)
    if (addresses != addresses[0] + np.arange(arch.rows)[:, None]).any() or (addresses[0] % arch.rows).any():
        raise ValueError(f"tensor {name!r} does not lie with {arch.rows} images in a word: lower the graph with Arch.tile")
    return addresses[0] // arch.rows
