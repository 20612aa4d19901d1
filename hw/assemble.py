"""From the nests of a schedule to the instruction words of our machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from bayestt.ir.nest import Loop, Nest
from bayestt.ir.schedule import Schedule
from hw.arch import STREAMS, Arch
from hw.program import Program, Segment, check_fits
from hw.waits import waits

Spans = dict[str, tuple[tuple[int, int], ...]]
"""Words of the weights ("w") and of the inits that are needed: first, and the one after the last, of every piece, in order."""


@dataclass(frozen=True)
class _Piece:
    """A nest's instruction words, as if its constants began at address 0, and where in the schedule these lie."""

    code: tuple[int, ...]
    spans: Spans


def assemble(schedule: Schedule, arch: Arch) -> Program:
    """The program of a schedule that was lowered for `arch.tile`, in as many segments as its code and constants need.

    A schedule for another machine is refused, and one that does not fit: in its data, or in the code or the constants of a single nest.
    """
    if schedule.images != arch.rows:
        raise ValueError(f"the schedule runs {schedule.images} images at once, expected {arch.rows}: lower the graph with Arch.tile")
    for name, constants in (("weights", schedule.weights), ("inits", schedule.inits)):
        if len(constants) % arch.lanes:
            raise ValueError(f"{len(constants)} {name} do not fill words of {arch.lanes}: lower the graph with Arch.tile")
    image, score = (_places(schedule, name, arch) for name in (schedule.input, schedule.output))
    source = "external" if schedule.layout[schedule.input].memory == "external" else "image"
    if source == "image":
        image = image - arch.image_address
        if image.min() < 0:
            raise ValueError("the images lie among the activations: lower the graph with Arch.room")
    if not arch.external_depth and source == "external":
        check_fits("the program", "image", len(image), arch)
    for memory, size in (("data", schedule.data_size), ("score", schedule.score_size), ("external", schedule.external_size)):
        check_fits("the program", memory, -(-size // arch.rows), arch)
    return Program(arch, tuple(_segments(schedule, arch)), image, score, source)


def instructions(nest: Nest, arch: Arch) -> tuple[int, ...]:
    """A nest as instruction words: one, or more where it has more loops than an instruction."""
    lane = _lane(nest, arch)
    start = _in_words({stream: getattr(nest, stream) for stream in STREAMS}, nest, arch)
    outer = merged([_loop_in_words(loop, nest, arch) for loop in nest.outer], arch)
    reduce = merged([_loop_in_words(replace(loop, init=0, y=0), nest, arch) for loop in nest.reduce], arch)
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
        "loops": levels(outer + reduce, arch),
        "reduce": len(reduce),
        "lanes": lane.extent,
        "lane_y": lane.y % (1 << arch.address_bits),
        "shift": nest.shift,
        "relu": nest.relu,
        "saturate": nest.bits < arch.acc_bits,
        "maximum": nest.maximum,
        "final": nest.target == "scores",
        "load": nest.source == "external",
        "store": nest.target == "external",
    }
    words = []
    for index in product(*(range(loop.extent) for loop in unrolled)):
        at = {s: start[s] + sum(i * getattr(loop, s) for i, loop in zip(index, unrolled, strict=True)) for s in STREAMS}
        words.append(arch.instruction.const({**at, **fields}).as_bits())
    return tuple(words)


def merged(loops: Sequence[Loop], arch: Arch) -> list[Loop]:
    """The same walk in fewer loops: without those that run once, and one for two where the inner one ends where the outer one steps to."""
    made: list[Loop] = []
    for loop in loops:
        if loop.extent == 1:
            continue
        around = made[-1] if made else None
        seamless = around and all(getattr(around, stream) == loop.extent * getattr(loop, stream) for stream in STREAMS)
        if seamless and around.extent * loop.extent <= 1 << arch.extent_bits:
            made[-1] = replace(loop, axis=f"{around.axis} {loop.axis}", extent=around.extent * loop.extent)
        else:
            made.append(loop)
    return made


def _segments(schedule: Schedule, arch: Arch) -> Iterator[Segment]:
    """The nests in order, as many in a segment as its memories hold."""
    pieces: list[_Piece] = []
    for nest in schedule.nests:
        piece = _piece(nest, arch)
        _check_legal(nest, schedule)
        for memory, needed in _words([piece]).items():
            check_fits(f"nest {nest.name!r}", memory, needed, arch)
        if any(needed > getattr(arch, f"{memory}_depth") for memory, needed in _words([*pieces, piece]).items()):
            yield _segment(pieces, schedule, arch)
            pieces = []
        pieces.append(piece)
    yield _segment(pieces, schedule, arch)


def _piece(nest: Nest, arch: Arch) -> _Piece:
    """A nest for a segment; a copy needs no constants."""
    if "external" in (nest.source, nest.target):
        return _Piece(instructions(replace(nest, w=0, init=0), arch), {"w": (), "init": ()})
    starts, spans = {}, {}
    for stream in ("w", "init"):
        low, high = (end // arch.lanes for end in _reach(nest, stream))
        starts[stream] = getattr(nest, stream) - low * arch.lanes
        spans[stream] = ((low, high + 1),)
    return _Piece(instructions(replace(nest, **starts), arch), spans)


def _words(pieces: list[_Piece]) -> dict[str, int]:
    """How many words of each memory pieces need together."""
    weights, inits = (sum(stop - start for start, stop in spans) for spans in _united(pieces).values())
    return {"code": sum(len(piece.code) for piece in pieces), "weight": weights, "init": inits}


def _united(pieces: list[_Piece]) -> Spans:
    """All constants of pieces, those that they share once, in spans that do not touch."""
    spans: Spans = {}
    for stream in ("w", "init"):
        united: list[tuple[int, int]] = []
        for start, stop in sorted(span for piece in pieces for span in piece.spans[stream]):
            if united and start <= united[-1][1]:
                united[-1] = united[-1][0], max(stop, united[-1][1])
            else:
                united.append((start, stop))
        spans[stream] = tuple(united)
    return spans


def _segment(pieces: list[_Piece], schedule: Schedule, arch: Arch) -> Segment:
    """Pieces with their constants, which lie one behind the other; each word is told where its own begin, and when it may.

    The last one ends the segment.
    """
    spans, fields = _united(pieces), arch.instruction
    code: list[int] = []
    for piece in pieces:
        moved = sum(_before(own, spans[stream]) << fields[stream].offset for stream, own in piece.spans.items())
        code += [word + moved for word in piece.code]
    code = [word + (wait << fields["wait"].offset) for word, wait in zip(code, waits([*map(fields.from_bits, code)], arch), strict=True)]
    code[-1] += 1 << fields["end"].offset
    weights, inits = (
        np.concatenate([constants.reshape(-1, arch.lanes)[start:stop] for start, stop in ((0, 0), *spans[stream])])
        for stream, constants in (("w", schedule.weights), ("init", schedule.inits))
    )
    return Segment(tuple(code), weights, inits)


def _before(own: tuple[tuple[int, int], ...], spans: tuple[tuple[int, int], ...]) -> int:
    """How many words of all spans come before the first of a piece's own."""
    first = own[0][0] if own else 0
    return sum(min(stop, first) - start for start, stop in spans if start < first)


def _check_legal(nest: Nest, schedule: Schedule) -> None:
    """Refuse a nest that leaves its memories, or does more than copy where one of them is external."""
    images = schedule.layout[schedule.input]
    sizes = {"data": schedule.data_size, "scores": schedule.score_size, "external": schedule.external_size}
    read = max(sizes[nest.source], int(images.addresses.max()) + 1 if images.memory == nest.source else 0)
    sizes = {"x": read, "w": len(schedule.weights), "init": len(schedule.inits), "y": sizes[nest.target]}
    for stream, size in sizes.items():
        low, high = _reach(nest, stream)
        if low < 0 or high >= size:
            raise ValueError(f"nest {nest.name!r} moves {stream} from {low} to {high}, expected 0 to {size - 1}: its schedule is not legal")
    if "external" in (nest.source, nest.target):
        weights, inits = (
            constants[slice(low, high + 1)]
            for constants, (low, high) in ((schedule.weights, _reach(nest, "w")), (schedule.inits, _reach(nest, "init")))
        )
        facts = {
            "source": (nest.source, "data" if nest.target == "external" else "external"),
            "target": (nest.target, "data" if nest.source == "external" else "external"),
            "reduce loops": (len(nest.reduce), 0),
            "lanes": (prod(loop.extent for loop in nest.lane), schedule.images),
            "weights": (weights.tolist(), [1]),
            "inits": (inits.tolist(), [0]),
            "shift": (nest.shift, 0),
            "relu": (nest.relu, False),
            "maximum": (nest.maximum, False),
        }
        for what, (found, expected) in facts.items():
            if found != expected:
                raise ValueError(
                    f"nest {nest.name!r} has {what} {found}, expected {expected}: what moves from or to external memory is copied only"
                )


def _reach(nest: Nest, stream: str) -> tuple[int, int]:
    """The lowest and the highest element of a stream that a nest touches."""
    loops = nest.outer + nest.lane + (nest.reduce if stream in "xw" else ())
    ends = [(loop.extent - 1) * getattr(loop, stream) for loop in loops]
    return getattr(nest, stream) + sum(min(end, 0) for end in ends), getattr(nest, stream) + sum(max(end, 0) for end in ends)


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
            mend = "quantize activations to so many or change Arch.data_bits" if what == "result bits" else "lower the graph with Arch.tile"
            raise ValueError(f"nest {nest.name!r} has {what} {found}, expected {expected}: {mend}")
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


def levels(loops: list[Loop], arch: Arch) -> list[dict[str, int]]:
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
