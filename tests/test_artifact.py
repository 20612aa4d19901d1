"""Files: what is saved comes back, and anything else is refused in a sentence, with nothing in it ever run."""

import hashlib
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import features, float_graphs, images, written
from hypothesis import given, settings
from learnable import as_lists, small_chain

from bayestt.artifact import HEADER, MAGIC, VERSION, load, load_state, read_arrays, save, save_state, write_arrays
from bayestt.ir.compact import compact
from bayestt.ir.descend import Rule, descend
from bayestt.ir.fold import fold
from bayestt.ir.graph import Graph, verify
from bayestt.ir.interpret import interpret
from bayestt.ir.quantize import quantize
from bayestt.ir.start import start

GRAPH = verify(written("x INPUT n h\nw CONST h i\ny CONTRACT n i < x w", h=4, i=3))


def assert_equal(found: Graph, expected: Graph) -> None:
    """Equal in every field, and in every bit of every constant."""
    assert (found.ops, found.size) == (expected.ops, expected.size)
    assert list(found.consts) == list(expected.consts)
    for name, const in expected.consts.items():
        assert (found.consts[name].dtype, found.consts[name].tobytes()) == (const.dtype, const.tobytes())


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("artifact") / "net.bayestt"
    save(GRAPH, found)
    return found


@settings(max_examples=40, deadline=None)
@given(graph=float_graphs(windows=True))
def test_graphs_come_back_as_they_were(path: Path, graph: Graph) -> None:
    for kept in (graph, quantize(fold(graph), np.random.default_rng(0).normal(size=(9, features(graph))))):
        save(kept, path.with_name("kept"))
        assert_equal(load(path.with_name("kept")), kept)
    x = images(kept, 3, 0, extreme=False)
    assert (interpret(load(path.with_name("kept")), x) == interpret(kept, x)).all()


@pytest.mark.parametrize("name", ["file", HEADER, "a/b", "a.npy", "../a", "fc1.core0", "é", "allow_pickle"])
def test_constants_may_have_any_name(tmp_path: Path, name: str) -> None:
    graph = verify(written(f"x INPUT n h\n{name} CONST h i\ny CONTRACT n i < x {name}", h=4, i=3))
    save(graph, tmp_path / "net")
    assert_equal(load(tmp_path / "net"), graph)


def test_sizes_and_formats_may_be_numbers_of_numpy(tmp_path: Path) -> None:
    size = {axis: np.int64(extent) for axis, extent in GRAPH.size.items()}
    save(replace(GRAPH, size=size), tmp_path / "net")
    assert_equal(load(tmp_path / "net"), GRAPH)


def test_an_illegal_graph_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ends with an operation"):
        save(replace(GRAPH, ops=GRAPH.ops[:1]), tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_a_truncated_or_altered_file_is_refused_wherever_it_is_damaged(path: Path) -> None:
    whole = path.read_bytes()
    cut = [whole[:length] for length in [*range(60), *range(60, len(whole), 7), len(whole) - 1]]
    altered = [whole[:k] + bytes([whole[k] ^ 1 << k % 8]) + whole[k + 1 :] for k in range(len(whole))]
    for content in [*cut, *altered, whole + b"\0"]:
        path.with_name("damaged").write_bytes(content)
        with pytest.raises(ValueError, match="truncated or altered|not a bayestt file"):
            load(path.with_name("damaged"))


class Bomb:
    """Leaves a file behind when unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("exploded"),)


def archive(**members: np.ndarray | bytes) -> bytes:
    """A zip archive of arrays, pickled where they must be, and of plain bytes."""
    held, content = io.BytesIO(), {}
    for name, member in members.items():
        np.save(array := io.BytesIO(), member)
        content[name] = member if isinstance(member, bytes) else array.getvalue()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in content.items():
            zipped.writestr(name if isinstance(members[name], bytes) else f"{name}.npy", data)
    return held.getvalue()


NUMBERS = archive(w=np.arange(1000))
HUGE = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(117) + b"\n"
FOREIGN = {
    "nothing": b"",
    "text": b"a net\n",
    "a pickle": pickle.dumps(Bomb()),
    "a plain npz": NUMBERS,
    "an object array": archive(**{HEADER: b"{}", "w": np.array([Bomb()], object)}),
    "a header of objects": archive(**{HEADER: np.array([Bomb()], object)}),
    "a plain array": b"\x93NUMPY" + bytes(100),
    "a zip": archive(**{"a.txt": b"hi"}),
    "an empty header": archive(**{HEADER: b"{}"}),
    "a zip with a huge array": archive(**{"w.npy": HUGE}),
    "a zip that is damaged inside": NUMBERS[:60] + bytes(byte ^ 0xFF for byte in NUMBERS[60:90]) + NUMBERS[90:],
    "a list": archive(**{HEADER: b"[]"}),
    "no JSON": archive(**{HEADER: b"{"}),
    "JSON without end": archive(**{HEADER: b"[" * 100_000}),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("disguised", [False, True], ids=["as it is", "with a right checksum"])
def test_a_foreign_file_is_refused_and_nothing_in_it_runs(
    content: bytes, disguised: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    Path("foreign").write_bytes(MAGIC + hashlib.sha256(content).digest() + content if disguised else content)
    with pytest.raises(ValueError, match="foreign (holds something else than bayestt's arrays|is not a bayestt file)"):
        load("foreign")
    assert not Path("exploded").exists()


SOUND = {"kind": "graph", "version": VERSION, "header": {"ops": [], "size": {}}, "arrays": {}}
CRAFTED = {
    "a file of another version": ({"version": VERSION + 1}, f"graph file of version {VERSION + 1}, expected a graph file of version"),
    "a file of another kind": ({"kind": "checkpoint"}, "is a checkpoint file of version"),
    "another list of arrays": ({"arrays": {"w": ["<f8", 3]}}, "other types or shapes"),
    "no fields": ({"header": []}, "other types or shapes"),
    "no ops": ({"header": {"ops": [], "size": {}}}, "holds no legal graph .*starts with its one INPUT"),
    "no sizes": ({"header": {"ops": []}}, "holds no legal graph"),
    "an op with an unknown field": ({"header": {"ops": [{"evil": 1}], "size": {}}}, "holds no legal graph .*evil"),
    "an op that is text": ({"header": {"ops": "text", "size": {}}}, "holds no legal graph"),
}


@pytest.mark.parametrize(("change", "words"), CRAFTED.values(), ids=CRAFTED)
def test_a_sound_file_that_holds_no_graph_is_refused(change: dict, words: str, path: Path) -> None:
    content = archive(**{HEADER: json.dumps(SOUND | change).encode()})
    path.with_name("crafted").write_bytes(MAGIC + hashlib.sha256(content).digest() + content)
    with pytest.raises(ValueError, match=words):
        load(path.with_name("crafted"))


def test_a_file_of_another_kind_keeps_its_arrays_and_header(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a" / "new" / "checkpoint", "checkpoint", {"epoch": 3}, {"theta": np.arange(3.0), "step": np.array(7)})
    header_found, arrays = read_arrays(tmp_path / "a" / "new" / "checkpoint", "checkpoint")
    assert (header_found, arrays["theta"].tolist(), arrays["step"].shape) == ({"epoch": 3}, [0, 1, 2], ())
    with pytest.raises(FileNotFoundError, match="nowhere is not there"):
        load(tmp_path / "nowhere")


FAILING = {
    "a folder that is a file": ("path = 'net/inside'", 1, "cannot write net/inside"),
    "a folder not writable": ("os.chmod('.', 0o555); os.getuid() or os.setuid(65534)", 1, "cannot write net .Permission denied"),
    "a disk that fills up": ("resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))", 1, "cannot write net .File too large"),
    "an end in mid-write": (
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))",
        -signal.SIGXFSZ,
        "",
    ),
}


@pytest.mark.parametrize(("before", "code", "words"), FAILING.values(), ids=FAILING)
def test_a_write_that_fails_leaves_the_old_file(before: str, code: int, words: str, tmp_path: Path) -> None:
    save(GRAPH, tmp_path / "net")
    program = f"import os, resource, signal; from bayestt.artifact import *; path, graph = 'net', load('net'); {before}; save(graph, path)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert re.search(words, done.stderr)
    assert_equal(load(tmp_path / "net"), GRAPH)
    assert code != 1 or [entry.name for entry in tmp_path.iterdir()] == ["net"]


def test_others_may_read_a_file_as_any_other(tmp_path: Path) -> None:
    save(GRAPH, tmp_path / "net")
    (tmp_path / "plain").touch()
    assert (tmp_path / "net").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_state_of_a_training_comes_back_as_it_was(tmp_path: Path) -> None:
    training, images, labels = small_chain()
    state = start(training, images, labels, seed=0)
    for _ in range(200):
        state = descend(training, state, images, labels, Rule(11, 7))
    assert not all(scales.alive.all() for scales in state.scales.values())
    for made_with, kept in [(training, state), compact(training, state)]:
        save_state(kept, tmp_path / "state", {"epochs": [1, 2]})
        found, record = load_state(tmp_path / "state", made_with)
        assert as_lists(found) == as_lists(kept)
        assert record == {"epochs": [1, 2]}
    with pytest.raises(ValueError, match="is a state file of version 1, expected a graph file"):
        load(tmp_path / "state")
    with pytest.raises(ValueError, match=r"state holds no state of this training \(latents/.* is int64.*, expected int64"):
        load_state(tmp_path / "state", training)


ODD_STATES = {
    "no shifts": ({"shifts": None}, {}, "NoneType"),
    "no such contraction": ({"shifts": {"fc9": 3}}, {}, "shifts/fc1 is missing"),
    "a shift too far": ({"shift": 32}, {}, "shifts/fc1 goes from 32 to 32, expected 0 to 31"),
    "an impossible count": ({"count": -7}, {}, "counts/fc1 goes from -7 to -7, expected -6 to 6"),
    "half a count": ({"count": 0.5}, {}, r"counts/fc1 is float64\[\], expected int64\[\]"),
    "a register that stands still": ({"register": 0}, {}, "register goes from 0 to 0, expected 1 to 65535"),
    "a register too wide": ({"register": 65_536}, {}, "register goes from 65536"),
    "steps before the first": ({"steps": -1}, {}, "steps goes from -1"),
    "a latent too many": ({}, {"latents/fc3.core0": np.zeros(3, np.int64)}, "latents/fc3.core0 is too many"),
    "a rank without its mask": ({}, {"alive/fc2.r1": None}, "'fc2.r1'"),
    "no latent": ({}, {"latents/fc1.bias": None}, "latents/fc1.bias is missing"),
    "another shape": ({}, {"latents/fc1.bias": np.zeros(8, np.int64)}, r"latents/fc1.bias is int64\[8\], expected int64\[2, 4\]"),
    "floats": ({}, {"latents/fc1.bias": np.zeros((2, 4))}, r"is float64\[2, 4\]"),
    "a latent too large": ({}, {"latents/fc1.bias": np.full((2, 4), 128)}, "goes from 128 to 128, expected -128 to 127"),
    "a square below 0": ({}, {"squares/fc2.r1": np.array([-1, 5])}, "squares/fc2.r1 goes from -1 to 5"),
    "all ranks gone": ({}, {"squares/fc2.r1": np.zeros(2, np.int64), "alive/fc2.r1": np.zeros(2, bool)}, "alive/fc2.r1 .* at least one"),
    "a rank gone that has a scale": ({}, {"squares/fc2.r1": np.array([1, 5]), "alive/fc2.r1": np.array([False, True])}, "squares of 0"),
    "a rank gone that has latents": (
        {},
        {"squares/fc2.r1": np.array([0, 5]), "alive/fc2.r1": np.array([False, True])},
        "latents/fc2.core0 has entries of ranks that are gone, expected 0",
    ),
}


@pytest.mark.parametrize(("header", "arrays", "words"), ODD_STATES.values(), ids=ODD_STATES)
def test_a_state_that_the_training_cannot_have_is_refused(header: dict, arrays: dict, words: str, tmp_path: Path) -> None:
    training, images, labels = small_chain()
    save_state(start(training, images, labels, seed=0), tmp_path / "state")
    sound, there = read_arrays(tmp_path / "state", "state")
    for kind in ("shift", "count"):
        if kind in header:
            sound[f"{kind}s"]["fc1"] = header[kind]
    kept = {name: array for name, array in (there | arrays).items() if array is not None}
    write_arrays(tmp_path / "state", "state", sound | header, kept)
    with pytest.raises(ValueError, match=f"state holds no state of this training .*{words}.*: give its own, or begin anew"):
        load_state(tmp_path / "state", training)
