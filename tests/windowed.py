"""Integer residual networks of any depth and width, written by hand: what lowering must do well."""

import numpy as np

from bayestt.algebra.fixed import Fixed
from bayestt.ir.graph import Graph, Op, Window, verify

EIGHT, WIDE = Fixed(8, 4), Fixed(32, 11)


def residual_network(blocks: int, widths: tuple[int, ...], extent: int, rank: int = 0) -> Graph:
    """A residual network for square images: for each width so many blocks of two 3x3 convolutions, the first of a wider one with stride 2.

    Where the width changes, a 1x1 convolution of every second element stands in for the sum's other operand. With a rank all 3x3
    convolutions behind the first are Tucker-2: 1x1 to the rank, 3x3 from rank to rank, 1x1 from it.
    """
    made = _Ops(extent, rank)
    x = made.convolution("stem", "x", widths[0], relu=True)
    for stage, width in enumerate(widths):
        for block in range(blocks):
            name, stride = f"stage{stage}.block{block}", 2 if stage and not block else 1
            inner = made.convolution(f"{name}.conv0", x, width, stride, out="m", relu=True)
            outer = made.convolution(f"{name}.conv1", inner, width)
            beside = made.convolution(f"{name}.short", x, width, stride, taps=1) if stride > 1 else x
            x = made.residual(name, outer, beside)
    made.add(Op("pool", "CONTRACT", ("n", made.of(x)[1]), (x,), Fixed(32, 4)))
    made.add(Op("pool.round", "ROUND", ("n", made.of(x)[1]), ("pool",), Fixed(8, -2), 6))
    made.constant("fc", (made.of(x)[1], "classes"), (widths[-1], 10), Fixed(8, 7))
    made.add(Op("scores", "CONTRACT", ("n", "classes"), ("pool.round", "fc"), Fixed(32, 5)))
    return verify(Graph(tuple(made.ops), made.size, made.consts))


class _Ops:
    """Ops, sizes and random constants so far."""

    def __init__(self, extent: int, rank: int) -> None:
        self.ops = [Op("x", "INPUT", ("n", "c", "h", "w"), format=EIGHT)]
        self.size, self.consts = {"c": 3, "h": extent, "w": extent}, {}
        self.rank = rank
        self.random = np.random.default_rng(0)

    def of(self, name: str) -> tuple[str, ...]:
        """The axes of an op."""
        return next(op.axes for op in self.ops if op.name == name)

    def add(self, op: Op) -> str:
        """One more op."""
        self.ops.append(op)
        return op.name

    def constant(self, name: str, axes: tuple[str, ...], shape: tuple[int, ...], form: Fixed) -> None:
        """A random constant, small against its accumulator."""
        self.size |= dict(zip(axes, shape, strict=True))
        most = min(form.high, 999)
        self.consts[name] = self.random.integers(-most, most + 1, shape)
        self.add(Op(name, "CONST", axes, format=form))

    def convolution(self, name: str, x: str, width: int, stride: int = 1, taps: int = 3, out: str = "k", relu: bool = False) -> str:
        """A convolution with its bias; the axes of equal results have equal names, so that they can be added."""
        if self.rank and taps > 1 and x != "x":
            x = self.round(f"{name}.first", self.product(f"{name}.first", x, "r", self.rank, 1, 1))
            x = self.round(f"{name}.second", self.product(f"{name}.second", x, "s", self.rank, stride, taps))
            stride = taps = 1
        last = self.product(name, x, out, width, stride, taps)
        axes = self.of(last)
        self.constant(f"{name}.b", axes[1:2], (width,), WIDE)
        last = self.add(Op(f"{name}.bias", "ADD", axes, (last, f"{name}.b"), WIDE))
        last = self.add(Op(f"{name}.relu", "RELU", axes, (last,), WIDE)) if relu else last
        return self.round(name, last)

    def product(self, name: str, x: str, out: str, width: int, stride: int, taps: int) -> str:
        """The sum of taps and channels alone."""
        _, inside, *image = self.of(x)
        extent = (self.size[image[0]] - 1) // stride + 1
        outs = [f"{axis[0]}{extent}" for axis in image]
        window = tuple(Window(axis, made, f"t{axis[0]}{taps}", stride, 1, taps // 2) for axis, made in zip(image, outs, strict=True))
        self.size |= {made: extent for made in outs}
        shape = (taps, taps, self.size[inside], width)
        self.constant(f"{name}.w", (window[0].tap, window[1].tap, inside, f"{out}{width}"), shape, Fixed(8, 7))
        return self.add(Op(name, "CONTRACT", ("n", f"{out}{width}", *outs), (x, f"{name}.w"), WIDE, window=window))

    def round(self, name: str, x: str) -> str:
        """The activation that is kept of a sum."""
        return self.add(Op(f"{name}.round", "ROUND", self.of(x), (x,), EIGHT, 7))

    def residual(self, name: str, one: str, other: str) -> str:
        """The rectified sum of two activations."""
        axes = self.of(one)
        self.add(Op(f"{name}.add", "ADD", axes, (one, other), Fixed(32, 4)))
        self.add(Op(f"{name}.relu", "RELU", axes, (f"{name}.add",), Fixed(32, 4)))
        return self.add(Op(f"{name}.round", "ROUND", axes, (f"{name}.relu",), EIGHT))
