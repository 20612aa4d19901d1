"""Steps of a training as C++ of its sizes, for the processor that is there: what the machine's time is compared with.

Images go one by one through matrix products of 16-bit elements whose sums stay in registers; what moves at the end of a batch moves entry
by entry.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
import pooch
from filelock import FileLock

from bayestt.algebra.einsum import Axes
from bayestt.algebra.fixed import MAX_BITS
from bayestt.algebra.lfsr import DRAW_BITS
from bayestt.algebra.reciprocal import INDEX_BITS, MANTISSA_BITS, TABLE
from bayestt.ir.descend import EXPONENTIAL, PATIENT, Rule, State, check
from bayestt.ir.rank_scale import DAMPING, SCALE_FRAC, THRESHOLD, Scales
from bayestt.ir.training import ERROR_FRAC, Training
from hw.training import native_batch, native_image
from hw.training.native_batch import gradient_axes, rank_axes
from hw.training.native_image import VECTOR, names
from hw.training.script import Batch

PARTS = Path(__file__).with_suffix(".cpp")
COMPILER = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")


def descend_natively(training: Training, state: State, batches: Sequence[Batch], rule: Rule) -> State:
    """The state after a step on each of some batches: exactly the definition's."""
    for images, labels in batches:
        check(training, images, labels)
    pixels, labels = (np.concatenate(each) for each in zip(*batches, strict=True))
    sizes = np.array([len(each) for _, each in batches], np.int32)
    arrays = _as_arrays(training, state)
    ruled = np.array([rule.rate, rule.pull is not None, rule.pull or 0, rule.momentum], np.int32)
    given = [np.ascontiguousarray(pixels, np.int16), np.ascontiguousarray(labels, np.int32), sizes, ruled, *arrays.values()]
    library(training).steps(len(batches), (ctypes.c_void_p * len(given))(*(array.ctypes.data for array in given)))
    return _as_state(training, state, arrays)


@cache
def library(training: Training) -> ctypes.CDLL:
    """A training's steps, compiled at the first call on a machine and kept in the user's cache folder."""
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
    made = Path(pooch.os_cache("bayestt")) / "training" / key[:20] / "steps.so"
    made.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(made.with_suffix(".lock")):
        if not made.exists():
            written, complete = made.with_suffix(".cpp"), made.with_suffix(".part")
            written.write_text(text)
            _called([compiler, *COMPILER, written, "-o", complete])
            complete.replace(made)
    return ctypes.CDLL(str(made))


def source(training: Training) -> str:
    """The text of a training's steps."""
    given = ["const element images", "const int32_t labels", "const int32_t sizes", "const int32_t rule", *_kinds(training)]
    pixels = prod(training.shape(training.image))
    return "\n".join(
        [
            *_constants(),
            PARTS.read_text(),
            *native_image.kept(training),
            *native_batch.kept(training),
            'extern "C" void steps(int count, void **given) {',
            *(f"{kind} *{name} = ({kind} *)given[{k}];" for k, (kind, name) in enumerate(each.rsplit(" ", 1) for each in given)),
            "const int rate = rule[0], pulls = rule[1], pull = rule[2], momentum = rule[3];",
            "uint32_t draws = progress[0]; int32_t steps = progress[1];",
            "for (int step = 0; step < count; step++) {",
            *native_batch.before_images(training),
            *native_image.before_images(training),
            f"for (int n = 0; n < sizes[step]; n++, images += {pixels}, labels++) {{",
            f"const element *{names(training)['image']} = images; const int label = *labels;",
            *native_image.of_an_image(training),
            "}",
            *native_batch.behind_images(training),
            "}",
            "progress[0] = draws; progress[1] = steps; }\n",
        ]
    )


def _kinds(training: Training) -> Iterator[str]:
    """What a state's arrays are, in their order, and how they are called."""
    yield from ("int32_t adapted", "int32_t counts", "int32_t progress")
    for number, name in enumerate(training.parameters):
        yield from (f"element latent{number}", f"element {names(training)[training.gradients[name]]}")
    for number, _ in enumerate(rank_axes(training)):
        yield from (f"int32_t square{number}", f"int32_t alive{number}")


def _as_arrays(training: Training, state: State) -> dict[str, np.ndarray]:
    """A state as arrays that steps change."""
    controls = [[kept.get(each.name, 0) for each in training.contractions] for kept in (state.shifts, state.counts)]
    arrays = [*controls, [state.register, state.steps]]
    for name, parameter in training.parameters.items():
        arrays += [state.latents[name], _reordered(state.velocities[name], parameter.axes, gradient_axes(training, name))]
    for axis in rank_axes(training):
        arrays += [state.scales[axis].squares, state.scales[axis].alive]
    types = {"element": np.int16, "int32_t": np.int32}
    kinds = [each.split() for each in _kinds(training)]
    return {name: np.array(array, types[kind], order="C") for (kind, name), array in zip(kinds, arrays, strict=True)}


def _as_state(training: Training, before: State, arrays: Mapping[str, np.ndarray]) -> State:
    """The state that arrays hold, of what there was before."""
    adapted, counts, progress, *held = (array.astype(np.int64) for array in arrays.values())
    latents, velocities, scales = {}, {}, {}
    pairs = [*zip(held[::2], held[1::2], strict=True)]
    for (name, parameter), (latent, velocity) in zip(training.parameters.items(), pairs, strict=False):
        latents[name], velocities[name] = latent, _reordered(velocity, gradient_axes(training, name), parameter.axes)
    for axis, (squares, alive) in zip(rank_axes(training), pairs[len(latents) :], strict=True):
        scales[axis] = Scales(squares, alive.astype(bool))
    numbers = {each.name: k for k, each in enumerate(training.contractions)}
    shifts, counts = ({name: int(kept[numbers[name]]) for name in before.shifts} for kept in (adapted, counts))
    return State(latents, velocities, shifts, counts, scales, *progress.tolist())


def _reordered(array: np.ndarray, axes: Axes, order: Axes) -> np.ndarray:
    """An array of axes with them in another order."""
    return array.transpose([axes.index(axis) for axis in order])


def _constants() -> Iterator[str]:
    """What software and this share."""
    numbers = {"VECTOR": VECTOR, "MAX_BITS": MAX_BITS, "INDEX_BITS": INDEX_BITS, "MANTISSA_BITS": MANTISSA_BITS, "ERROR_FRAC": ERROR_FRAC}
    numbers |= {"DRAW_BITS": DRAW_BITS, "SCALE_FRAC": SCALE_FRAC, "DAMPING": DAMPING, "THRESHOLD": THRESHOLD, "PATIENT": PATIENT}
    for name, value in numbers.items():
        yield f"constexpr int {name} = {value};"
    for name, table in {"EXPONENTIAL": EXPONENTIAL, "RECIPROCAL": TABLE}.items():
        yield f"static const int {name}[] = {{{', '.join(map(str, table.tolist()))}}};"


def _called(command: Sequence[str | Path]) -> str:
    """What a compiler says; one that fails is named, with the end of what it says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed on the steps of a training: use another one. It says: {done.stderr.strip()[-1000:]}")
    return done.stdout
