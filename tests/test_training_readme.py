"""hw/training/README.md against the code: kinds, parts, fields, units, files, formulas and the code are what they say."""

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from learnable import as_lists, small_chain
from test_training_layout import smallest
from test_training_operation import TRAININGS

import hw.training.cycles
from bayestt.ir.descend import Rule, check, descend
from bayestt.ir.start import start
from hw.arch import STREAMS
from hw.training.arch import Kind, Part, TrainingArch
from hw.training.assemble import assemble
from hw.training.cycles import cycles, instruction_cycles
from hw.training.emulate import emulate
from hw.training.gateware.trainer import HOST_CYCLES, Trainer
from hw.training.program import TrainingProgram, check_words
from hw.training.script import pixels
from hw.training.simulate import simulate

ROOM = Path(hw.training.cycles.__file__).parent
TEXT = (ROOM / "README.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, or with that first column."""
    lines = TEXT[TEXT.index(heading) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| --- "))
    body = []
    for line in lines[first + 1 :]:
        if not line.startswith("|"):
            break
        body.append([cell.strip() for cell in line.strip("|").split("|")])
    return body


def test_the_table_of_kinds_has_every_kind_in_order_and_says_of_all_what_they_do() -> None:
    rows = table("## The instruction")
    assert [row[0].strip("`") for row in rows] == [kind.name for kind in Kind]
    assert all(len(row) == 6 and row[-1] for row in rows)


def test_every_field_that_the_text_names_is_an_instruction_s_and_those_it_does_not_are_the_datapath_s() -> None:
    text = TEXT[TEXT.index("## The instruction") : TEXT.index("## Memories")]
    named = {name.split("[")[0] for name in re.findall(r"`([a-z_]+(?:\[\d\])?)`", text)}
    arch = TrainingArch()
    fields = {name for name, _ in arch.instruction}
    assert named - fields == {"momentum", "pull"} <= {name for name, _ in arch.rule}
    assert fields - named == {"loops", "reduce", "wait", "kind", "lanes", "shift", "end"}


@pytest.mark.parametrize("name", ["strips", "pieces", "paper's"])
def test_streams_move_in_the_kinds_whose_rows_say_so(name: str) -> None:
    """But those that walk along with the scores, and of which nothing is read or written."""
    unread = {(Kind.PEAK, "init"), (Kind.PEAK, "y"), (Kind.ODDS, "y"), (Kind.CHANCE, "x")}
    said = {Kind[kind.strip("`")]: dict(zip(STREAMS, cells, strict=True)) for kind, *cells, _ in table("## The instruction")}
    program = smallest(TRAININGS[name], 4)
    for each, stream in product((*program.image_part, *program.batch_part), STREAMS):
        if any(loop.steps and loop[stream] for loop in each.loops):
            kind = Kind(each.kind)
            assert said[kind][stream] or (kind, stream) in unread, f"{kind} moves {stream}"


def test_the_kinds_that_take_eight_cycles_for_a_step_are_those_of_the_text() -> None:
    said = re.search(r"innermost loop of (.*?) has 8 steps", TEXT, re.DOTALL)[1]
    program = smallest(TRAININGS["strips"], 4)
    spaced = {Kind(each.kind) for each in (*program.image_part, *program.batch_part) if each.reduce == 1 and each.loops[0].steps == 7}
    assert {Kind[name] for name in re.findall(r"`(\w+)`", said)} == spaced - {Kind.MULTIPLY}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", Kind)
def test_the_formulas_of_instructions_are_the_function(kind: Kind, seed: int) -> None:
    multiply, other = (re.search(rf"^    {name}: (.*)$", TEXT, re.MULTILINE)[1] for name in ("MULTIPLY", "any other kind"))
    first, second, third, lanes = np.random.default_rng(seed).integers(1, 9, 4).tolist()
    lanes = lanes if kind is Kind.MULTIPLY else 1
    loops = [{"steps": extent - 1} for extent in (first, second, third)]
    instruction = TrainingArch().instruction.const({"kind": kind, "loops": loops, "reduce": 2, "lanes": lanes})
    values = {"steps": first * second, "reductions": third, "lanes": lanes, "max": max}
    assert eval(multiply if kind is Kind.MULTIPLY else other, values) == instruction_cycles(instruction)


@pytest.mark.parametrize("lanes", [1, 4])
def test_the_formulas_of_an_image_and_a_batch_are_the_function(lanes: int) -> None:
    program = smallest(TRAININGS["pieces"], lanes)
    places = pixels(program)
    image, batch = (re.search(rf"^    {name}: (.*)$", TEXT, re.MULTILINE)[1] for name in ("image", "batch"))
    runs = [sum(map(instruction_cycles, part)) for part in (program.image_part, program.batch_part)]
    one, end = (
        eval(line.replace("sum of its instructions", "run"), {"pixels": int(np.ptp(places)) + 1, "run": run})
        for line, run in zip((image, batch), runs, strict=True)
    )
    assert [cycles(program, images) for images in (1, 5)] == [one + end, 5 * one + end]


def test_the_table_of_memories_has_the_words_of_the_layouts() -> None:
    arch, words = TrainingArch(), {name: word for name, word, _ in table("## Memories")}
    assert [*words] == ["code", "activations", "errors", "latents", "gradients", "begins", "scales", "controls"]
    assert words["scales"].split(";")[0].split(", ") == [name for name, _ in arch.scale]
    assert words["controls"] == "shift, shift of the bias, count; peak" and [name for name, _ in arch.control] == [
        "shift",
        "bias_shift",
        "count",
    ]


def test_the_table_of_parts_has_every_part_and_its_words_the_fields_of_the_layouts() -> None:
    rows = {name.strip("`"): text for name, text in table("## A host")}
    arch = TrainingArch()
    assert [*rows] == [part.name for part in Part]
    for part, layout in {Part.RULE: arch.rule, Part.CONTROL: arch.control, Part.SCALE: arch.scale}.items():
        assert re.findall(r"`(\w+)`", rows[part.name]) == [name for name, _ in layout]


def test_a_host_s_words_are_there_after_the_cycles_of_the_text() -> None:
    numbers = {"four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
    assert numbers[re.search(r"reads `word` (\w+) cycles after", TEXT)[1]] == HOST_CYCLES


def test_the_ports_of_the_text_are_the_machine_s() -> None:
    machine = Trainer(TrainingArch())
    ports = {*machine.signature.members, *machine.signature.members["host"].signature.members, "last"}
    text = TEXT[TEXT.index("## A host") : TEXT.index("`hw.training.script`")]
    outside = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    assert {*re.findall(r"`(\w+)`", outside)} <= ports


@pytest.mark.parametrize("named", [TrainingProgram, Rule, check, check_words], ids=lambda named: named.__name__)
def test_what_refuses_is_in_the_table_of_what_the_gateware_does_not_check(named: Callable) -> None:
    assert f"`{named.__name__}`" in [refused for *_, refused in table("It does not check")]


def test_the_file_table_has_every_file() -> None:
    found = {path.name for path in ROOM.iterdir() if path.suffix in (".py", ".cpp") and path.name != "__init__.py"} | {"gateware/"}
    assert {name.strip("`") for name, _ in table("## Files")} == found


def test_the_code_runs_and_its_three_readers_agree() -> None:
    training, images, labels = small_chain()
    images, labels, rule = images[:1], labels[:1], Rule(6, 4)
    state = start(training, images, labels, 0)
    names = {"training": training, "state": state, "images": images, "labels": labels, "rule": rule, "results": []}
    names |= {"assemble": assemble, "TrainingArch": TrainingArch, "emulate": emulate, "simulate": simulate}
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    lines = [line.split("#")[0].strip() for line in code.strip().splitlines()]
    exec("\n".join(line if " = " in line else f"results.append({line})" for line in lines), names)
    expected = as_lists(descend(training, state, images, labels, rule))
    assert [as_lists(found) for found in names["results"]] == [expected, expected]
