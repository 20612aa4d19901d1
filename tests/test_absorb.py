"""Registers in the multipliers beside them: by hand-made netlists, and in what yosys makes of a multiplier."""

import json
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Value
from tqdm import tqdm

from hw.absorb import PLACES, absorb
from hw.gateware.multiplier import Multiplier
from hw.synthesize import called

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
    connections = {"CLK": [CLOCK], "DI": [given], "Q": [kept], "LSR": ["0"]}
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


def test_the_netlist_that_is_given_is_not_changed() -> None:
    given = multiplied()
    before = json.dumps(given)
    absorb(given)
    assert json.dumps(given) == before


def test_what_yosys_leaves_beside_a_multiplier_is_in_it(tmp_path: Path) -> None:
    machine = Multiplier(8, 7)
    ports = {name: (Value.cast(getattr(machine, name)), None) for name in machine.signature.members}
    (tmp_path / "multiplier.il").write_text(rtlil.convert(machine, name="multiplier", ports=ports))
    script = "read_rtlil multiplier.il; synth_ecp5 -top multiplier -run begin:check; blackbox =A:whitebox; write_json multiplier.json"
    called("yosys", ("-q", "-p", script), tmp_path, tqdm(disable=True))
    before = json.loads((tmp_path / "multiplier.json").read_text())["modules"]["multiplier"]
    after = absorb(before)
    assert [[cell["type"] for cell in module["cells"].values()].count("TRELLIS_FF") for module in (before, after)] == [30, 0]
    (block,) = after["cells"].values()
    assert [block["parameters"][place] for place in PLACES] == ["CLK0"] * 3
