"""Random legal schedules for random small machines, and images for them: for the laws that every reader of a program must keep."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from hypothesis import strategies as st

from bayestt.ir.nest import Loop, Nest
from bayestt.ir.schedule import Layout, Schedule
from hw.arch import Arch


@st.composite
def arches(draw: st.DrawFn) -> Arch:
    """A small machine: any shape, any widths, few levels of loops, so that nests must be unrolled."""
    return Arch(
        rows=draw(st.integers(1, 3)),
        lanes=draw(st.sampled_from([1, 2, 4])),
        data_bits=draw(st.integers(4, 8)),
        weight_bits=draw(st.integers(4, 8)),
        acc_bits=draw(st.integers(16, 32)),
        loops=draw(st.integers(3, 6)),
        extent_bits=draw(st.integers(4, 8)),
        data_depth=2048,
        weight_depth=256,
        init_depth=256,
        score_depth=1024,
        code_depth=512,
    )


@st.composite
def schedules(draw: st.DrawFn, arch: Arch, most_nests: int = 3) -> Schedule:
    """A legal schedule for a machine: strides of both signs, shared operands, gaps, reductions shorter than the lanes."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    extreme = draw(st.booleans())
    count = draw(st.integers(1, most_nests))
    image = (int(random.integers(1, 5)), int(random.integers(1, 5)))
    image_at, scores_at = random.integers(0, 3, 2).tolist()
    written = _Written([(image_at, image_at + image[0] * image[1])], scores=scores_at)
    nests = [_nest(arch, random, written, number == count - 1) for number in range(count)]
    weights = _numbers(random, arch.weight_bits, (written.weights, arch.lanes), extreme)
    inits = _numbers(random, arch.acc_bits, (written.inits, arch.lanes), extreme)
    rows, scores = arch.rows, written.scores - scores_at
    forward = Layout(scores_at * rows, ("n", "s"), (rows, scores), (1, rows))
    backward = Layout((written.scores - 1) * rows, ("n", "s"), (rows, scores), (1, -rows))
    layout = {
        "x": Layout(image_at * rows, ("n", "a", "b"), (rows, *image), (1, rows, rows * image[0])),
        "y": forward if random.integers(2) else backward,
    }
    sizes = (max(end for _, end in written.data) * rows, written.scores * rows)
    return Schedule(tuple(nests), layout, rows, "x", "y", weights.ravel(), inits.ravel(), *sizes)


@st.composite
def cases(draw: st.DrawFn, most_nests: int = 3) -> tuple[Arch, Schedule, np.ndarray]:
    """A machine, a schedule for it, and some images, the last batch of them perhaps not full."""
    arch = draw(arches())
    schedule = draw(schedules(arch, most_nests))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features = schedule.layout["x"].addresses[0].size
    return arch, schedule, _numbers(random, arch.data_bits, (draw(st.integers(1, 3 * arch.rows)), features), draw(st.booleans()))


def steps(nest: Nest, arch: Arch) -> list[tuple[int, ...]]:
    """The word addresses (x, w, init, y) of every step of a nest, and whether it begins or ends a reduction: plain counting."""
    found = []
    for index in product(*(range(loop.extent) for loop in nest.outer)):
        last = [loop.extent - 1 for loop in nest.reduce]
        for inner in product(*(range(loop.extent) for loop in nest.reduce)):
            both = list(zip([*index, *inner], nest.outer + nest.reduce, strict=True))
            x, w = (getattr(nest, s) + sum(i * getattr(loop, s) for i, loop in both) for s in ("x", "w"))
            init, y = (getattr(nest, s) + sum(i * getattr(loop, s) for i, loop in both[: len(index)]) for s in ("init", "y"))
            words = (x // arch.rows, w // arch.lanes, init // arch.lanes, y // arch.rows)
            found.append((*words, int(not any(inner)), int(list(inner) == last)))
    return found


@dataclass
class _Written:
    """What nests have written or will read so far: regions of data words, words of weights, inits and scores."""

    data: list[tuple[int, int]]
    scores: int
    weights: int = 1
    inits: int = 1


def _nest(arch: Arch, random: np.random.Generator, written: _Written, final: bool) -> Nest:
    """A random nest that reads one region of the data memory and writes a new one, or the scores."""
    outer = [Loop(f"o{k}", int(random.integers(1, 5))) for k in range(random.integers(0, 4))]
    # A reduction moves neither init nor y, whatever its loops say.
    reduce = [Loop(f"r{k}", int(random.integers(1, 5)), init=7, y=5) for k in range(random.integers(0, 4))]
    maximum = not random.integers(4)
    lane = Loop("lane", 1 if maximum else int(random.integers(1, arch.lanes + 1)), w=1, init=1)
    rows, lanes = arch.rows, arch.lanes

    # x: random steps as long as the walk stays within what is written.
    low, high = written.data[random.integers(len(written.data))]
    outer, reduce, back, reach = _moving("x", outer, reduce, high - low, random, rows)
    x = low + back + int(random.integers(0, high - low - reach))
    outer, reduce, back, reach = _moving("w", outer, reduce, 24, random, lanes)
    w, written.weights = back, max(written.weights, reach + 1)
    outer, _, back, reach = _moving("init", outer, [], 12, random, lanes)
    init, written.inits = back, max(written.inits, reach + 1)

    # y: a place of its own for every result, the loops in any order, now and then a gap.
    step, y_strides = 1, {}
    for number in random.permutation(len(outer) + 1):
        loop = [*outer, lane][number]
        y_strides[loop.axis] = step
        step = step * loop.extent + int(random.integers(0, 2))
    outer = [replace(loop, y=y_strides[loop.axis] * rows) for loop in outer]
    lane = replace(lane, y=y_strides["lane"] * rows)
    length = 1 + sum((loop.extent - 1) * y_strides[loop.axis] for loop in [*outer, lane])
    y = written.scores if final else max(end for _, end in written.data)
    if final:
        written.scores += length
    else:
        written.data.append((y, y + length))
    return Nest(
        tuple(outer),
        tuple(reduce),
        (Loop("n", rows, x=1, y=1), lane),
        x * rows,
        w * lanes,
        init * lanes,
        y * rows,
        shift=int(random.choice([0, 1, 4, int(random.integers(0, 32))])),
        relu=bool(random.integers(2)),
        bits=arch.acc_bits if final and random.integers(4) else arch.data_bits,
        acc_bits=arch.acc_bits,
        maximum=maximum,
        target="scores" if final else "data",
        name="scores" if final else f"step{len(written.data)}",
    )


def _moving(
    stream: str, outer: list[Loop], reduce: list[Loop], room: int, random: np.random.Generator, unit: int
) -> tuple[list[Loop], list[Loop], int, int]:
    """The loops with random strides that need no more than `room` words; how far they go back, and from end to end."""
    moved, back, reach = [], 0, 0
    for loop in outer + reduce:
        stride = int(random.integers(-3, 4))
        length = abs(stride) * (loop.extent - 1)
        if reach + length >= room:
            stride = length = 0
        back, reach = back + (length if stride < 0 else 0), reach + length
        moved.append(replace(loop, **{stream: stride * unit}))
    return moved[: len(outer)], moved[len(outer) :], back, reach


def _numbers(random: np.random.Generator, bits: int, shape: tuple[int, int], extreme: bool) -> np.ndarray:
    """Random numbers of so many bits, or the lowest and the highest only."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return random.choice([low, low, high], size=shape) if extreme else random.integers(low, high + 1, size=shape)
