"""Registers in the blocks beside them: by hand-made netlists, and in what yosys makes of a memory and a multiplier."""

import json
from pathlib import Path

import pytest
from amaranth import Module, signed
from amaranth.back import rtlil
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from tqdm import tqdm

from hw.absorb import absorb
from hw.gateware.multiplier import Multiplier
from hw.gateware.pipeline import delayed, registered
from hw.synthesize import called

CLOCK, WORD, LATER, ENABLE, RESET, PRODUCT = range(2, 8)


class Blocks(wiring.Component):
    """A product of a word that lies in the register behind a memory."""

    def __init__(self) -> None:
        word = signed(8)
        super().__init__({"address": In(9), "written": In(word), "writes": In(1), "factor": In(word), "product": Out(signed(16))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=signed(8), depth=512, init=[])
        m.submodules.multiplier = multiplier = Multiplier(8, 8)
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += [read.addr.eq(self.address), write.addr.eq(self.address), write.data.eq(self.written), write.en.eq(self.writes)]
        m.d.comb += [multiplier.a.eq(registered(m, read.data)), multiplier.b.eq(self.factor)]
        m.d.comb += self.product.eq(delayed(m, multiplier.product))
        return m


def memory(**register: object) -> dict:
    """A netlist of a memory's port and the register behind it, with another connection or parameter of that."""
    connections = {"CLK": [CLOCK], "DI": [WORD], "Q": [LATER], "LSR": ["0"], "CE": ["1"]}
    parameters = {"CEMUX": "1 "}
    for name, value in register.items():
        (connections if name in connections else parameters)[name] = value
    block = {"DOA0": [WORD], "CLKA": [CLOCK], "OCEA": ["0"]}
    cells = {
        "block": _cell("DP16KD", {"REGMODE_A": "NOREG"}, block, "DOA0"),
        "register": _cell("TRELLIS_FF", parameters, connections, "Q"),
    }
    return {"ports": {"clk": {"bits": [CLOCK]}, "word": {"bits": [LATER]}}, "cells": cells}


def _cell(kind: str, parameters: dict, connections: dict, output: str) -> dict:
    directions = {port: "output" if port == output else "input" for port in connections}
    return {"type": kind, "parameters": parameters, "connections": connections, "port_directions": directions}


@pytest.mark.parametrize(("register", "enable"), [({}, "1"), ({"CEMUX": "CE", "CE": [ENABLE]}, ENABLE)], ids=["always", "enabled"])
def test_a_register_behind_a_memory_moves_into_it_with_its_enable(register: dict, enable: int | str) -> None:
    (block,) = absorb(memory(**register))["cells"].values()
    assert block["parameters"]["REGMODE_A"] == "OUTREG"
    assert (block["connections"]["DOA0"], block["connections"]["OCEA"]) == ([LATER], [enable])


@pytest.mark.parametrize(
    "register",
    [
        {"LSR": [RESET]},
        {"CLK": [ENABLE]},
        {"CEMUX": "INV", "CE": [ENABLE]},
        {"CE": [WORD], "CEMUX": "CE"},
        {"REGSET": "SET"},
        {"CLKMUX": "INV"},
    ],
    ids=["is reset", "another clock", "enabled by 0", "another reader", "begins at 1", "a falling clock"],
)
def test_a_register_that_has_no_place_in_a_memory_stays(register: dict) -> None:
    given = memory(**register)
    assert absorb(given) == given


@pytest.mark.parametrize("port", [{"CEA": [ENABLE]}, {"RSTA": [RESET]}], ids=["stops the memory", "resets it"])
def test_a_memory_that_is_not_enabled_as_the_register_is_keeps_its_words_to_itself(port: dict) -> None:
    given = memory()
    block = given["cells"]["block"]
    block["connections"] |= port
    block["port_directions"] |= dict.fromkeys(port, "input")
    assert absorb(given) == given


def test_one_register_between_a_memory_and_a_multiplier_goes_into_one_of_them() -> None:
    for reverse in (False, True):
        given = memory()
        operands = {f"{operand}{number}": ["0"] for operand in "AB" for number in range(18)} | {"A0": [LATER], "P0": [PRODUCT]}
        given["cells"]["product"] = _cell("MULT18X18D", {}, operands, "P0")
        given["ports"]["word"] = {"bits": [PRODUCT]}
        given["cells"] = dict(sorted(given["cells"].items(), reverse=reverse))
        made = absorb(given)["cells"]
        read = {bit for cell in made.values() for port, (bit,) in cell["connections"].items() if not _drives(cell, port)}
        driven = {bit for cell in made.values() for port, (bit,) in cell["connections"].items() if _drives(cell, port)}
        assert {bit for bit in read if isinstance(bit, int)} <= driven | {CLOCK}
        assert [cell["type"] for cell in made.values()].count("TRELLIS_FF") == 0


def test_a_word_that_someone_else_reads_stays_where_it_is() -> None:
    given = memory()
    given["ports"]["early"] = {"bits": [WORD]}
    assert absorb(given) == given


def test_the_netlist_that_is_given_is_not_changed() -> None:
    given = memory()
    before = json.dumps(given)
    absorb(given)
    assert json.dumps(given) == before


def test_what_yosys_leaves_beside_memory_and_multiplier_is_in_them(tmp_path: Path) -> None:
    machine = Blocks()
    ports = {name: (Value.cast(getattr(machine, name)), None) for name in machine.signature.members}
    (tmp_path / "blocks.il").write_text(rtlil.convert(machine, name="blocks", ports=ports))
    script = "read_rtlil blocks.il; synth_ecp5 -top blocks -run begin:check; blackbox =A:whitebox; write_json blocks.json"
    called("yosys", ("-q", "-p", script), tmp_path, tqdm(disable=True))
    before = json.loads((tmp_path / "blocks.json").read_text())["modules"]["blocks"]
    after = absorb(before)
    kinds = [[cell["type"] for cell in module["cells"].values()].count("TRELLIS_FF") for module in (before, after)]
    # Of the registers of 8, 8, 8, 16 and 16 bits the last one stays.
    assert kinds == [56, 16]
    (block,) = (cell for cell in after["cells"].values() if cell["type"] == "DP16KD")
    assert "OUTREG" in (block["parameters"]["REGMODE_A"], block["parameters"]["REGMODE_B"])
    (multiplier,) = (cell for cell in after["cells"].values() if cell["type"] == "MULT18X18D")
    assert {multiplier["parameters"][f"REG_{place}_CLK"] for place in ("INPUTA", "INPUTB", "OUTPUT")} == {"CLK0"}
    driven = [bit for cell in after["cells"].values() for port, bits in cell["connections"].items() for bit in bits if _drives(cell, port)]
    assert len(driven) == len(set(driven))


def _drives(cell: dict, port: str) -> bool:
    return cell["port_directions"][port] == "output"
