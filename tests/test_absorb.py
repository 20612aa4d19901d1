"""Registers in the multipliers and memories beside them: by hand-made netlists, and in what yosys makes of both."""

import json
from pathlib import Path

import pytest
from amaranth import Module
from amaranth.back import rtlil
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from tqdm import tqdm

from hw.absorb import PLACES, absorb
from hw.gateware.delay import registered
from hw.gateware.multiplier import Multiplier
from hw.synthesize import called, collisions_do_not_matter

CLOCK, GIVEN, OPERAND, MADE, LATER, OTHER = range(2, 8)


def multiplied(before: dict | None = None, behind: dict | None = None, **ports: list) -> dict:
    """A netlist of a one-bit multiplier with a register before its first operand and one behind its product, changed as told."""
    operands = {f"{operand}{number}": ["0"] for operand in "ABC" for number in range(18)}
    cells = {
        "multiplier": _cell("MULT18X18D", {}, operands | {"A0": [OPERAND], "P0": [MADE]} | ports, "P0"),
        "before": _register(GIVEN, OPERAND, before or {}),
        "behind": _register(MADE, LATER, behind or {}),
    }
    return {"ports": {"clk": {"bits": [CLOCK]}, "given": {"bits": [GIVEN]}, "later": {"bits": [LATER]}}, "cells": cells}


def _register(given: int, kept: int, change: dict) -> dict:
    connections = {"CLK": [CLOCK], "CE": ["1"], "DI": [given], "Q": [kept], "LSR": ["0"]}
    parameters = {"CEMUX": "1 ", "REGSET": "RESET", "CLKMUX": "CLK"}
    parts = [{name: change.get(name, value) for name, value in part.items()} for part in (parameters, connections)]
    return _cell("TRELLIS_FF", *parts, "Q")


def _cell(kind: str, parameters: dict, connections: dict, output: str) -> dict:
    directions = {port: "output" if port == output else "input" for port in connections}
    return {"type": kind, "parameters": parameters, "connections": connections, "port_directions": directions}


def sound(module: dict) -> bool:
    """Whether every net that is read is driven, and no net twice."""
    outside = {bit for port in module["ports"].values() for bit in port["bits"]}
    driven, read = [], set()
    for cell in module["cells"].values():
        for port, (bit,) in cell["connections"].items():
            if isinstance(bit, int):
                (driven.append if cell["port_directions"][port] == "output" else read.add)(bit)
    return read <= {*driven, *outside} and len(driven) == len(set(driven))


def test_registers_before_and_behind_a_multiplier_move_into_it() -> None:
    made = absorb(multiplied())
    (block,) = made["cells"].values()
    assert (block["connections"]["A0"], block["connections"]["P0"], block["connections"]["CLK0"]) == ([GIVEN], [LATER], [CLOCK])
    assert [block["parameters"][place] for place in PLACES] == ["CLK0", "NONE", "CLK0"]
    assert sound(made)


CHANGES = [{"LSR": [OTHER]}, {"CEMUX": "CE"}, {"REGSET": "SET"}, {"CLKMUX": "INV"}]


@pytest.mark.parametrize("change", CHANGES, ids=["is reset", "is enabled", "begins at 1", "follows a falling clock"])
def test_a_register_of_another_kind_stays(change: dict) -> None:
    for names in ({"before"}, {"behind"}, {"before", "behind"}):
        made = absorb(multiplied(**dict.fromkeys(names, change)))
        assert set(made["cells"]) == {"multiplier", *names}


def test_registers_of_two_clocks_stay() -> None:
    given = multiplied(behind={"CLK": [OTHER]})
    assert absorb(given) == given


def test_a_product_that_someone_else_reads_keeps_its_register() -> None:
    given = multiplied()
    given["ports"]["early"] = {"bits": [MADE]}
    made = absorb(given)
    assert set(made["cells"]) == {"multiplier", "behind"} and sound(made)


def test_an_operand_that_someone_else_reads_too_keeps_its_register_beside() -> None:
    given = multiplied()
    given["ports"]["kept"] = {"bits": [OPERAND]}
    made = absorb(given)
    assert set(made["cells"]) == {"multiplier", "before"} and sound(made)
    assert made["cells"]["multiplier"]["connections"]["A0"] == [GIVEN]


@pytest.mark.parametrize("reverse", [False, True])
def test_one_register_between_two_multipliers_goes_into_one_of_them(reverse: bool) -> None:
    given = multiplied()
    given["cells"]["next"] = _cell("MULT18X18D", {}, given["cells"]["multiplier"]["connections"] | {"A0": [LATER], "P0": [OTHER]}, "P0")
    given["cells"] = dict(sorted(given["cells"].items(), reverse=reverse))
    given["ports"]["later"] = {"bits": [OTHER]}
    made = absorb(given)
    assert set(made["cells"]) == {"multiplier", "next"} and sound(made)
    places = [[cell["parameters"].get(place, "NONE") for place in PLACES] for cell in made["cells"].values()]
    assert sum(place == "CLK0" for each in places for place in each) == 2


def stored(width: int, behind: dict | None = None, **ports: list) -> dict:
    """A netlist of a memory whose first output of its second port has a register behind it, changed as told."""
    wires = {f"DO{port}{number}": [OTHER + 2 + number + 18 * (port == "B")] for port in "AB" for number in range(18)}
    connections = wires | {"CLKA": [CLOCK], "CLKB": [CLOCK], "OCEA": ["1"], "OCEB": ["1"], "DOB0": [MADE]} | ports
    memory = _cell("DP16KD", {"DATA_WIDTH_B": f"{width:b}", "REGMODE_A": "NOREG", "REGMODE_B": "NOREG"}, connections, "")
    memory["port_directions"] |= dict.fromkeys(wires, "output")
    outside = {"clk": {"bits": [CLOCK]}, "later": {"bits": [LATER]}}
    return {"ports": outside, "cells": {"memory": memory, "behind": _register(MADE, LATER, behind or {})}}


@pytest.mark.parametrize(("width", "modes"), [(18, ["NOREG", "OUTREG"]), (36, ["OUTREG", "OUTREG"])])
def test_a_register_behind_a_memory_moves_into_it(width: int, modes: list[str]) -> None:
    """Ports of a word of 36 bits, which both make together, are registered both."""
    given = stored(width)
    made = absorb(given)
    (block,) = made["cells"].values()
    assert block["connections"] == given["cells"]["memory"]["connections"] | {"DOB0": [LATER]}
    assert [block["parameters"][f"REGMODE_{port}"] for port in "AB"] == modes


@pytest.mark.parametrize(("width", "enables"), [(18, [["1"], [OTHER]]), (36, [[OTHER], [OTHER]])])
def test_a_register_that_is_enabled_moves_into_a_memory_with_what_enables_it(width: int, enables: list[list]) -> None:
    given = stored(width, behind={"CEMUX": "CE", "CE": [OTHER]})
    (block,) = absorb(given)["cells"].values()
    assert [block["connections"][f"OCE{port}"] for port in "AB"] == enables
    assert (block["connections"]["DOB0"], block["parameters"]["REGMODE_B"]) == ([LATER], "OUTREG")


def test_registers_that_are_not_enabled_together_stay() -> None:
    given = stored(18, behind={"CEMUX": "CE", "CE": [OTHER]})
    given["cells"]["beside"] = _register(given["cells"]["memory"]["connections"]["DOB1"][0], 99, {})
    given["ports"]["beside"] = {"bits": [99]}
    assert absorb(given) == given


@pytest.mark.parametrize(
    "change", [*(change for change in CHANGES if change != {"CEMUX": "CE"}), {"CLK": [OTHER]}], ids=lambda change: next(iter(change))
)
def test_a_register_that_a_memory_has_not_stays(change: dict) -> None:
    given = stored(18, behind=change)
    assert absorb(given) == given


def test_a_memory_whose_registers_are_not_enabled_or_that_has_another_reader_keeps_its_register() -> None:
    read = stored(36)
    read["ports"]["early"] = {"bits": [MADE]}
    for given in (read, stored(18, OCEB=["0"])):
        assert absorb(given) == given


def test_the_netlist_that_is_given_is_not_changed() -> None:
    given = multiplied()
    before = json.dumps(given)
    absorb(given)
    assert json.dumps(given) == before


class Stored(wiring.Component):
    """A memory of whose words a register is read."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        super().__init__({"address": In(10), "goes_to": In(10), "en": In(1), "written": In(bits), "word": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=self.bits, depth=1024, init=[])
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += [read.addr.eq(self.address), write.addr.eq(self.goes_to), write.en.eq(self.en), write.data.eq(self.written)]
        m.d.comb += self.word.eq(registered(m, read.data))
        return m


@pytest.mark.parametrize(
    ("machine", "kind", "registers"), [(Multiplier(8, 7), "MULT18X18D", 30), (Stored(16), "DP16KD", 16), (Stored(40), "DP16KD", 40)],
    ids=["a multiplier", "a memory", "a wide memory"],
)  # fmt: skip
def test_what_yosys_leaves_beside_a_block_is_in_it(machine: wiring.Component, kind: str, registers: int, tmp_path: Path) -> None:
    ports = {name: (Value.cast(getattr(machine, name)), None) for name in machine.signature.members}
    text = collisions_do_not_matter(rtlil.convert(machine, name="machine", ports=ports))
    (tmp_path / "machine.il").write_text(text)
    script = "read_rtlil machine.il; synth_ecp5 -top machine -run begin:check; blackbox =A:whitebox; write_json machine.json"
    called("yosys", ("-q", "-p", script), tmp_path, tqdm(disable=True))
    before = json.loads((tmp_path / "machine.json").read_text())["modules"]["machine"]
    after = absorb(before)
    assert [[cell["type"] for cell in module["cells"].values()].count("TRELLIS_FF") for module in (before, after)] == [registers, 0]
    places = PLACES if kind == "MULT18X18D" else ("REGMODE_B",)
    assert {cell["parameters"][place] for cell in after["cells"].values() if cell["type"] == kind for place in places} <= {"CLK0", "OUTREG"}
