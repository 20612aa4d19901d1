"""Files that hold arrays and what they mean: one file each, versioned, checksummed, and nothing in them ever executes."""

import errno
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bayestt.algebra.fixed import MAX_BITS, Fixed
from bayestt.algebra.lfsr import PERIOD
from bayestt.ir.descend import PATIENT, State
from bayestt.ir.graph import Graph, Op, Window, verify
from bayestt.ir.rank_scale import SCALE_BITS, Scales, alive_entries
from bayestt.ir.training import GRADIENT_BITS, Training

MAGIC = b"bayestt\n"
VERSION = 1
HEADER, FOLDER = "header.json", "arrays/"
STATE_KINDS = ("latents", "velocities", "squares", "alive")


def save(graph: Graph, path: str | Path) -> None:
    """Write a graph to one file; what was there before stays until the new file is complete."""
    verify(graph)
    header = {"ops": [asdict(op) for op in graph.ops], "size": dict(graph.size), "gradients": dict(graph.gradients)}
    write_arrays(path, "graph", header, graph.consts)


def load(path: str | Path) -> Graph:
    """The graph that a file holds, verified. A file that is truncated, altered, foreign or of another version is refused."""
    header, consts = read_arrays(path, "graph")
    try:
        ops = tuple(_op(**fields) for fields in header["ops"])
        return verify(Graph(ops, header["size"], consts, header.get("gradients", {})))
    except (KeyError, TypeError, ValueError) as fault:
        raise ValueError(f"{path} holds no legal graph ({fault}): write it again with bayestt.artifact.save") from fault


def save_state(state: State, path: str | Path, record: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write the state of an integer training to one file; what was there before stays until the new file is complete.

    `record` is what else shall be kept with it, in JSON's types.
    """
    numbers = {"shifts": dict(state.shifts), "counts": dict(state.counts), "register": state.register, "steps": state.steps}
    write_arrays(path, "state", numbers | {"record": dict(record)}, _arrays(state))


def load_state(path: str | Path, training: Training) -> tuple[State, dict[str, Any]]:
    """The state of a training that a file holds, and the record kept with it.

    A file that is truncated, altered, foreign or of another version is refused, and so is a state that this training cannot have.
    """
    header, arrays = read_arrays(path, "state")
    try:
        split = [(*name.partition("/")[::2], array) for name, array in arrays.items()]
        kinds = {kind: {name: array for which, name, array in split if which == kind} for kind in STATE_KINDS}
        scales = {axis: Scales(squares, kinds["alive"][axis]) for axis, squares in kinds["squares"].items()}
        entries, numbers = (kinds["latents"], kinds["velocities"]), (header["shifts"], header["counts"])
        state = State(*entries, *numbers, scales, header["register"], header["steps"])
        _check(state, training)
        return state, header["record"]
    except (KeyError, TypeError, ValueError) as fault:
        raise ValueError(f"{path} holds no state of this training ({fault}): give its own, or begin anew without the file") from fault


def write_arrays(path: str | Path, kind: str, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays and a JSON header, all or nothing; `kind` says what the file is for.

    The file is MAGIC, the SHA-256 of the rest, and a numpy .npz archive, which any unzip opens.
    """
    path = Path(path)
    content = {"kind": kind, "version": VERSION, "header": dict(header), "arrays": _described(arrays)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr(zipfile.ZipInfo(HEADER), json.dumps(content))  # a ZipInfo has no time of writing: same content, same bytes
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{FOLDER}{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with members.open(entry, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    _replace(path, MAGIC + hashlib.sha256(archive.getvalue()).digest() + archive.getvalue())


def read_arrays(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file that `write_arrays` made for `kind`; anything else is refused with what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: give the path of a bayestt {kind} file")
    found = path.read_bytes()
    digest, archive = found[len(MAGIC) : len(MAGIC) + 32], found[len(MAGIC) + 32 :]
    if not found.startswith(MAGIC):
        raise ValueError(f"{path} is not a bayestt file: give one that bayestt wrote")
    if hashlib.sha256(archive).digest() != digest:
        raise ValueError(f"{path} does not match its checksum, so it is truncated or altered: write it again")
    try:
        with np.load(io.BytesIO(archive), allow_pickle=False) as members:
            content = json.loads(members[HEADER])
            arrays = {name.removeprefix(FOLDER): members[name] for name in members.files if name != HEADER}
        what = f"a {content['kind']} file of version {content['version']}"
        sound = content["arrays"] == _described(arrays) and isinstance(content["header"], dict)
    except Exception as fault:  # whatever a foreign file makes the readers of zip, npy and JSON raise
        raise ValueError(f"{path} holds something else than bayestt's arrays ({fault}): give one that bayestt wrote") from fault
    if what != (expected := f"a {kind} file of version {VERSION}"):
        raise ValueError(f"{path} is {what}, expected {expected}: give another file, or write it again")
    if not sound:
        raise ValueError(f"{path} has arrays of other types or shapes than its header lists: write it again")
    return content["header"], arrays


def _arrays(state: State) -> dict[str, np.ndarray]:
    arrays = {f"latents/{name}": latent for name, latent in state.latents.items()}
    arrays |= {f"velocities/{name}": velocity for name, velocity in state.velocities.items()}
    for axis, scales in state.scales.items():
        arrays |= {f"squares/{axis}": scales.squares, f"alive/{axis}": scales.alive}
    return arrays


def _check(state: State, training: Training) -> None:
    """Refuse a state with other names, types, shapes or ranges than those that steps of the training lead to."""
    found = _arrays(state) | {"register": np.array(state.register), "steps": np.array(state.steps)}
    for kind, numbers in (("shifts", state.shifts), ("counts", state.counts)):
        found |= {f"{kind}/{name}": np.array(number) for name, number in numbers.items()}
    expected = _expected(training)
    if odd := sorted({*found} ^ {*expected}):
        raise ValueError(f"{odd[0]} is {'missing' if odd[0] in expected else 'too many'}")
    for name, (shape, low, high) in expected.items():
        array, kind = found[name], np.array(low).dtype
        if (array.dtype, array.shape) != (kind, shape):
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, expected {kind}{list(shape)}")
        if array.min() < low or array.max() > high:
            raise ValueError(f"{name} goes from {array.min()} to {array.max()}, expected {low} to {high}")
    for axis, scales in state.scales.items():
        if not scales.alive.any() or scales.squares[~scales.alive].any():
            raise ValueError(f"alive/{axis} says which indices are there, expected at least one, and squares of 0 for all others")
    for name in training.parameters:
        for kind, entries in (("latents", state.latents), ("velocities", state.velocities)):
            if entries[name][~alive_entries(training, state.scales, name)].any():
                raise ValueError(f"{kind}/{name} has entries of ranks that are gone, expected 0")


def _expected(training: Training) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """Shape, least and largest entry of everything in a state."""
    made: dict[str, tuple[tuple[int, ...], int, int]] = {"register": ((), 1, PERIOD), "steps": ((), 0, np.iinfo(np.int64).max)}
    for name, parameter in training.parameters.items():
        shape, end = training.shape(parameter.axes), 1 << (GRADIENT_BITS - 1)
        made[f"latents/{name}"] = shape, parameter.latent.low, parameter.latent.high
        made[f"velocities/{name}"] = shape, -end, end - 1
        if parameter.rank:
            indices = training.shape((parameter.rank,))
            made[f"squares/{parameter.rank}"], made[f"alive/{parameter.rank}"] = (indices, 0, (1 << SCALE_BITS) - 1), (indices, False, True)
    for each in training.contractions:
        if each.frac is None:
            made |= {f"shifts/{each.name}": ((), 0, MAX_BITS - 1), f"counts/{each.name}": ((), -PATIENT - 1, PATIENT + 1)}
    return made


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place all at once, so that an interrupt or a full disk leaves the old one."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            file.write(content)
        os.umask(mask := os.umask(0))
        os.chmod(temporary, 0o666 & ~mask)  # a temporary file is its owner's alone
        os.replace(temporary, path)
    except OSError as fault:
        why = "the disk is full" if fault.errno == errno.ENOSPC else fault.strerror
        raise OSError(f"cannot write {path} ({why}): choose a folder with room that you may write to") from fault
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def _described(arrays: Mapping[str, np.ndarray]) -> dict[str, list]:
    """Types and shapes of arrays, as the header lists them."""
    return {name: [array.dtype.str, *array.shape] for name, array in arrays.items()}


def _op(
    name: str,
    kind: str,
    axes: list[str],
    args: list[str],
    format: Mapping[str, int] | None,
    shift: int,
    window: list[Mapping[str, Any]] = (),
) -> Op:
    """An op from its JSON fields; files from before there were windows have none."""
    windows = tuple(Window(**fields) for fields in window)
    return Op(name, kind, tuple(axes), tuple(args), Fixed(**format) if format else None, shift, windows)
