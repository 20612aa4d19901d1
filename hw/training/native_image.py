"""Of the compiled step what is done with every image: its contractions as matrix products, in C++.

A contraction is a product for every combination of the axes that stand in front of the rows: one operand gives scalars, wherever they lie,
the other one vectors, which are copied where they do not lie in a row.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np

from bayestt.algebra.einsum import Axes
from bayestt.ir.training import GRADIENT_BITS, Contraction, Operand, Training

VECTOR = 16
"""Sums in a vector: 512 bits; compilers make two or four of it where a processor has fewer."""
NOTHING: Operand = ("one", ())
"""What a value that is contracted alone is multiplied by."""


@dataclass(frozen=True)
class Product:
    """A contraction as matrix products, one for every index of `around`: `x` gives scalars, `w` vectors along `columns`.

    Results lie in the order of `y`: a gradient's as the products make them, without strip axes, others' row-major.
    """

    contraction: Contraction
    x: Operand
    w: Operand
    around: Axes
    rows: Axes
    summed: Axes
    columns: Axes
    y: Axes


def names(training: Training) -> dict[str, str]:
    """What the arrays of values are called; a gradient is called after its parameter."""
    numbers = {name: number for number, name in enumerate(training.bits)}
    gradients = {gradient: f"gradient{numbers[name]}" for name, gradient in training.gradients.items()}
    return {name: gradients.get(name, f"value{number}") for name, number in numbers.items()} | {NOTHING[0]: "one"}


def kept(training: Training) -> Iterator[str]:
    """Lines that make room for what is kept of an image, and for copies."""
    called, gradients = names(training), {*training.gradients.values()}
    extents = {each.name: prod(training.shape(each.axes)) for each in training.contractions if each.name not in gradients}
    yield "alignas(64) static const element one[] = {1};"
    for name, extent in {**extents, "error": extents[training.scored.name]}.items():
        yield f"alignas(64) static thread_local element {called[name]}[{extent}];"
    for each in _copies(training):
        yield f"alignas(64) static thread_local element {_copy(each, called)}[{_copy_extent(training, each)}];"


def before_images(training: Training) -> Iterator[str]:
    """Lines that copy factors, for all images of a batch."""
    for each in _copies(training):
        if each.w[0] in training.parameters:
            yield from _copied(training, each, names(training))


def of_an_image(training: Training) -> Iterator[str]:
    """Lines that make of an `image` with its `label` what it adds to gradients, and to `peaks` of contractions."""
    called, made = names(training), products(training)
    copies = _copies(training)
    for k, each in enumerate(made):
        if k == len(training.forward):
            scores = called[training.scored.name]
            yield f"softmax_error<{prod(training.shape(training.scored.axes))}>({scores}, label, {called['error']});"
        if each in copies and each.w[0] not in training.parameters:
            yield from _copied(training, each, called)
        yield from _multiplied(training, each, called)


@cache
def products(training: Training) -> tuple[Product, ...]:
    """Every contraction in the way, of two, that takes the fewer vectors and copies."""
    return tuple(_product(training, each) for each in training.contractions)


def _product(training: Training, each: Contraction) -> Product:
    first, second = each.args if len(each.args) == 2 else (*each.args, NOTHING)
    ways = [_as_product(training, each, x, w) for x, w in ((first, second), (second, first))]
    return min(ways, key=lambda way: _cost(training, way))


def _as_product(training: Training, each: Contraction, x: Operand, w: Operand) -> Product:
    """A contraction in one way: columns are what only w has, of results that lie row-major the last of them."""
    gradient = each.name in training.gradients.values()
    kept = training.parameters[_gradients(training)[each.name]].axes if gradient else each.axes
    around = [axis for axis in each.axes if axis not in kept or (axis in x[1] and axis in w[1])]
    columns = [axis for axis in w[1] if axis in each.axes and axis not in around]
    if not gradient:
        last = next((k for k in range(len(each.axes)) if {*each.axes[k:]} <= {*columns}), len(each.axes))
        around = [axis for axis in each.axes if axis in around or axis in columns and axis not in each.axes[last:]]
        columns = each.axes[last:]
    rows = tuple(axis for axis in each.axes if axis not in (*around, *columns))
    summed = tuple(axis for axis in dict.fromkeys((*w[1], *x[1])) if axis not in each.axes)
    y = tuple(axis for axis in (*around, *rows, *columns) if axis in kept) if gradient else each.axes
    return Product(each, x, w, tuple(around), rows, summed, tuple(columns), y)


def _cost(training: Training, each: Product) -> float:
    """Vectors that are multiplied, and elements that are copied for every image."""
    vectors = prod(training.shape((*each.around, *each.rows, *each.summed))) * _width(training, each) // VECTOR
    copies = 0 if each.w[0] in training.parameters or _in_place(training, each) else _copy_extent(training, each)
    return vectors + copies


def _width(training: Training, each: Product) -> int:
    """The columns of a product, up to a whole vector."""
    return -(-prod(training.shape(each.columns)) // VECTOR) * VECTOR


def _in_place(training: Training, each: Product) -> bool:
    """Whether columns lie in a row, and fill vectors."""
    start = len(each.w[1]) - len(each.columns)
    return each.w[1][start:] == each.columns and prod(training.shape(each.columns)) % VECTOR == 0


def _copies(training: Training) -> list[Product]:
    """The products whose vectors are copied."""
    return [each for each in products(training) if not _in_place(training, each)]


def _copy_axes(each: Product) -> Axes:
    """The axes of w as it is copied, columns last."""
    return tuple(axis for axis in (*each.around, *each.summed) if axis in each.w[1])


def _copy_extent(training: Training, each: Product) -> int:
    return prod(training.shape(_copy_axes(each))) * _width(training, each)


def _copy(each: Product, called: Mapping[str, str]) -> str:
    return f"copy_{called[each.contraction.name]}"


def _copied(training: Training, each: Product, called: Mapping[str, str]) -> Iterator[str]:
    """Lines that copy w into rows of whole vectors."""
    read, axes = strides(training, each.w[1]), (*_copy_axes(each), *each.columns)
    yield from loops(training, axes)
    written = _copy_strides(training, each)
    yield f"{_copy(each, called)}[{at(axes, written)}] = {called[each.w[0]]}[{at(axes, read)}];"


def _copy_strides(training: Training, each: Product) -> dict[str, int]:
    width = _width(training, each)
    outer = {axis: stride * width for axis, stride in strides(training, _copy_axes(each)).items()}
    return outer | strides(training, each.columns)


def _multiplied(training: Training, each: Product, called: Mapping[str, str]) -> Iterator[str]:
    """Lines that make a contraction of what its operands are."""
    contraction = each.contraction
    gradient = contraction.name in training.gradients.values()
    x, w = strides(training, each.x[1]), strides(training, each.w[1])
    w_name = called[each.w[0]]
    if not _in_place(training, each):
        w, w_name = _copy_strides(training, each), _copy(each, called)
    y = strides(training, each.y)
    number, extent = training.contractions.index(contraction), prod(training.shape(each.columns))
    tables = {"x_row": (each.rows, x), "x_summed": (each.summed, x), "w_summed": (each.summed, w), "y_row": (each.rows, y)}
    yield f"{{ // {contraction.name}"
    for name, (axes, moves) in tables.items():
        yield f"static const int {name}[] = {{{', '.join(map(str, _offsets(training, axes, moves)))}}};"
    yield f"const int shift = shifts[{number}];"
    yield f"int32_t peak = peaks[{number}];"
    yield from loops(training, each.around)
    sizes = f"{prod(training.shape(each.rows))}, {prod(training.shape(each.summed))}, {_width(training, each)}"
    operands = f"{called[each.x[0]]} + {at(each.around, x)}, x_row, x_summed, {w_name} + {at(each.around, w)}, w_summed"
    yield f"product<{sizes}>({operands}, [&](int row, int column, int end, const int32_t *sum) {{"
    yield f"const int first = {at(each.around, y)} + y_row[row];"
    yield f"for (int c = column; c < std::min(end, {extent}); c++) {{"
    rescaled = "rescaled" if contraction.frac is None else "rescaled_any"
    begin = f" + begin_{called[contraction.name]}[first + c]" if contraction.bias else ""
    yield f"int32_t made = {rescaled}(sum[c - column]{begin}, shift, {contraction.bits});"
    if contraction.relu:
        yield "made = std::max(made, 0);"
    if contraction.mask:
        yield f"made = {called[contraction.mask]}[first + c] ? made : 0;"
    target = f"{called[contraction.name]}[first + c]"
    if gradient:
        yield f"{target} = saturated({target} + made, {GRADIENT_BITS});"
    else:
        yield "peak = std::max(peak, std::abs(made));"
        yield f"{target} = made;"
    yield "} });"
    yield f"peaks[{number}] = peak; }}"


def loops(training: Training, axes: Axes) -> Iterator[str]:
    """Loops over axes, the last one fastest, around the statement behind them."""
    for k, axis in enumerate(axes):
        yield f"for (int a{k} = 0; a{k} < {training.size[axis]}; a{k}++)"


def at(axes: Axes, moves: Mapping[str, int]) -> str:
    """Where loops over axes are, of what each of them moves so far."""
    return " + ".join(["0", *(f"a{k} * {moves[axis]}" for k, axis in enumerate(axes) if axis in moves)])


def _offsets(training: Training, axes: Axes, moves: Mapping[str, int]) -> list[int]:
    """Where every index of axes, row-major, lies."""
    by = np.array([moves.get(axis, 0) for axis in axes], np.int64)
    return (np.indices(training.shape(axes)).reshape(len(axes), -1).T @ by).tolist() if axes else [0]


def strides(training: Training, axes: Axes) -> dict[str, int]:
    """How far each axis of a row-major array moves."""
    return {axis: prod(training.shape(axes[k + 1 :])) for k, axis in enumerate(axes)}


def _gradients(training: Training) -> dict[str, str]:
    """The parameter of every gradient."""
    return {gradient: name for name, gradient in training.gradients.items()}
