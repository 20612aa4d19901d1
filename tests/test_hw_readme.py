"""hw/README.md against the code: fields, widths, depths, sections, files and formulas are what they say."""

import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from amaranth.lib import data
from amaranth.sim import Simulator
from pins import Pins
from test_datapath import ARCH, FEATURES, two_layers

import hw.gateware.datapath
from bayestt.algebra.fixed import Fixed
from bayestt.ir.graph import Graph, Op, verify
from bayestt.ir.lower import lower
from hw.arch import Arch, Target
from hw.board import BAUD, bitstream
from hw.cycles import cycles, instruction_cycles
from hw.driver import Driver, Simulated, Status
from hw.emulate import emulate
from hw.energy import energy_j
from hw.gateware.axi import AxiDatapath
from hw.gateware.bridge import ANSWER, REQUEST, Fault, Kind
from hw.gateware.datapath import Datapath
from hw.gateware.registers import CONTROL, STATUS, Register
from hw.gateware.serial import WINDOW
from hw.gateware.widen import beats
from hw.program import Program, Segment, packed
from hw.serial import Serial
from hw.synthesize import PARTS, synthesize
from hw.waves import waves

ROOM = Path(hw.gateware.datapath.__file__).parent.parent
TEXT = (ROOM / "README.md").read_text()
CHAIN, WAVES, DRIVER, BOARD, BITSTREAM, BUILD, HOST = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


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


def test_the_instruction_table_is_the_layout() -> None:
    expected = []
    for name, field in Arch().instruction:
        if isinstance(field.shape, data.ArrayLayout):
            expected += [(f"`{name}.{inner}`", str(member.width)) for inner, member in field.shape.elem_shape]
        else:
            expected.append((f"`{name}`", str(field.width)))
    assert [(field, bits) for field, bits, _ in table("## The instruction word")] == expected


def test_the_memory_table_has_the_default_depths() -> None:
    fields = {"code": "code_depth", "weights": "weight_depth", "inits": "init_depth", "data": "data_depth", "scores": "score_depth"}
    fields |= {"image": "image_depth", "external": "external_depth"}
    assert {name: int(depth) for name, _, depth, _ in table("## Memories")} == {name: getattr(Arch(), fields[name]) for name in fields}


def test_the_section_table_has_every_target_and_the_setup_its_fields() -> None:
    rows = table("| target |")
    assert [(int(number), text.split(":")[0]) for number, text in rows] == [(target.value, target.name.lower()) for target in Target]
    setup = rows[Target.SETUP.value][1]
    assert [name for name in re.findall(r"`(\w+)`", setup) if name != "address_bits"] == [name for name, _ in Arch().setup]


def test_the_stream_table_has_every_stream() -> None:
    machine = Datapath(Arch(external_depth=8))
    Simulator(machine)
    streams = {name for name, member in machine.signature.members.items() if member.is_signature}
    assert {name.strip("`") for name, *_ in table("## Streams")} == streams


def test_the_file_table_has_every_file() -> None:
    found = {path.name for path in ROOM.iterdir() if path.suffix in (".py", ".cpp") and path.name != "__init__.py"} | {"gateware/"}
    assert {name.strip("`") for name, _ in table("## Files")} == found


def test_the_proof_table_has_every_file_of_proofs() -> None:
    found = {path.name for path in (ROOM.parent / "tests").glob("test_proof_*.py")}
    assert {row[-1].strip("`") for row in table("## Proofs")} == found


def test_the_register_table_has_every_register_and_every_bit() -> None:
    rows = table("## In a system")
    assert [(int(address, 16), name.strip("`")) for address, name, *_ in rows] == [(register.value, register.name) for register in Register]
    assert [name.strip("`") for _, name, access, _ in rows if "write" in access] == ["CONTROL"]
    for register, layout in ((Register.STATUS, STATUS), (Register.CONTROL, CONTROL)):
        (text,) = (bits for _, name, _, bits in rows if name == f"`{register.name}`")
        assert [(int(bit), name) for bit, name in re.findall(r"(\d) `(\w+)`", text)] == [(field.offset, name) for name, field in layout]


def test_the_table_of_axi_streams_has_every_one_and_their_beats_are_those_of_the_text() -> None:
    arch = Arch()
    machine = AxiDatapath(arch)
    Simulator(machine)
    _, *rows = table("| stream | carries |")
    assert ["s_axis_load", *(name.strip("`") for name, *_ in rows)] == [name for name in machine.signature.members if name != "s_axi"]
    formulas = [re.search(r"`(beats.*?)`", text)[1] for *_, text in rows]
    features, cycles_in, scores, cycles_out = map(int, re.search(r"(\d+) features take\s(\d+)[^.]*?(\d+) scores (\d+)", TEXT).groups())
    word_in, word_out = (eval(formula, {"beats": beats, **asdict(arch)}) for formula in formulas)
    assert (cycles_in, cycles_out) == (features * word_in, scores * word_out)


@pytest.mark.parametrize("seed", range(20))
def test_the_formula_is_the_function(seed: int) -> None:
    (formula,) = re.findall(r"^    (wait.*max\(steps, lanes\))$", TEXT, re.MULTILINE)
    first, second, third, lanes, wait = np.random.default_rng(seed).integers(1, 6, 5).tolist()
    loops = [{"steps": extent - 1} for extent in (first, second, third)]
    instruction = Arch(lanes=6).instruction.const({"loops": loops, "reduce": 2, "lanes": lanes, "wait": wait})
    values = {"steps": first * second, "reductions": third, "lanes": lanes, "wait": wait, "max": max}
    assert eval(formula, values) == instruction_cycles(instruction)


@pytest.mark.parametrize("copy", ["load", "store"])
def test_the_formula_of_a_copy_is_the_function(copy: str) -> None:
    (formula,) = re.findall(rf"^    {copy}: (.*)$", TEXT, re.MULTILINE)
    instruction = Arch().instruction.const({"loops": [{"steps": 2}, {"steps": 4}], "lanes": 1, copy: 1})
    assert eval(formula, {"words": 15}) == instruction_cycles(instruction)


@pytest.mark.parametrize(("fill", "send"), [(3, 5), (5, 3)])
@pytest.mark.parametrize("source", ["image", "external"])
def test_the_formulas_of_a_batch_are_the_function(fill: int, send: int, source: str) -> None:
    arch = Arch(rows=1, lanes=1, external_depth=8)
    words = np.zeros((1, 1), np.int64)
    code = [{"loops": [{"steps": 40}], "lanes": 1, "reduce": 1, "final": number == 2, "end": number == 2} for number in range(3)]
    segment = Segment(tuple(arch.instruction.const(fields).as_bits() for fields in code), words, words)
    first, further, anew = re.findall(r"^    (.*sum of instructions.*)$", TEXT, re.MULTILINE)
    program = Program(arch, (segment,), np.arange(fill), np.arange(send), source)
    values = {"fill": fill, "send": send, "lanes": 1, "segments": 1, "load": sum(map(len, program.loads))}
    values["run"] = sum(map(instruction_cycles, program.instructions))
    alone, more, again = (eval(line.replace("sum of instructions", "run"), dict(values)) for line in (first, further, anew))
    expected = [alone, alone + more, alone + 4 * more] if source == "image" else [again, 2 * again, 5 * again]
    assert [cycles(program, batches) for batches in (1, 2, 5)] == expected


def test_the_code_runs_and_its_three_readers_agree() -> None:
    names = dense_layer()
    imports = ("bayestt.ir.lower", "hw.assemble", "hw.emulate", "hw.simulate", "hw.verilog")
    lines = [f"from {module} import {module.rsplit('.')[-1]}" for module in imports]
    results = [f"results.append({line.split('#')[0].strip()})" if " = " not in line else line for line in CHAIN.strip().splitlines()]
    names["results"] = []
    exec("\n".join(lines + results), names)
    emulated, simulated, text = names["results"]
    assert emulated.tolist() == simulated.tolist() == (names["x"] @ names["graph"].consts["core"]).tolist()
    assert "module datapath(" in text


def test_the_lines_that_show_waves_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(WAVES, {"lower": lower, "waves": waves, **dense_layer()})
    assert {path.name for path in tmp_path.iterdir()} == {"layer.vcd", "layer.gtkw"}


def dense_layer() -> dict[str, object]:
    """What the code calls graph, arch and x: a layer y of 5 features and 3 scores, and 5 images."""
    eight, wide = Fixed(8, 0), Fixed(32, 0)
    ops = (
        Op("x", "INPUT", ("n", "j"), format=eight),
        Op("core", "CONST", ("j", "i"), format=eight),
        Op("y", "CONTRACT", ("n", "i"), ("x", "core"), wide),
    )
    core = np.random.default_rng(0).integers(-128, 128, (5, 3))
    graph = verify(Graph(ops, {"j": 5, "i": 3}, {"core": core}))
    return {"graph": graph, "arch": Arch(rows=2, lanes=2), "x": np.arange(25).reshape(5, 5)}


def test_the_table_of_parts_has_every_part() -> None:
    assert {name.strip("`") for name, *_ in table("| part |")} == set(PARTS)


@pytest.mark.slow
def test_the_lines_that_make_a_bitstream_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    program = two_layers(0)
    exec(BITSTREAM, {"synthesize": synthesize, "energy_j": energy_j, "Path": Path, "arch": program.arch, "program": program})
    assert (tmp_path / "machine.bit").stat().st_size > 10_000
    assert "DSP" in capsys.readouterr().out


def test_arrays_of_bytes_and_of_integers_are_the_streams_as_they_are() -> None:
    arch, random = Arch(), np.random.default_rng(0)
    for bits, number in ((arch.data_bits, "<i1"), (arch.acc_bits, "<i4")):
        words = random.integers(-(1 << (bits - 1)), 1 << (bits - 1), (7, arch.rows))
        assert packed(words, bits, beats(arch.rows * bits)).tobytes() == words.astype(number).tobytes()


def test_the_driver_runs_as_shown() -> None:
    program, x = two_layers(0), np.arange(3 * FEATURES).reshape(3, FEATURES)
    names = {"Driver": Driver, "Simulated": Simulated, "arch": ARCH, "program": program, "x": x, "results": []}
    lines = [f"results.append({line.split('#')[0].strip()})" if " = " not in line else line for line in DRIVER.strip().splitlines()]
    exec("\n".join(lines), names)
    _, scores, status = names["results"]
    assert scores.tolist() == emulate(program, x).tolist()
    assert status == Status(busy=False, error=False, image=True, score=False)


def test_the_board_runs_as_shown_if_pynq_does_what_its_documentation_says(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Simulated(ARCH)
    pynq = ModuleType("pynq")
    pynq.allocate = np.zeros
    pynq.Overlay = lambda file: SimpleNamespace(
        axi_datapath=SimpleNamespace(read=machine.read_register, write=machine.write_register),
        load_dma=SimpleNamespace(sendchannel=Channel(partial(_send, machine, "load"))),
        image_dma=SimpleNamespace(
            sendchannel=Channel(partial(_send, machine, "image")),
            recvchannel=Channel(partial(_receive, machine)),
        ),
    )
    monkeypatch.setitem(sys.modules, "pynq", pynq)
    program, x = two_layers(0), np.arange(3 * FEATURES).reshape(3, FEATURES)
    names = {"Driver": Driver, "program": program}
    exec(BOARD, names)
    driver = names["driver"]
    driver.load()
    assert driver.run(x).tolist() == emulate(program, x).tolist()
    # A score waits when the machine is reset: its packet is shorter than what is asked for.
    driver.transport.write_stream("image", np.zeros(FEATURES, np.uint32))
    while not driver.status().score:
        pass
    driver.load()
    assert driver.run(x).tolist() == emulate(program, x).tolist()


@pytest.mark.slow
def test_the_lines_that_build_for_the_board_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    exec(BUILD, {"bitstream": bitstream, "arch": ARCH})
    assert (tmp_path / "board" / "machine.bit").stat().st_size > 10_000
    assert "DSP" in capsys.readouterr().out


def test_the_host_runs_as_shown_if_the_board_is_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", SimpleNamespace(Serial=lambda name, baud, timeout: Pins(ARCH)))
    program, x = two_layers(0), np.arange(2 * FEATURES).reshape(2, FEATURES)
    names = {"Driver": Driver, "Serial": Serial, "program": program, "x": x}
    exec(HOST, names)
    assert names["scores"].tolist() == emulate(program, x).tolist()
    assert f"{BAUD:_}" in HOST and f"{BAUD:,} baud" in TEXT


def test_the_tables_of_requests_have_every_kind_and_every_fault() -> None:
    for heading, members in (("| kind |", Kind), ("| fault |", Fault)):
        assert [(int(number), name.strip("`")) for number, name, *_ in table(heading)] == [
            (each.value, each.name.lower()) for each in members
        ]
    assert REQUEST.const({"kind": 1, "register": 1}).as_bits() == 1 + 8
    assert ANSWER.const({"kind": 1, "fault": 1, "last": 1}).as_bits() == 1 + 8 + 32
    assert f"{WINDOW} requests" in TEXT


class Channel:
    """A channel of a DMA as PYNQ's documentation tells it: `transfer` begins, `wait` returns when all has moved, up to a packet's end."""

    def __init__(self, move: Callable[[np.ndarray], int]) -> None:
        self.move, self.transferred = move, 0

    def transfer(self, buffer: np.ndarray) -> None:
        self.buffer = buffer

    def wait(self) -> None:
        self.transferred = 4 * self.move(self.buffer)


def _send(machine: Simulated, name: str, buffer: np.ndarray) -> int:
    """Send a buffer; how many words it has."""
    machine.write_stream(name, buffer)
    return len(buffer)


def _receive(machine: Simulated, buffer: np.ndarray) -> int:
    """Fill a buffer with scores; how many words came."""
    words = machine.read_stream("score", len(buffer))
    buffer[: len(words)] = words
    return len(words)
