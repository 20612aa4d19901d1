"""The training step of a tensorized network as pairwise contractions of integers: data that a reference, a fast twin and a machine read.

Backward contractions are derived here, for chains of layers that absorb one core at a time; `bayestt.ir.differentiate` makes the same
gradients, in floats, as a Graph, and those of other networks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2, prod, sqrt
from types import MappingProxyType

from bayestt.algebra.einsum import Axes, chain
from bayestt.algebra.factorization import Factorization
from bayestt.algebra.fixed import Fixed

ACCUMULATOR_BITS, BIAS_BITS = 32, 31
"""Widths of every sum, and of a bias where it is added to one: beyond the second it saturates."""
FACTOR_BITS, LATENT_BITS, ACTIVATION_BITS, GRADIENT_BITS = 4, 8, 8, 16
ERROR_FRAC, SCORE_FRAC, IMAGE_FRAC, BIAS_FRAC = 14, 3, 7, 7
SPREAD = 0.7
"""Latents start uniform within this part of their range."""
MOST_SCALED = 1023
"""Entries that one index of a rank may scale, so that 24 bits hold the sum of their latents' squares."""
MOST_EASE, MOST_BRAKE = 15, 1
"""The largest `ease` and `brake` of a parameter: at a rate of 15 and a brake of 1 a move is cut by all of a draw's 16 bits."""
Operand = tuple[str, Axes]
"""A value's name and the axes under which it is read: those it has, or others of the same elements in row-major order."""


@dataclass(frozen=True)
class Contraction:
    """The einsum of one or two values, a bias added where there is one, rounded half up and saturated to `bits` bits.

    By a shift that the scale controller moves, or to the fraction `frac` where that is given. `relu` rectifies; `mask` names a value: the
    result is zero where that one is.
    """

    name: str
    args: tuple[Operand, ...]
    axes: Axes
    bits: int
    frac: int | None = None
    bias: str = ""
    relu: bool = False
    mask: str = ""


@dataclass(frozen=True)
class Parameter:
    """A core or a bias: its axes, what is kept of it between steps, and what contractions read of that.

    A core is pulled by the scale of a `rank`, 2**-`ease` (0 to 15) times as much as others. A bias moves 2**-`brake` (0 or 1) times as much
    as others.
    """

    axes: Axes
    latent: Fixed
    factor: Fixed
    rank: str = ""
    ease: int = 0
    brake: int = 0

    def __post_init__(self) -> None:
        for field, given, most in (("ease", self.ease, MOST_EASE), ("brake", self.brake, MOST_BRAKE)):
            if given not in range(most + 1):
                raise ValueError(f"a parameter of axes {' '.join(self.axes)} with {field} {given}: give a whole number from 0 to {most}")


@dataclass(frozen=True, eq=False)
class Training:
    """What happens to one image: `forward` makes scores, `error` is softmax less label, `backward` makes gradients.

    `gradients` names for every parameter the contraction that makes its own: of the parameter's axes, or behind a strip axis, along which
    what is rounded is then added up. No other sum within a layer runs over its strip axis, else the training is refused: so a machine may
    make the layer's values strip by strip, twice, instead of keeping them. Every accumulator is proved to hold every sum: a training in
    which one might overflow is refused.
    """

    parameters: Mapping[str, Parameter]
    forward: tuple[Contraction, ...]
    backward: tuple[Contraction, ...]
    gradients: Mapping[str, str]
    size: Mapping[str, int]
    image: Axes

    def __post_init__(self) -> None:
        for name in ("parameters", "gradients", "size"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for rank in {parameter.rank for parameter in self.parameters.values()} - {""}:
            scaled = [parameter.axes for parameter in self.parameters.values() if parameter.rank == rank]
            if (entries := sum(prod(self.shape(axes)) for axes in scaled) // self.size[rank]) > MOST_SCALED:
                raise ValueError(f"an index of {rank!r} scales {entries} entries, expected at most {MOST_SCALED}: give smaller modes")
        for each in self.contractions:
            if summed := {axis for _, axes in each.args for axis in axes} & self.strips - {*each.axes}:
                raise ValueError(f"contraction {each.name!r} sums over the strip axis {min(summed)!r}: make strips along another row axis")
            if (bound := self.bound(each)) >= 1 << (ACCUMULATOR_BITS - 1):
                raise ValueError(f"contraction {each.name!r} may sum to {bound}, beyond {ACCUMULATOR_BITS} bits: give smaller ranks")

    @property
    def contractions(self) -> tuple[Contraction, ...]:
        """All of them, in order."""
        return (*self.forward, *self.backward)

    @cached_property
    def bits(self) -> Mapping[str, int]:
        """The width of every value that a contraction reads."""
        made = {each.name: each.bits for each in self.contractions}
        read = {name: parameter.factor.bits for name, parameter in self.parameters.items()}
        return {"image": ACTIVATION_BITS, "error": GRADIENT_BITS, **read, **made}

    @cached_property
    def scored(self) -> Contraction:
        """The contraction that makes the scores."""
        return self.forward[-1]

    @cached_property
    def strips(self) -> frozenset[str]:
        """The strip axes."""
        made = {each.name: {*each.axes} for each in self.backward}
        return frozenset().union(*(made[gradient] - {*self.parameters[name].axes} for name, gradient in self.gradients.items()))

    def shape(self, axes: Axes) -> tuple[int, ...]:
        """The sizes of axes."""
        return tuple(self.size[axis] for axis in axes)

    def bound(self, contraction: Contraction) -> int:
        """The largest magnitude that a sum of a contraction can have, whatever its operands are."""
        summed = {axis for _, axes in contraction.args for axis in axes} - {*contraction.axes}
        largest = prod(1 << (self.bits[name] - 1) for name, _ in contraction.args)
        return prod(self.shape(tuple(summed))) * largest + (1 << (BIAS_BITS - 1) if contraction.bias else 0)


def training(
    forms: Mapping[str, Factorization], ease: Mapping[str, int] = MappingProxyType({}), strips: Mapping[str, str] = MappingProxyType({})
) -> Training:
    """The training of linear layers in a chain, each of a form and with a bias, relu between them.

    By layer, `ease` is that of its cores, and `strips` names the row axis along which it can be made in strips. An activation absorbs one
    core at a time, by the fewest multiplications; gradients go back the same way, two contractions for each of the forward ones. The
    fractions of a layer's cores together give weights that start like nn.Linear's, of deviation 1 / sqrt(3 cols).
    """
    if not forms:
        raise ValueError("a training of no layers: give the form of at least one")
    for setting, layer in ((setting, layer) for setting, by_layer in (("ease", ease), ("strips", strips)) for layer in by_layer):
        if layer not in forms:
            raise ValueError(f"{setting} names layer {layer!r}, which has no form: give one of {', '.join(forms)}")
    parameters, size, forward = {}, {}, []
    operand = ("image", ())
    for layer, form in forms.items():
        if len(operand[1]) and prod(size[axis] for axis in operand[1]) != form.shape[1]:
            raise ValueError(f"layer {layer!r} has {form.shape[1]} columns, expected as many as the last has rows: give other modes")
        named = {axis: f"{layer}.{axis}" for axis in form.size}
        size |= {named[axis]: extent for axis, extent in form.size.items()}
        cores = [tuple(named[axis] for axis in core) for core in form.cores]
        rows, cols = (tuple(named[axis] for axis in axes) for axes in (form.rows, form.cols))
        parameters |= _parameters(layer, form, cores, named, ease.get(layer, 0))
        made = _layer(layer, (operand[0], cols), cores, rows, size, last=layer == [*forms][-1])
        forward += made
        operand = (made[-1].name, rows)
    image = next(axes for each in forward for name, axes in each.args if name == "image")
    striped = {f"{layer}.{axis}" for layer, axis in strips.items() if axis in forms[layer].rows}
    backward, gradients = _backward(forward, parameters, striped)
    made = Training(parameters, tuple(forward), tuple(backward), gradients, size, image)
    for layer, axis in strips.items():
        if f"{layer}.{axis}" not in made.strips:
            rows = ", ".join(forms[layer].rows)
            raise ValueError(f"layer {layer!r} has no strips along {axis!r}: give that of its row axes, {rows}, which is absorbed first")
    return made


def _parameters(layer: str, form: Factorization, cores: Sequence[Axes], named: Mapping[str, str], ease: int) -> dict[str, Parameter]:
    """A layer's cores, of which each takes the scale of the rank it names last, and its bias."""
    deviation = SPREAD * (1 << (FACTOR_BITS - 1)) / sqrt(3)
    drawn = sqrt(prod(form.size[axis] for axis in form.ranks)) * deviation ** len(cores)
    fracs = round(log2(drawn * sqrt(3 * form.shape[1])))
    ranks = {named[axis] for axis in form.ranks}
    made = {}
    for k, core in enumerate(cores):
        frac = (fracs + k) // len(cores)
        latent = Fixed(LATENT_BITS, frac + LATENT_BITS - FACTOR_BITS)
        rank = next((axis for axis in reversed(core) if axis in ranks), "")
        made[f"{layer}.core{k}"] = Parameter(core, latent, Fixed(FACTOR_BITS, frac), rank, ease)
    bias = Fixed(LATENT_BITS, BIAS_FRAC)
    return made | {f"{layer}.bias": Parameter(tuple(named[axis] for axis in form.rows), bias, bias, brake=1)}


def _layer(layer: str, x: Operand, cores: Sequence[Axes], rows: Axes, size: Mapping[str, int], last: bool) -> list[Contraction]:
    """The contractions of one layer."""
    steps = chain([x[1], *cores], rows, size)
    made: list[Contraction] = []
    for k, (_, core, axes) in enumerate(steps):
        args = (x, (f"{layer}.core{core - 1}", cores[core - 1]))
        if k + 1 < len(steps):
            made.append(Contraction(f"{layer}.partial{k}", args, axes, ACTIVATION_BITS))
        else:
            frac = SCORE_FRAC if last else None
            made.append(Contraction(layer, args, axes, ACTIVATION_BITS, frac, f"{layer}.bias", relu=not last))
        x = (made[-1].name, axes)
    return made


def _backward(
    forward: Sequence[Contraction], parameters: Mapping[str, Parameter], strips: Collection[str]
) -> tuple[list[Contraction], dict[str, str]]:
    """Two contractions for each forward one, the last first: the gradient of the core that it read, and of what else it read."""
    made, gradients = [], {}
    error = ("error", forward[-1].axes)
    relus = {each.name for each in forward if each.relu}

    def gradient(name: str, args: tuple[Operand, ...]) -> None:
        axes = parameters[name].axes
        axes = (*(axis for axis in args[0][1] if axis in strips and axis not in axes), *axes)
        made.append(Contraction(f"{name}.gradient", args, axes, GRADIENT_BITS))
        gradients[name] = made[-1].name

    for each in reversed(forward):
        (x, x_axes), (core, core_axes) = each.args
        error = (error[0], each.axes)
        if each.bias:
            gradient(each.bias, (error,))
        gradient(core, (error, (x, x_axes)))
        if x != "image":
            made.append(Contraction(f"{x}.error", (error, (core, core_axes)), x_axes, GRADIENT_BITS, mask=x if x in relus else ""))
            error = (made[-1].name, x_axes)
    return made, gradients
