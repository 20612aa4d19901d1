"""Random graphs, tiles and images for the laws that every reader of a Graph must keep."""

import re
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from bayestt.algebra.fixed import Fixed
from bayestt.ir.graph import Graph, Op, Window, taps, verify, windowed
from bayestt.ir.nest import Loop, Nest

TILES = {
    "16 x 4 silicon": Nest((), (), (Loop("n", 3, x=1, y=1), Loop("lane", 4, w=1, init=1, y=None)), 0, 0, 0, 0),
    "one image": Nest((), (), (Loop("n", 1, x=1, y=1), Loop("lane", 3, w=1, init=1, y=None)), 0, 0, 0, 0),
    "dot product of 4 in 8 lanes": Nest((), (Loop("k", 4, x=1, w=1),), (Loop("lane", 8, w=4, init=1, y=1),), 0, 0, 0, 0),
    "rows of one image": Nest((), (), (Loop("row", 4, x=1, y=1), Loop("lane", 2, w=1, init=1, y=None)), 0, 0, 0, 0),
    "matrix unit": Nest((), (Loop("k", 2, x=1, w=1),), (Loop("n", 2, x=2, y=4), Loop("lane", 4, w=2, init=1, y=1)), 0, 0, 0, 0),
    "one multiplier": Nest((), (), (), 0, 0, 0, 0),
}


SPELLING = re.compile(r"(\S+) (\w+)((?: [\w.]+)*)(?: <((?: \S+)*?))?(?: \|((?: \S+)+?))?(?: @ (\d+)/(-?\d+))?(?: >> (-?\d+))?")
"""One op of `written`: name KIND axes < operands | windows @ bits/frac >> shift."""
WINDOW = re.compile(r"(\w+)=(\w+)(?:\*(\d+))?\+(\w+)(?:\*(\d+))?(?:-(-?\d+))?")
"""One window of `written`: axis=out*stride+tap*dilation-padding."""


def written(text: str, **size: int) -> Graph:
    """The graph, not verified, that lines such as `y CONTRACT n i < x w @ 32/0` spell; constants are random."""
    random = np.random.default_rng(0)
    ops, consts = [], {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, kind, axes, args, windows, bits, frac, shift = SPELLING.fullmatch(line).groups(default="")
        window = tuple(map(spelled_window, windows.split()))
        op = Op(
            name, kind, tuple(axes.split()), tuple(args.split()), Fixed(int(bits), int(frac)) if bits else None, int(shift or 0), window
        )
        ops.append(op)
        if kind == "CONST":
            shape = [size.get(axis, 1) for axis in op.axes]
            consts[name] = random.integers(op.format.low, op.format.high + 1, shape) if bits else random.normal(size=shape)
    return Graph(tuple(ops), size, consts)


def spelled_window(text: str) -> Window:
    """The window that `h=oh*2+kh-1` spells."""
    axis, out, stride, tap, dilation, padding = WINDOW.fullmatch(text).groups()
    return Window(axis, out, tap, int(stride or 1), int(dilation or 1), int(padding or 0))


@st.composite
def windows_over(draw: st.DrawFn, axes: tuple[str, ...], sizes: dict[str, int], number: int) -> tuple[Window, ...]:
    """Legal windows over some of an activation's axes; the sizes of their new axes are added to `sizes`."""
    windows = []
    for axis in draw(st.permutations(axes))[: draw(st.integers(0, 2))]:
        made = Window(axis, f"o{number}{axis}", f"t{number}{axis}", *(draw(st.integers(*ends)) for ends in ((1, 3), (1, 2), (0, 2))))
        sizes[made.tap] = draw(st.integers(1, 3))
        found = [bool(taps(made, out, sizes)) for out in range(sizes[axis] + 4)]
        if not found[0]:
            made = replace(made, padding=0)
            found = [bool(taps(made, out, sizes)) for out in range(sizes[axis] + 4)]
        sizes[made.out] = draw(st.integers(1, (*found, False).index(False)))
        windows.append(made)
    return tuple(windows)


@st.composite
def float_graphs(draw: st.DrawFn, windows: bool = False) -> Graph:
    """A legal float graph with contractions of every shape, biases, rectifiers, views, sums of two activations.

    With `windows` contractions read through windows, and there are the largest of windows too.
    """
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = {f"h{k}": draw(st.integers(1, 5)) for k in range(draw(st.integers(1, 3)))}
    ops, consts = [Op("x", "INPUT", ("n", *sizes))], {}
    kinds = ["contract", "contract", "bias", "relu", "view", "residual", *(["max"] if windows else [])]
    steps = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=5))
    for number, step in enumerate(steps):
        x, name = ops[-1], f"{step}{number}"
        match step:
            case "contract":
                window = draw(windows_over(x.axes[1:], sizes, number)) if windows else ()
                read = windowed(Op("", "", (), window=window), x.axes)
                fate = {axis: draw(st.sampled_from(["keep", "reduce", "share", "sum"])) for axis in read[1:]}
                new = {f"i{number}{k}": draw(st.integers(1, 6)) for k in range(draw(st.integers(0, 2)))}
                sizes |= new
                const_axes = tuple(draw(st.permutations([*(a for a in fate if fate[a] in ("reduce", "share")), *new])))
                out = tuple(draw(st.permutations([*(a for a in fate if fate[a] in ("keep", "share")), *new])))
                ops.append(Op(f"{name}.core0", "CONST", const_axes))
                consts[ops[-1].name] = random.normal(size=[sizes[axis] for axis in const_axes])
                ops.append(Op(name, "CONTRACT", ("n", *out), (x.name, f"{name}.core0"), window=window))
            case "max":
                window = draw(windows_over(x.axes[1:], sizes, number))
                read = windowed(Op("", "", (), window=window), x.axes)
                seen = [axis for axis in read[1:] if axis not in {each.tap for each in window}]
                kept = draw(st.permutations([axis for axis in seen if draw(st.booleans())]))
                ops.append(Op(name, "MAX", ("n", *kept), (x.name,), window=window))
            case "bias":
                axes = tuple(axis for axis in x.axes[1:] if draw(st.booleans()))
                ops.append(Op(f"{name}.bias", "CONST", axes))
                consts[ops[-1].name] = random.normal(size=[sizes[axis] for axis in axes])
                ops.append(Op(name, "ADD", x.axes, (x.name, f"{name}.bias")))
            case "relu":
                ops.append(Op(name, "RELU", ("n", *draw(st.permutations(x.axes[1:]))), (x.name,)))
            case "view":
                extents = [sizes[axis] for axis in x.axes[1:]]
                viewed = draw(st.permutations(extents)) if draw(st.booleans()) else [int(np.prod(extents))]
                new = {f"j{number}{k}": extent for k, extent in enumerate(viewed)}
                sizes |= new
                ops.append(Op(name, "VIEW", ("n", *new), (x.name,)))
            case "residual":
                alike = [op.name for op in ops[:-1] if op.kind != "CONST" and set(op.axes) == set(x.axes)]
                other = draw(st.sampled_from([x.name, *alike]))
                ops.append(Op(name, "ADD", x.axes, (x.name, other)))
    return verify(Graph(tuple(ops), sizes, consts))


def features(graph: Graph) -> int:
    """Numbers in one image."""
    return int(np.prod(graph.shape(graph.input.axes[1:])))


def extremes(graph: Graph, seed: int) -> Graph:
    """An integer graph with every constant at one end or the other of its format, biases near the accumulator's ends."""
    random = np.random.default_rng(seed)
    ends = {op.name: np.array([op.format.low, op.format.high]) for op in graph.ops if op.kind == "CONST"}
    return replace(graph, consts={name: random.choice(ends[name], size=const.shape) for name, const in graph.consts.items()})


def images(graph: Graph, count: int, seed: int, extreme: bool) -> np.ndarray:
    """Random integer images for an integer graph, of extreme values where wanted."""
    random = np.random.default_rng(seed)
    low, high = graph.input.format.low, graph.input.format.high
    shape = (count, features(graph))
    return random.choice([low, high], size=shape) if extreme else random.integers(low, high + 1, size=shape)
