"""From a training to the instruction words of the machine that trains."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from bayestt.algebra.einsum import Axes
from bayestt.ir.nest import Loop
from bayestt.ir.training import Training
from hw.assemble import levels, merged
from hw.training.arch import LANE_LOOPS, SPACING, Bank, Kind, TrainingArch
from hw.training.layout import WHAT, Layout, Place, layout
from hw.training.operation import Operation, in_pieces, layer_of, operations, parameter_of
from hw.training.program import TrainingProgram

Stream = tuple[int, Mapping[str, int]]
"""Where a stream begins, and how far each axis moves it."""
BOUNDLESS = 1 << 32
"""More of anything than a training needs."""


def assemble(training: Training, arch: TrainingArch) -> TrainingProgram:
    """The program of a training: what is done with every image, and what at the end of a batch."""
    steps, size, pieces = operations(training, arch.lanes)
    made = layout(training, steps, size, pieces, arch)
    image = [*_image_part(training, steps, made, arch)]
    batch = [*_batch_part(training, made, arch)]
    words = []
    for fields in (*image, *batch):
        ends = fields is image[-1] or fields is batch[-1]
        words.append(arch.instruction.const({**fields, "saturate": 1, "end": ends}).as_bits())
    return TrainingProgram(arch, training, tuple(words), made)


def arch_for(training: Training, lanes: int = 16) -> TrainingArch:
    """The machine of so many lanes that has room for a training and no more; one of which ranks were removed may need more of something."""
    program = assemble(training, TrainingArch(lanes, **dict.fromkeys(WHAT, BOUNDLESS)))
    return TrainingArch(lanes, program.loops, program.extent_bits, **program.needed)


def _image_part(training: Training, steps: Sequence[Operation], made: Layout, arch: TrainingArch) -> Iterator[dict]:
    """Forward, the error of the scores, backward; where a layer is in strips, backward makes each strip's activations again."""
    for name, place in made.inits.items():
        axes = _pieces(training.parameters[name].axes, made)
        number = next(k for k, each in enumerate(training.forward) if each.bias == name)
        streams = {"x": _elements(made.places[name]), "y": _elements(place)}
        yield _walk(Kind.BIAS, axes, streams, made, arch, number=number, x_from=Bank.LATENT)
    forward, backward = steps[: len(training.forward)], steps[len(training.forward) :]
    for block in _blocks(training, forward):
        yield from _block(training, block, made, arch)
    axes = _pieces(training.scored.axes, made)
    scores, errors = (_elements(made.places[name]) for name in (training.scored.name, "error"))
    for kind in (Kind.PEAK, Kind.ODDS, Kind.CHANCE):
        yield _walk(kind, axes, {"x": scores, "init": _numbers(axes, made), "y": errors}, made, arch, spaced=True)
    for block in _blocks(training, backward):
        layer = layer_of(parameter_of(training, block[0].contraction))
        read = {name for each in block for name in (each.x, each.w)}
        again = [each for each in forward if each.strip and layer_of(parameter_of(training, each.contraction)) == layer]
        again = [each for each in again if each.contraction.name in read and not each.contraction.bias] if block[0].strip else []
        yield from _block(training, [*again, *block], made, arch)


def _batch_part(training: Training, made: Layout, arch: TrainingArch) -> Iterator[dict]:
    """Latents move, then the scales of their ranks, then what of them is gone is zeroed, then shifts."""
    scaled = [axis for axis in made.indices]
    for axis in scaled:
        ease = next(parameter.ease for parameter in training.parameters.values() if parameter.rank == axis)
        yield _indices(Kind.STRENGTH, axis, made, arch, ease=ease)
    numbers = {each.name: k for k, each in enumerate(training.contractions)}
    for name, parameter in training.parameters.items():
        fields = {"number": numbers[training.gradients[name]], "pulled": bool(parameter.rank), "brake": parameter.brake}
        yield _parameter(Kind.MOVE, name, training, made, arch, **fields)
    for axis in scaled:
        yield _indices(Kind.SCALE, axis, made, arch)
        yield _indices(Kind.SURVIVE, axis, made, arch)
    for name in training.parameters:
        yield _parameter(Kind.CLEAN, name, training, made, arch)
    forward = {each.name for each in training.forward}
    for number, each in enumerate(training.contractions):
        fields = {"wide": each.bits > 8, "given": each.frac is not None, "forward": each.name in forward}
        yield _walk(Kind.CONTROL, (), {}, made, arch, spaced=True, number=number, **fields)


def _blocks(training: Training, steps: Sequence[Operation]) -> Iterator[list[Operation]]:
    """Contractions of one layer, in strips or not, that follow each other."""
    block: list[Operation] = []
    for each in steps:
        if block and _block_of(training, each) != _block_of(training, block[-1]):
            yield block
            block = []
        block.append(each)
    yield block


def _block_of(training: Training, each: Operation) -> tuple:
    return layer_of(parameter_of(training, each.contraction)), each.strip


def _block(training: Training, block: Sequence[Operation], made: Layout, arch: TrainingArch) -> Iterator[dict]:
    """A block's contractions, all of one strip after all of the strip before."""
    strip = block[-1].strip
    for index in np.ndindex(*(made.size[axis] for axis in strip)):
        for each in block:
            yield _multiply(training, each, dict(zip(strip, index, strict=True)), made, arch)
            if each.contraction.mask:
                streams = {"x": _elements(made.places[each.contraction.mask]), "y": _elements(made.places[each.contraction.name])}
                number = training.contractions.index(each.contraction)
                yield _walk(Kind.MASK, each.y_axes, streams, made, arch, number=number, tracked=1)


def _multiply(training: Training, each: Operation, strip: dict[str, int], made: Layout, arch: TrainingArch) -> dict:
    """A contraction, of one strip."""
    contraction, size = each.contraction, made.size
    gradient = contraction.name in training.gradients.values()
    y = made.places[parameter_of(training, contraction) if gradient else contraction.name]
    x, w = (made.places[name] if name else Place(Bank.ACTIVATION, 0, {}) for name in (each.x, each.w))
    init = made.inits.get(contraction.bias, Place(Bank.ACTIVATION, 0, {}))
    streams = {"x": _elements(x), "w": _words(w, arch), "init": _words(init, arch), "y": _elements(y)}
    lane_loops = merged([Loop(axis, size[axis], y=y.strides[axis]) for axis in each.lanes], arch)
    inner, *around = levels(lane_loops or [Loop("lane", 1)], arch)
    if len(around) > LANE_LOOPS:
        raise ValueError(
            f"contraction {contraction.name!r} leaves its lanes in {len(around) + 1} loops, there is room for {LANE_LOOPS + 1}: "
            "give modes and ranks that are powers of two"
        )
    around += [{"steps": 0, "y": inner["y"]}] * (LANE_LOOPS - len(around))
    modulus = 1 << arch.address_bits
    return {
        **_nest(each.outer, each.summed, streams, strip, made, arch),
        "kind": Kind.MULTIPLY,
        "x_from": x.bank,
        "w_from": w.bank,
        "target": Bank.GRADIENT if gradient else y.bank,
        "lanes": prod(size[axis] for axis in each.lanes),
        "lane_y": inner["y"],
        "turns": [inner["steps"], around[0]["steps"]],
        "jumps": [(level["y"] - inner["y"]) % modulus for level in around],
        "number": training.contractions.index(contraction),
        "relu": contraction.relu,
        "tracked": not gradient and not contraction.mask,
    }


def _walk(kind: Kind, axes: Axes, streams: Mapping[str, Stream], made: Layout, arch: TrainingArch, spaced: bool = False, **fields) -> dict:
    """A nest over axes, the last one fastest."""
    wait = [Loop("spacing", SPACING)] if spaced else []
    return {**_nest(axes, (), streams, {}, made, arch, wait), "kind": kind, "lanes": 1, **fields}


def _indices(kind: Kind, axis: str, made: Layout, arch: TrainingArch, **fields) -> dict:
    """A nest over the indices of a rank axis."""
    return _walk(kind, _pieces((axis,), made), {"w": _index(axis, made)}, made, arch, spaced=True, **fields)


def _parameter(kind: Kind, name: str, training: Training, made: Layout, arch: TrainingArch, **fields) -> dict:
    """A nest over a parameter's entries, row-major: their addresses, and the indices of the two ranks that they are of."""
    parameter = training.parameters[name]
    others = [axis for axis in parameter.axes if axis in made.indices and axis != parameter.rank]
    if len(others) > 1:
        named = ", ".join((*others, parameter.rank))
        raise ValueError(f"parameter {name!r} is of ranks {named}, the machine takes at most two of an entry: give another format")
    own, place = _index(parameter.rank, made), _elements(made.places[name])
    streams = {"x": place, "w": own, "init": _index(others[0], made) if others else own, "y": place}
    return _walk(kind, _pieces(parameter.axes, made), streams, made, arch, x_from=Bank.LATENT, **fields)


def _nest(
    outer: Axes,
    summed: Axes,
    streams: Mapping[str, Stream],
    strip: Mapping[str, int],
    made: Layout,
    arch: TrainingArch,
    wait: Sequence[Loop] = (),
) -> dict:
    """The loops of an instruction, and where its streams begin."""

    def loop(axis: str) -> Loop:
        return Loop(axis, made.size[axis], **{name: moves.get(axis, 0) for name, (_, moves) in streams.items()})

    if (longest := max((made.size[axis] for axis in (*outer, *summed)), default=1)) > 1 << arch.extent_bits:
        raise ValueError(
            f"an axis has {longest} indices, a loop {1 << arch.extent_bits} steps at most: "
            "give a net of smaller modes, or assemble for a TrainingArch of more extent_bits"
        )
    around = merged([loop(axis) for axis in outer], arch)
    inside = [*merged([replace(loop(axis), init=0, y=0) for axis in summed], arch), *wait]
    if (needed := len(around) + len(inside)) > arch.loops:
        raise ValueError(
            f"an instruction needs {needed} loops, there is room for {arch.loops}: "
            "give a net of fewer modes, or assemble for a TrainingArch of more loops"
        )
    starts = {name: first + sum(moves.get(axis, 0) * index for axis, index in strip.items()) for name, (first, moves) in streams.items()}
    return {**starts, "loops": levels(around + inside, arch), "reduce": len(inside)}


def _elements(place: Place) -> Stream:
    return place.first, place.strides


def _words(place: Place, arch: TrainingArch) -> Stream:
    """A stream of words of lanes."""
    return place.first // arch.lanes, {axis: stride // arch.lanes for axis, stride in place.strides.items()}


def _index(axis: str, made: Layout) -> Stream:
    """The indices of a rank axis among all that have a scale; what is of no rank has the first."""
    first, moves = _numbers(_pieces((axis,), made), made) if axis else (0, {})
    return made.indices.get(axis, 0) + first, moves


def _numbers(axes: Axes, made: Layout) -> Stream:
    """Numbers counted from 0 over axes, row-major."""
    moves, length = {}, 1
    for axis in reversed(axes):
        moves[axis] = length
        length *= made.size[axis]
    return 0, moves


def _pieces(axes: Axes, made: Layout) -> Axes:
    return tuple(axis for axis in in_pieces(axes, made.pieces) if made.size[axis] > 1)
