"""Waves: the words that a nest writes, in order, in just its cycles; what is shown is in the file; what is not there is refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schedules import cases
from test_datapath import ARCH, FEATURES, HIDDEN, SCORES
from vcd.reader import TokenKind, tokenize

from bayestt.ir.nest import Loop, Memory, Nest, replay
from bayestt.ir.schedule import Layout, Schedule, batches
from hw.arch import Arch
from hw.assemble import assemble
from hw.cycles import cycles
from hw.simulate import simulate
from hw.waves import GROUPS, waves


@settings(max_examples=15, deadline=None)
@given(cases(), st.data())
def test_a_nest_writes_what_replay_says_in_order_and_nothing_else(case: tuple[Arch, Schedule, np.ndarray], data: st.DataObject) -> None:
    arch, schedule, x = case
    arch = replace(arch, tiles=1)  # of several tiles only the first one is shown
    schedule = replace(schedule, nests=tuple(replace(nest, name=f"nest{number}") for number, nest in enumerate(schedule.nests)))
    image = data.draw(st.integers(0, len(x) - 1))
    number = data.draw(st.integers(0, len(schedule.nests) - 1))
    nest = schedule.nests[number]
    with TemporaryDirectory() as folder:
        window = waves(schedule, arch, x, f"{folder}/nest", image=image, nest=nest.name)
        times, seen = shown(Path(folder) / "nest.vcd")
    assert (times[0], times[-1]) == (window.start, window.stop)
    assert seen["program.nest"][0] == nest.name and 0 in passing(seen, "walker.i", len(window))
    batch = [group for group, _ in batches(x, arch.rows)][image // arch.rows]
    *before, own = written(schedule, arch, batch, number)
    # Results of the nests before leave while it begins.
    expected, found = sum(before, []) + own, list(words(seen, arch, len(window)))
    assert found == expected[-len(found) :] and len(found) >= len(own)
    assert list(words(seen, arch, len(window) - 1)) == found[:-1]


def test_an_image_has_the_cycles_of_its_batch_and_nothing_named_is_everything(tmp_path: Path) -> None:
    schedule, x = two_layers(), np.random.default_rng(1).integers(-128, 128, (5, FEATURES))
    program = assemble(schedule, ARCH)
    assert len(waves(schedule, ARCH, x, tmp_path / "batch", image=3)) == cycles(program)
    _, seen = shown(tmp_path / "batch.vcd")
    assert [seen[f"datapath.image.{name}"][0] for name in ("payload_0", "payload_1")] == [int(x[2, 0]) & 0xFF, int(x[3, 0]) & 0xFF]
    assert seen["datapath.last"][-1] == 1
    window = waves(schedule, ARCH, x, tmp_path / "all")
    _, seen = shown(tmp_path / "all.vcd")
    assert window.start == 0
    scores = [column(seen, "datapath.score", "payload", ARCH.acc_bits, cycle) for cycle in passing(seen, "datapath.score", len(window))]
    found = np.reshape(scores, (3, SCORES, 2)).transpose(0, 2, 1).reshape(6, SCORES)[:5]
    assert found.tolist() == simulate(program, x).y.tolist()
    names = seen["program.nest"]
    assert [name for name, before in zip(names, [None, *names], strict=False) if name != before] == ["", *["hidden", "scores"] * 3]


def test_what_gtkwave_is_told_to_show_is_there_and_in_groups(tmp_path: Path) -> None:
    waves(two_layers(), ARCH, np.zeros((1, FEATURES), np.int64), tmp_path / "all")
    there = shown(tmp_path / "all.vcd")[1]
    lines = (tmp_path / "all.gtkw").read_text().splitlines()
    assert lines[0] == f'[dumpfile] "{tmp_path / "all.vcd"}"'
    traced = [line.partition("[")[0] for line in lines[1:] if line[0] not in "@-"]
    assert sorted(traced) == sorted(there)
    titles = [line[1:] for line in lines if line.startswith("-")]
    assert titles == [title for title in GROUPS for _ in range(2)]
    prefixes = {name.partition(".")[0] for name in traced}
    assert prefixes == {"program", *(place.partition(".")[0] for place in GROUPS.values())} - {"external"}


@pytest.mark.parametrize("image", [-1, 2])
def test_an_image_that_is_not_there_is_refused(image: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"there is no image {image}, expected one of the 2 that were given, counted from 0: name or give"):
        waves(two_layers(), ARCH, np.zeros((2, FEATURES), np.int64), tmp_path / "none", image=image)
    assert not list(tmp_path.iterdir())


def test_a_nest_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no nest 'conv1', expected one of hidden, scores: name one of these"):
        waves(two_layers(), ARCH, np.zeros((2, FEATURES), np.int64), tmp_path / "none", nest="conv1")


def shown(path: Path) -> tuple[list[int], dict[str, list[int | str]]]:
    """The times of a VCD file, and by its whole name what every signal is in each of its cycles, the last time ending the last one."""
    scope, names, value, times, seen = [], {}, {}, [], {}
    with open(path, "rb") as file:
        for token in tokenize(file):
            match token.kind:
                case TokenKind.SCOPE:
                    scope.append(token.scope.ident)
                case TokenKind.UPSCOPE:
                    scope.pop()
                case TokenKind.VAR:
                    names[token.var.id_code] = ".".join([*scope, token.var.reference])
                case TokenKind.CHANGE_TIME:
                    for name in value:
                        seen.setdefault(name, []).extend([value[name]] * (token.data - times[-1]))
                    times.append(token.data)
                case TokenKind.CHANGE_SCALAR | TokenKind.CHANGE_VECTOR:
                    value[names[token.data.id_code]] = int(token.data.value)
                case TokenKind.CHANGE_STRING:
                    value[names[token.data.id_code]] = token.data.value
    return times, seen


def column(seen: dict, port: str, field: str, bits: int, cycle: int) -> list[int]:
    """The numbers of all images, or lanes, in a port's field in a cycle."""
    found = [seen[name][cycle] for name in seen if name.rpartition("_")[0] == f"{port}.{field}"]
    return [number - (number >> (bits - 1) << bits) for number in found]


def passing(seen: dict, port: str, cycles: int) -> list[int]:
    """The cycles, of so many, in which a word passes a port."""
    ready = seen.get(f"{port}.ready", [1] * cycles)
    return [cycle for cycle in range(cycles) if seen[f"{port}.valid"][cycle] and ready[cycle]]


def words(seen: dict, arch: Arch, cycles: int) -> Iterator[tuple[str, int | None, list[int]]]:
    """What is written in so many cycles: where (of a word from outside only which memory is known), and the numbers of all images."""
    done = {cycle: ("results", arch.acc_bits) for cycle in passing(seen, "tile_0.requantize.o", cycles)}
    if arch.external_depth:
        done |= {cycle: (name, arch.data_bits) for name in ("answer", "write") for cycle in passing(seen, f"datapath.{name}", cycles)}
    for cycle, (name, bits) in sorted(done.items()):
        if name == "results":
            memory = "scores" if seen["tile_0.requantize.o.payload.mode.final"][cycle] else "data"
            yield memory, seen["tile_0.requantize.o.payload.y"][cycle], column(seen, "tile_0.requantize.o", "payload.numbers", bits, cycle)
        elif name == "write":
            address = seen["datapath.write.payload.address"][cycle]
            yield "external", address, column(seen, "datapath.write", "payload.word", bits, cycle)
        else:
            yield "data", None, column(seen, "datapath.answer", "payload", bits, cycle)


def written(schedule: Schedule, arch: Arch, batch: np.ndarray, number: int) -> Iterator[list[tuple[str, int | None, list[int]]]]:
    """What each nest up to one writes, in the order of its loops, the lanes of a tile one after another: by replay."""
    layout, rows = schedule.layout[schedule.input], arch.rows
    sizes = (arch.image_address + arch.image_depth, arch.score_depth, arch.external_depth)
    data, scores, external = (np.zeros(rows * words, np.int64) for words in sizes)
    memory = Memory(data, schedule.weights, schedule.inits, scores, external)
    getattr(memory, layout.memory)[layout.addresses] = batch.reshape(layout.extents)
    for nest in schedule.nests[: number + 1]:
        replay(nest, memory)
        _, *lanes = nest.lane
        addresses = np.array([nest.y])
        for loop in (*nest.outer, *lanes):
            addresses = (addresses[:, None] + np.arange(loop.extent) * loop.y).ravel()
        target, from_outside = getattr(memory, nest.target), nest.source == "external"
        yield [(nest.target, None if from_outside else at // rows, target[at : at + rows].tolist()) for at in addresses.tolist()]


def two_layers() -> Schedule:
    """A dense layer with a rectifier, and a dense layer that gives scores."""
    random, x = np.random.default_rng(0), ARCH.room.image.start
    tile = Loop("n", 2, x=1, y=1), Loop("lane", 2, w=1, init=1, y=2)
    nests = []
    for name, reads, read, y, w, init, bits, target in (
        ("hidden", FEATURES, x, HIDDEN, 0, 0, 8, "data"),
        ("scores", HIDDEN, 0, SCORES, FEATURES * HIDDEN, HIDDEN, 32, "scores"),
    ):
        outer, reduce = Loop("i", y // 2, w=2 * reads, init=2, y=4), Loop("j", reads, x=2, w=2)
        relu, shift = target == "data", 7 * (target == "data")
        nests.append(Nest((outer,), (reduce,), tile, read, w, init, 0, shift, relu, bits=bits, target=target, name=name))
    layout = {"x": Layout(x, ("n", "j"), (2, FEATURES), (1, 2)), "y": Layout(0, ("n", "i"), (2, SCORES), (1, 2))}
    weights, inits = random.integers(-128, 128, FEATURES * HIDDEN + HIDDEN * SCORES), random.integers(-2000, 2000, HIDDEN + SCORES)
    return Schedule(tuple(nests), layout, 2, "x", "y", weights, inits, 2 * HIDDEN, 2 * SCORES)
