"""Random legal schedules for random small machines, and images for them: for the laws that every reader of a program must keep."""

from dataclasses import dataclass, field, replace
from itertools import product

import graphs
import numpy as np
from hypothesis import strategies as st

from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph
from bayestt.ir.nest import Loop, Nest
from bayestt.ir.quantize import quantize
from bayestt.ir.schedule import Layout, Schedule
from hw.arch import Arch


@st.composite
def arches(draw: st.DrawFn, external: bool = True) -> Arch:
    """A small machine: any shape, any widths, few levels of loops, so that nests must be unrolled, now and then hardly any memory.

    With an `external` memory or, always without, none.
    """
    external_depth = draw(st.sampled_from([0, 2048])) if external else 0
    tiles = 1 if external_depth else draw(st.integers(1, 3))
    return Arch(
        rows=tiles * draw(st.integers(1, 3 if tiles == 1 else 2)),
        lanes=draw(st.sampled_from([1, 2, 4])),
        tiles=tiles,
        data_bits=draw(st.integers(4, 8)),
        weight_bits=draw(st.integers(4, 8)),
        acc_bits=draw(st.integers(16, 32)),
        loops=draw(st.integers(3, 6)),
        extent_bits=draw(st.integers(4, 8)),
        image_depth=32,
        data_depth=2048,
        weight_depth=draw(st.sampled_from([24, 256])),
        init_depth=draw(st.sampled_from([12, 256])),
        score_depth=1024,
        code_depth=draw(st.sampled_from([64, 512])),
        external_depth=external_depth,
    )


@st.composite
def graph_cases(draw: st.DrawFn) -> tuple[Graph, Arch, np.ndarray]:
    """An integer graph, a machine with room for all of it, and four images; constants and images are extreme now and then."""
    graph, extreme, seed = draw(graphs.float_graphs(windows=True)), draw(st.booleans()), draw(st.integers(0, 99))
    arch = Arch(rows=draw(st.integers(1, 3)), lanes=draw(st.sampled_from([1, 3, 4])), score_depth=8192, init_depth=8192)
    integer = quantize(fold(graph), np.random.default_rng(seed).normal(size=(20, graphs.features(graph))), 8)
    integer = graphs.extremes(integer, seed) if extreme else integer
    return integer, arch, graphs.images(integer, 4, seed, extreme)


@st.composite
def schedules(draw: st.DrawFn, arch: Arch, most_nests: int = 3) -> Schedule:
    """A legal schedule for a machine: strides of both signs, shared operands, gaps, reductions shorter than the lanes."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    extreme = draw(st.booleans())
    image = (int(random.integers(1, 5)), int(random.integers(1, 5)))
    image_at, scores_at = random.integers(0, 3, 2).tolist()
    source = "external" if arch.external_depth and random.integers(2) else "data"
    written = _Written(scores=scores_at)
    image_at += arch.image_address if source == "data" else 0
    written.regions["image" if source == "data" else "external"].append((image_at, image_at + image[0] * image[1]))
    nests = [_copy(arch, random, written, "external")] if source == "external" else []
    for _ in range(draw(st.integers(0, most_nests - 1))):
        moved = [memory for memory in ("data", "external") if written.readable(memory)]
        copied = arch.external_depth and random.integers(2)
        nests.append(_copy(arch, random, written, str(random.choice(moved))) if copied else _nest(arch, random, written, False))
    nests.append(_nest(arch, random, written, True))
    weights = _numbers(random, arch.weight_bits, (written.weights, arch.lanes), extreme)
    inits = _numbers(random, arch.acc_bits, (written.inits, arch.lanes), extreme)
    weights[0, 0], inits[0, 0] = 1, 0
    rows, scores = arch.rows, written.scores - scores_at
    forward = Layout(scores_at * rows, ("n", "s"), (rows, scores), (1, rows))
    backward = Layout((written.scores - 1) * rows, ("n", "s"), (rows, scores), (1, -rows))
    layout = {
        "x": Layout(image_at * rows, ("n", "a", "b"), (rows, *image), (1, rows, rows * image[0]), source),
        "y": forward if random.integers(2) else backward,
    }
    data_size, external_size = (written.end(memory) * rows for memory in ("data", "external"))
    sizes = (data_size, written.scores * rows, external_size)
    return Schedule(tuple(nests), layout, rows, "x", "y", weights.ravel(), inits.ravel(), *sizes)


@st.composite
def cases(draw: st.DrawFn, most_nests: int = 3, external: bool = True) -> tuple[Arch, Schedule, np.ndarray]:
    """A machine, a schedule for it, and some images, the last batch of them perhaps not full."""
    arch = draw(arches(external))
    schedule = draw(schedules(arch, most_nests))
    return arch, schedule, images(schedule, arch, draw(st.integers(1, 3 * arch.rows)), draw(st.integers(0, 2**32 - 1)))


def images(schedule: Schedule, arch: Arch, count: int, seed: int) -> np.ndarray:
    """So many images for a schedule, half of the seeds with the lowest and the highest numbers only."""
    features = schedule.layout["x"].addresses[0].size
    return _numbers(np.random.default_rng(seed), arch.data_bits, (count, features), bool(seed % 2))


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
    """What nests have written or will read so far: regions of image, data and external words, words of weights, inits and scores.

    The first weight is 1 and the first init 0: what copies need.
    """

    scores: int
    weights: int = 1
    inits: int = 1
    regions: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: {"image": [], "data": [], "external": []})

    def readable(self, memory: str) -> list[tuple[int, int]]:
        """All regions that a nest can read which reads a memory."""
        return self.regions[memory] + (self.regions["image"] if memory == "data" else [])

    def end(self, memory: str) -> int:
        """The first word of a memory behind all regions."""
        return max((end for _, end in self.regions[memory]), default=0)


def _copy(arch: Arch, random: np.random.Generator, written: _Written, source: str) -> Nest:
    """A random nest that copies from one region of the data or the external memory to a new one in the other."""
    target = "external" if source == "data" else "data"
    outer = [Loop(f"o{k}", int(random.integers(1, 5))) for k in range(random.integers(0, 4))]
    readable = written.readable(source)
    low, high = readable[random.integers(len(readable))]
    outer, _, back, reach = _moving("x", outer, [], high - low, random, arch.rows)
    x = low + back + int(random.integers(0, high - low - reach))
    outer, _, length = _spread(outer, None, random, arch.rows)
    y = written.end(target)
    written.regions[target].append((y, y + length))
    lane, bits = (Loop("n", arch.rows, x=1, y=1),), {"bits": arch.data_bits, "acc_bits": arch.acc_bits}
    return Nest(tuple(outer), (), lane, x * arch.rows, 0, 0, y * arch.rows, **bits, source=source, target=target, name=f"to_{target}{y}")


def _nest(arch: Arch, random: np.random.Generator, written: _Written, final: bool) -> Nest:
    """A random nest that reads one region of the data memory and writes a new one, or the scores."""
    outer = [Loop(f"o{k}", int(random.integers(1, 5))) for k in range(random.integers(0, 4))]
    # A reduction moves neither init nor y, whatever its loops say.
    reduce = [Loop(f"r{k}", int(random.integers(1, 5)), init=7, y=5) for k in range(random.integers(0, 4))]
    maximum = not random.integers(4)
    lane = Loop("lane", 1 if maximum else int(random.integers(1, arch.lanes + 1)), w=1, init=1)
    rows, lanes = arch.rows, arch.lanes

    # x: random steps as long as the walk stays within what is written.
    readable = written.readable("data")
    low, high = readable[random.integers(len(readable))]
    outer, reduce, back, reach = _moving("x", outer, reduce, high - low, random, rows)
    x = low + back + int(random.integers(0, high - low - reach))
    # Constants are shared with the nests before, or new.
    outer, reduce, back, reach = _moving("w", outer, reduce, 24, random, lanes)
    w = back + int(random.choice([0, written.weights]))
    written.weights = max(written.weights, w - back + reach + 1)
    outer, _, back, reach = _moving("init", outer, [], 12, random, lanes)
    init = back + int(random.choice([0, written.inits]))
    written.inits = max(written.inits, init - back + reach + 1)

    outer, lane, length = _spread(outer, lane, random, rows)
    y = written.scores if final else written.end("data")
    if final:
        written.scores += length
    else:
        written.regions["data"].append((y, y + length))
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
        name="scores" if final else f"to_data{y}",
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


def _spread(outer: list[Loop], lane: Loop | None, random: np.random.Generator, rows: int) -> tuple[list[Loop], Loop | None, int]:
    """The loops with a place of its own in y for every result, in any order, now and then with a gap; how many words that takes."""
    step, spread = 1, {}
    loops = [*outer, lane] if lane else outer
    for number in random.permutation(len(loops)):
        loop = loops[number]
        spread[loop.axis] = replace(loop, y=step * rows)
        step = step * loop.extent + int(random.integers(0, 2))
    length = 1 + sum((loop.extent - 1) * loop.y // rows for loop in spread.values())
    return [spread[loop.axis] for loop in outer], spread[lane.axis] if lane else None, length


def _numbers(random: np.random.Generator, bits: int, shape: tuple[int, int], extreme: bool) -> np.ndarray:
    """Random numbers of so many bits, or the lowest and the highest only."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return random.choice([low, low, high], size=shape) if extreme else random.integers(low, high + 1, size=shape)
