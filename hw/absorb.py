"""Registers put into the multipliers and memories beside them: yosys does not use those that these blocks of an ECP5 have at their borders.

A product or a word of memory comes late in a cycle; from a register in the block itself it comes at once, without a wire to it. Ports and
parameters are those of Lattice FPGA-TN-02205 and FPGA-TN-02204.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

Cell = dict[str, Any]
Bit = int | str
"""The number of a net, or a constant: "0", "1", "x"."""
PRODUCT = [f"P{number}" for number in range(36)]
OPERANDS = {operand: [f"{operand}{number}" for number in range(18)] for operand in "ABC"}
WORDS = {port: [f"DO{port}{number}" for number in range(18)] for port in "AB"}
WIDE = 36
"""Bits of a word that the outputs of both ports of a memory make together; the second one reads it."""
PLACES = ("REG_INPUTA_CLK", "REG_INPUTB_CLK", "REG_OUTPUT_CLK")
"""The parameters that say whether a multiplier has a register, by which clock."""
PLAIN = {"CEMUX": "1", "REGSET": "RESET", "CLKMUX": "CLK", "LSRMUX": "LSR"}
"""Parameters of a register that is always enabled, begins at 0 and follows a rising clock, as those of a multiplier do."""
REGISTERED = {"MULT_BYPASS": "DISABLED", "GSR": "DISABLED", "RESETMODE": "SYNC", "SOURCEB_MODE": "B_SHIFT"}
"""Parameters of a multiplier with registers."""
TIED = {f"{wire}{number}": bit for wire, bit in (("CE", "1"), ("RST", "0"), ("CLK", "0")) for number in range(4)}
"""Its enables, its resets, and the clocks that it does not use."""


def absorb(module: Mapping) -> dict:
    """A flat netlist of an ECP5, as yosys writes it, with those registers in its multipliers and memories that have a place there.

    A register behind a multiplier or a memory moves into it if it is never reset and nothing else reads what comes out, and behind a
    multiplier always enabled; one before a multiplier is copied into it, and goes when nobody else reads it.
    """
    copied = ("parameters", "port_directions", "connections")
    cells = {name: {**cell, **{part: dict(cell[part]) for part in copied}} for name, cell in module["cells"].items()}
    driver, readers = _ends(cells)
    outside = {bit for port in module["ports"].values() for bit in port["bits"]}
    moved: set[str] = set()
    for cell in cells.values():
        if cell["type"] == "MULT18X18D" and not any(cell["parameters"].get(place, "NONE") != "NONE" for place in PLACES):
            behind = _behind(cell, PRODUCT, cells, readers, outside)
            before = {operand: _before(cell, operand, cells, driver, moved) for operand in "AB"}
            moved |= _absorbed(cell, cells, readers, behind, before)
        if cell["type"] == "DP16KD":
            for ports in ("AB",) if int(cell["parameters"]["DATA_WIDTH_B"], 2) == WIDE else ("A", "B"):
                outputs = [bit for port in ports for bit in WORDS[port]]
                behind = _behind(cell, outputs, cells, readers, outside, ("1", "CE"))
                moved |= _kept_in_memory(cell, ports, cells, behind)
    return {**module, "cells": _read_by_someone({name: cell for name, cell in cells.items() if name not in moved}, outside)}


def _ends(cells: Mapping[str, Cell]) -> tuple[dict[Bit, str], dict[Bit, list[tuple[str, str]]]]:
    """For each net the cell that drives it, and the cells that read it with the ports at which they do."""
    driver: dict[Bit, str] = {}
    readers: dict[Bit, list[tuple[str, str]]] = defaultdict(list)
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            for bit in bits:
                if cell["port_directions"][port] == "output":
                    driver[bit] = name
                else:
                    readers[bit].append((name, port))
    return driver, readers


def _plain(cell: Cell, enables: Collection[str] = ("1",)) -> bool:
    """Whether a cell is a register like those of a multiplier, and never reset; of a memory's `CE` may enable it."""
    found = {name: cell["parameters"].get(name, usual).strip() for name, usual in PLAIN.items()}
    usual = found | {"CEMUX": "1"} == PLAIN and found["CEMUX"] in enables
    return cell["type"] == "TRELLIS_FF" and usual and cell["connections"].get("LSR", ["0"]) == ["0"]


def _behind(
    cell: Cell,
    outputs: Iterable[str],
    cells: Mapping[str, Cell],
    readers: Mapping[Bit, list],
    outside: set[Bit],
    enables: Collection[str] = ("1",),
) -> dict[str, str]:
    """The register behind every output that anyone reads; none where one of them has none, or another reader beside it."""
    found: dict[str, str] = {}
    for port in outputs:
        for bit in cell["connections"].get(port, []):
            ends = readers.get(bit, [])
            if bit in outside or len(ends) > 1 or any(at != "DI" or not _plain(cells[name], enables) for name, at in ends):
                return {}
            if ends:
                found[port] = ends[0][0]
    return found


def _before(cell: Cell, operand: str, cells: Mapping[str, Cell], driver: Mapping[Bit, str], moved: set[str]) -> dict[str, str]:
    """The register before every port of an operand that is no constant; none where one of them has none."""
    nets = {port: cell["connections"][port][0] for port in OPERANDS[operand] if isinstance(cell["connections"][port][0], int)}
    found = {port: driver.get(bit, "") for port, bit in nets.items()}
    return found if all(name in cells and name not in moved and _plain(cells[name]) for name in found.values()) else {}


def _absorbed(
    cell: Cell, cells: Mapping[str, Cell], readers: dict[Bit, list], behind: Mapping[str, str], before: Mapping[str, Mapping[str, str]]
) -> set[str]:
    """Give a multiplier its registers, if all follow one clock; those that moved into it."""
    clocks = {cells[name]["connections"]["CLK"][0] for names in (behind, *before.values()) for name in names.values()}
    if len(clocks) != 1:
        return set()
    for port, name in behind.items():
        cell["connections"][port] = cells[name]["connections"]["Q"]
    for names in before.values():
        for port, name in names.items():
            (given,) = cell["connections"][port] = cells[name]["connections"]["DI"]
            readers[given].append((name, port))
    for place, names in zip(PLACES, (before["A"], before["B"], behind), strict=True):
        cell["parameters"][place] = "CLK0" if names else "NONE"
    cell["parameters"] |= REGISTERED
    for port, bit in {**TIED, "CLK0": clocks.pop()}.items():
        cell["connections"][port], cell["port_directions"][port] = [bit], "input"
    for port in OPERANDS["C"]:  # of another mode
        cell["connections"].pop(port, None)
        cell["port_directions"].pop(port, None)
    return set(behind.values())


def _kept_in_memory(cell: Cell, ports: str, cells: Mapping[str, Cell], behind: Mapping[str, str]) -> set[str]:
    """Give what a memory reads at its ports, the last of which has the address, its registers; those that moved into it."""
    clock, always = (cell["connections"][f"{wire}{ports[-1]}"] for wire in ("CLK", "OCE"))
    enables = {_enable(cells[name]) for name in behind.values()}
    if len(enables) != 1 or always != ["1"] or any(cells[name]["connections"]["CLK"] != clock for name in behind.values()):
        return set()
    (enable,) = enables
    for port, name in behind.items():
        cell["connections"][port] = cells[name]["connections"]["Q"]
    for port in ports:
        cell["parameters"][f"REGMODE_{port}"], cell["connections"][f"OCE{port}"] = "OUTREG", [enable]
    return set(behind.values())


def _enable(register: Cell) -> Bit:
    """What enables a register."""
    return register["connections"]["CE"][0] if register["parameters"].get("CEMUX", "1").strip() == "CE" else "1"


def _read_by_someone(cells: Mapping[str, Cell], outside: Iterable[Bit]) -> dict[str, Cell]:
    """The cells without registers that nobody reads any more, nor those that only these read."""
    while True:
        read = {bit for cell in cells.values() for port, bits in cell["connections"].items() for bit in bits if _is_input(cell, port)}
        kept = {name: cell for name, cell in cells.items() if cell["type"] != "TRELLIS_FF" or _drives(cell, read.union(outside))}
        if len(kept) == len(cells):
            return dict(kept)
        cells = kept


def _is_input(cell: Cell, port: str) -> bool:
    return cell["port_directions"][port] == "input"


def _drives(register: Cell, nets: set[Bit]) -> bool:
    return register["connections"]["Q"][0] in nets
