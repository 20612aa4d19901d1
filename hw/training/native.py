"""The step of a training as C++ of its sizes, for the processor that is there: what the machine's time is compared with.

Images go one by one through matrix products of 16-bit elements whose sums stay in registers; the end of a batch is numpy's. A contraction
is a product for every combination of the axes that stand in front of the rows: one operand gives scalars, wherever they lie, the other one
vectors, which are copied where they do not lie in a row.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
import pooch
from filelock import FileLock

from bayestt.algebra.einsum import Axes
from bayestt.algebra.fixed import MAX_BITS, rescale
from bayestt.algebra.reciprocal import INDEX_BITS, MANTISSA_BITS, TABLE
from bayestt.ir.descend import EXPONENTIAL, Rule, State, Values, accumulator_frac, check, factors_of, fractions, moved
from bayestt.ir.training import BIAS_BITS, ERROR_FRAC, GRADIENT_BITS, Contraction, Operand, Training

PARTS = Path(__file__).with_suffix(".cpp")
COMPILER = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
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


def descend_natively(training: Training, state: State, images: np.ndarray, labels: np.ndarray, rule: Rule) -> State:
    """The state after one step on images (n, pixels), integers of 8 bits, and their labels (n,): exactly the definition's."""
    return moved(training, state, *summed_gradients(training, state, images, labels), rule)


def summed_gradients(training: Training, state: State, images: np.ndarray, labels: np.ndarray) -> tuple[Values, dict[str, int]]:
    """What images make of a step before it moves: sums of every parameter's gradients, the largest magnitude of every contraction."""
    check(training, images, labels)
    fracs, factors = fractions(training, state.shifts), factors_of(training, state)
    made = {each.contraction.name: each for each in products(training)}
    shifts = [_within(accumulator_frac(each, fracs) - fracs[each.name]) for each in training.contractions]
    begins = [rescale(factors[each.bias], fracs[each.bias] - accumulator_frac(each, fracs), BIAS_BITS) for each in _biased(training)]
    orders = {name: made[gradient].y for name, gradient in training.gradients.items()}
    axes = {name: training.parameters[name].axes for name in orders}
    totals = {name: state.velocities[name].transpose([axes[name].index(axis) for axis in order]) for name, order in orders.items()}
    totals = {name: np.array(total, np.int16, order="C") for name, total in totals.items()}
    peaks = np.zeros(len(training.contractions), np.int32)
    pixels, *read = (np.ascontiguousarray(array, np.int16) for array in (images, *factors.values()))
    classes, by, *begun = (np.ascontiguousarray(array, np.int32) for array in (labels, shifts, *begins))
    arrays = [pixels, classes, by, peaks, *read, *begun, *totals.values()]
    library(training).step(len(images), (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays)))
    largest = {each.name: int(peak) for each, peak in zip(training.contractions, peaks, strict=True)}
    sums = {}
    for name, order in orders.items():
        sums[name] = totals[name].transpose([order.index(axis) for axis in axes[name]]).astype(np.int64)
        largest[training.gradients[name]] = int(np.abs(sums[name]).max())
    return sums, largest


@cache
def library(training: Training) -> ctypes.CDLL:
    """A training's step, compiled at the first call on a machine and kept in the user's cache folder."""
    called = os.environ.get("CXX", "c++")
    compiler = shutil.which(called)
    if compiler is None:
        raise FileNotFoundError(
            f"there is no C++ compiler {called}: install one (g++ or clang), or say in the variable CXX what it is called"
        )
    text = source(training)
    # What a compiler predefines tells its version and the processor.
    predefined = _called([compiler, *COMPILER, "-dM", "-E", "-x", "c++", os.devnull])
    key = sha256("\n".join([text, predefined, compiler, *COMPILER]).encode()).hexdigest()
    made = Path(pooch.os_cache("bayestt")) / "training" / key[:20] / "step.so"
    made.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(made.with_suffix(".lock")):
        if not made.exists():
            written, complete = made.with_suffix(".cpp"), made.with_suffix(".part")
            written.write_text(text)
            _called([compiler, *COMPILER, written, "-o", complete])
            complete.replace(made)
    return ctypes.CDLL(str(made))


def source(training: Training) -> str:
    """The text of a training's step."""
    made = products(training)
    numbers = {name: k for k, name in enumerate(training.bits)} | {"one": len(training.bits)}
    gradients = _gradients(training)
    names = {name: f"gradient{numbers[gradients[name]]}" if name in gradients else f"value{k}" for name, k in numbers.items()}
    given = [("const element", "image"), ("const int32_t", "labels"), ("const int32_t", "shifts"), ("int32_t", "peaks")]
    given += [("const element", names[name]) for name in training.parameters]
    given += [("const int32_t", f"begin{numbers[each.name]}") for each in _biased(training)]
    given += [("element", names[gradient]) for gradient in training.gradients.values()]
    kept = {each.name: prod(training.shape(each.axes)) for each in training.contractions if each.name not in gradients}
    kept["error"] = kept[training.scored.name]
    copied = [each for each in made if not _in_place(training, each)]
    pixels = prod(training.shape(training.image))

    def part(each: Product) -> Iterator[str]:
        if each in copied and each.w[0] not in training.parameters:
            yield from _copied(training, each, names)
        yield from _multiplied(training, each, names, numbers)

    forward, backward = made[: len(training.forward)], made[len(training.forward) :]
    return "\n".join(
        [
            *_constants(),
            PARTS.read_text(),
            f"alignas(64) static const element {names['one']}[] = {{1}};",
            *(f"alignas(64) static thread_local element {names[name]}[{extent}];" for name, extent in kept.items()),
            *(f"alignas(64) static thread_local element {_copy(each, names)}[{_copy_extent(training, each)}];" for each in copied),
            'extern "C" void step(int images, void **given) {',
            *(f"{kind} *{name} = ({kind} *)given[{k}];" for k, (kind, name) in enumerate(given)),
            *(line for each in copied if each.w[0] in training.parameters for line in _copied(training, each, names)),
            f"for (int n = 0; n < images; n++) {{ const element *{names['image']} = image + n * {pixels};",
            *(line for each in forward for line in part(each)),
            f"softmax_error<{kept['error']}>({names[training.scored.name]}, labels[n], {names['error']});",
            *(line for each in backward for line in part(each)),
            "}",
            "}\n",
        ]
    )


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


def _copy_axes(each: Product) -> Axes:
    """The axes of w as it is copied, columns last."""
    return tuple(axis for axis in (*each.around, *each.summed) if axis in each.w[1])


def _copy_extent(training: Training, each: Product) -> int:
    return prod(training.shape(_copy_axes(each))) * _width(training, each)


def _copy(each: Product, names: Mapping[str, str]) -> str:
    return f"copy_{names[each.contraction.name]}"


def _copied(training: Training, each: Product, names: Mapping[str, str]) -> Iterator[str]:
    """Lines that copy w into rows of whole vectors."""
    read, axes = _strides(training, each.w[1]), (*_copy_axes(each), *each.columns)
    yield from _loops(training, axes)
    written = _copy_strides(training, each)
    yield f"{_copy(each, names)}[{_at(axes, written)}] = {names[each.w[0]]}[{_at(axes, read)}];"


def _copy_strides(training: Training, each: Product) -> dict[str, int]:
    width = _width(training, each)
    outer = {axis: stride * width for axis, stride in _strides(training, _copy_axes(each)).items()}
    return outer | _strides(training, each.columns)


def _multiplied(training: Training, each: Product, names: Mapping[str, str], numbers: Mapping[str, int]) -> Iterator[str]:
    """Lines that make a contraction of what its operands are."""
    contraction = each.contraction
    gradient = contraction.name in training.gradients.values()
    x, w = _strides(training, each.x[1]), _strides(training, each.w[1])
    w_name = names[each.w[0]]
    if not _in_place(training, each):
        w, w_name = _copy_strides(training, each), _copy(each, names)
    y = _strides(training, each.y)
    number, extent = training.contractions.index(contraction), prod(training.shape(each.columns))
    tables = {"x_row": (each.rows, x), "x_summed": (each.summed, x), "w_summed": (each.summed, w), "y_row": (each.rows, y)}
    yield f"{{ // {contraction.name}"
    for name, (axes, strides) in tables.items():
        yield f"static const int {name}[] = {{{', '.join(map(str, _offsets(training, axes, strides)))}}};"
    yield f"const int shift = shifts[{number}];"
    yield f"int32_t peak = peaks[{number}];"
    yield from _loops(training, each.around)
    sizes = f"{prod(training.shape(each.rows))}, {prod(training.shape(each.summed))}, {_width(training, each)}"
    operands = f"{names[each.x[0]]} + {_at(each.around, x)}, x_row, x_summed, {w_name} + {_at(each.around, w)}, w_summed"
    yield f"product<{sizes}>({operands}, [&](int row, int column, int end, const int32_t *sum) {{"
    yield f"const int first = {_at(each.around, y)} + y_row[row];"
    yield f"for (int c = column; c < std::min(end, {extent}); c++) {{"
    rescaled = "rescaled" if contraction.frac is None else "rescaled_any"
    begin = f" + begin{numbers[contraction.name]}[first + c]" if contraction.bias else ""
    yield f"int32_t made = {rescaled}(sum[c - column]{begin}, shift, {contraction.bits});"
    if contraction.relu:
        yield "made = std::max(made, 0);"
    if contraction.mask:
        yield f"made = {names[contraction.mask]}[first + c] ? made : 0;"
    target = f"{names[contraction.name]}[first + c]"
    if gradient:
        yield f"{target} = saturated({target} + made, {GRADIENT_BITS});"
    else:
        yield "peak = std::max(peak, std::abs(made));"
        yield f"{target} = made;"
    yield "} });"
    yield f"peaks[{number}] = peak; }}"


def _loops(training: Training, axes: Axes) -> Iterator[str]:
    """Loops over axes, the last one fastest, around the statement behind them."""
    for k, axis in enumerate(axes):
        yield f"for (int a{k} = 0; a{k} < {training.size[axis]}; a{k}++)"


def _at(axes: Axes, strides: Mapping[str, int]) -> str:
    """Where loops over axes are."""
    return " + ".join(["0", *(f"a{k} * {strides[axis]}" for k, axis in enumerate(axes) if axis in strides)])


def _offsets(training: Training, axes: Axes, strides: Mapping[str, int]) -> list[int]:
    """Where every index of axes, row-major, lies."""
    moves = np.array([strides.get(axis, 0) for axis in axes], np.int64)
    return (np.indices(training.shape(axes)).reshape(len(axes), -1).T @ moves).tolist() if axes else [0]


def _strides(training: Training, axes: Axes) -> dict[str, int]:
    """How far each axis of a row-major array moves."""
    return {axis: prod(training.shape(axes[k + 1 :])) for k, axis in enumerate(axes)}


def _gradients(training: Training) -> dict[str, str]:
    """The parameter of every gradient."""
    return {gradient: name for name, gradient in training.gradients.items()}


def _biased(training: Training) -> list[Contraction]:
    return [each for each in training.contractions if each.bias]


def _constants() -> Iterator[str]:
    """What software and this share."""
    for name, value in {"VECTOR": VECTOR, "INDEX_BITS": INDEX_BITS, "MANTISSA_BITS": MANTISSA_BITS, "ERROR_FRAC": ERROR_FRAC}.items():
        yield f"constexpr int {name} = {value};"
    for name, table in {"EXPONENTIAL": EXPONENTIAL, "RECIPROCAL": TABLE}.items():
        yield f"static const int {name}[] = {{{', '.join(map(str, table.tolist()))}}};"


def _within(shift: int) -> int:
    """A shift as `rescale` takes it."""
    return max(1 - MAX_BITS, min(shift, MAX_BITS - 1))


def _called(command: Sequence[str | Path]) -> str:
    """What a compiler says; one that fails is named, with the end of what it says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed on the step of a training: use another one. It says: {done.stderr.strip()[-1000:]}")
    return done.stdout
