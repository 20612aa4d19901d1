"""Registers put into the blocks beside them: yosys does not use those that an ECP5's memories and multipliers have at their borders.

A word of a memory comes late in a cycle, and so does a product; from a register in the block itself it comes at once. Ports and parameters
are those of Lattice FPGA-TN-02204 (memories) and FPGA-TN-02205 (multipliers).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

Cell = dict[str, Any]
Bit = int | str
"""The number of a net, or a constant: "0", "1", "x"."""
PLAIN = {"REGSET": "RESET", "CLKMUX": "CLK", "LSRMUX": "LSR"}
"""Parameters of a register that a block can have."""
PRODUCT_BITS, OPERAND_BITS = 36, 18
REGISTERED = {"MULT_BYPASS": "DISABLED", "GSR": "DISABLED", "RESETMODE": "SYNC", "SOURCEB_MODE": "B_SHIFT"}
"""Parameters of a multiplier with registers."""
TIED = (
    {f"CE{number}": "1" for number in range(4)}
    | {f"RST{number}": "0" for number in range(4)}
    | {f"CLK{number}": "0" for number in (1, 2, 3)}
)
"""Its enables, resets and further clocks; its third operand, of another mode, is left out."""


class _Netlist:
    """The cells of a flat netlist, and for each net who drives it and who reads it."""

    def __init__(self, module: Mapping) -> None:
        copied = ("parameters", "port_directions", "connections")
        self.cells = {name: {**cell, **{part: dict(cell[part]) for part in copied}} for name, cell in module["cells"].items()}
        self.driver: dict[Bit, str] = {}
        self.readers: dict[Bit, list[tuple[str, str]]] = defaultdict(list)
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                for bit in bits:
                    if cell["port_directions"][port] == "output":
                        self.driver[bit] = name
                    else:
                        self.readers[bit].append((name, port))
        self.absorbed: list[Cell] = []
        self.outside = {bit for port in module["ports"].values() for bit in port["bits"]}

    def register(self, name: str | None) -> Cell | None:
        """A cell, if it is a register, and still there, like those of a block: it begins at 0, follows a rising clock, is never reset."""
        cell = self.cells.get(name or "")
        if cell is None or cell["type"] != "TRELLIS_FF" or any(cell is other for other in self.absorbed):
            return None
        found = {name: cell["parameters"].get(name, usual).strip() for name, usual in PLAIN.items()}
        plain = found == PLAIN and cell["connections"].get("LSR", ["0"]) == ["0"]
        return cell if plain and cell["parameters"]["CEMUX"].strip() in ("1", "CE") else None

    def behind(self, bits: Iterable[Bit]) -> dict[Bit, Cell] | None:
        """For those of a block's outputs that anyone reads the register that does, if each has one, and none another reader."""
        found: dict[Bit, Cell] = {}
        for bit in bits:
            readers = self.readers[bit]
            if bit in self.outside or len(readers) > 1:
                return None
            if readers:
                register = self.register(readers[0][0])
                if register is None or readers[0][1] != "DI":
                    return None
                found[bit] = register
        same = {(_clock(register), _enable(register)) for register in found.values()}
        return found if len(same) == 1 else None

    def before(self, bits: Iterable[Bit]) -> dict[Bit, Cell] | None:
        """For those of a block's inputs that are no constants the register that drives each, if one does, always enabled."""
        found = {bit: self.register(self.driver.get(bit)) for bit in bits if isinstance(bit, int)}
        good = all(register is not None and _enable(register) == "1" for register in found.values())
        return found if good and len({_clock(register) for register in found.values()}) == 1 else None

    def drive(self, cell: Cell, ports: Iterable[str], registers: Mapping[Bit, Cell]) -> None:
        """Have a block's outputs drive what the registers behind them drove, in their place."""
        for port in ports:
            bit = cell["connections"].get(port, ["x"])[0]
            if bit in registers:
                self.connect(cell, port, registers[bit]["connections"]["Q"][0], "output")
                self.absorbed.append(registers[bit])

    def connect(self, cell: Cell, port: str, bit: Bit, direction: str = "input") -> None:
        """Put a net at a port of a cell."""
        cell["connections"][port], cell["port_directions"][port] = [bit], direction


def absorb(module: Mapping) -> dict:
    """A flat netlist of an ECP5, as yosys writes it, with all registers in its memories and multipliers that have a place there.

    A register moves into a block if it is never reset and nothing else reads what it is behind of.
    """
    netlist = _Netlist(module)
    for cell in netlist.cells.values():
        if cell["type"] == "DP16KD":
            for side in "AB":
                _absorb_word(netlist, cell, side)
        elif cell["type"] == "MULT18X18D":
            _absorb_operands_and_product(netlist, cell)
    kept = _read_by_someone(netlist)
    return {**module, "cells": kept}


def _absorb_word(netlist: _Netlist, cell: Cell, side: str) -> None:
    """The register behind one of a memory's two ports."""
    outputs = [port for port in cell["connections"] if re.fullmatch(rf"DO{side}\d+", port)]
    registers = netlist.behind(cell["connections"][port][0] for port in outputs)
    if registers is None or cell["parameters"][f"REGMODE_{side}"] != "NOREG":
        return
    first = next(iter(registers.values()))
    enables, reset = cell["connections"].get(f"CE{side}", ["1"])[0], cell["connections"].get(f"RST{side}", ["0"])[0]
    if _clock(first) != cell["connections"][f"CLK{side}"][0] or enables not in ("1", _enable(first)) or reset != "0":
        return
    netlist.drive(cell, outputs, registers)
    cell["parameters"][f"REGMODE_{side}"] = "OUTREG"
    netlist.connect(cell, f"OCE{side}", _enable(first))


def _absorb_operands_and_product(netlist: _Netlist, cell: Cell) -> None:
    """The registers before and behind a multiplier, if it has none yet."""
    products = [f"P{number}" for number in range(PRODUCT_BITS)]
    registers = netlist.behind(cell["connections"][port][0] for port in products if port in cell["connections"])
    if any(cell["parameters"].get(f"REG_{place}_CLK", "NONE") != "NONE" for place in ("INPUTA", "INPUTB", "OUTPUT")):
        return
    clocks = set()
    if registers is not None and {_enable(register) for register in registers.values()} == {"1"}:
        clocks = {_clock(register) for register in registers.values()}
        netlist.drive(cell, products, registers)
        cell["parameters"]["REG_OUTPUT_CLK"] = "CLK0"
    for operand in "AB":
        ports = [f"{operand}{number}" for number in range(OPERAND_BITS)]
        before = netlist.before(cell["connections"][port][0] for port in ports)
        if before is None or (clocks and {_clock(register) for register in before.values()} != clocks):
            continue
        clocks = {_clock(register) for register in before.values()}
        for port in ports:
            bit = cell["connections"][port][0]
            if bit in before:
                (given,) = before[bit]["connections"]["DI"]
                netlist.connect(cell, port, given)
                netlist.readers[given].append(("", port))  # nobody else may take the register's place now
        cell["parameters"][f"REG_INPUT{operand}_CLK"] = "CLK0"
    if clocks:
        cell["parameters"] |= REGISTERED
        for port, bit in {"CLK0": next(iter(clocks)), **TIED}.items():
            netlist.connect(cell, port, bit)
        for number in range(OPERAND_BITS):
            cell["connections"].pop(f"C{number}", None)
            cell["port_directions"].pop(f"C{number}", None)


def _read_by_someone(netlist: _Netlist) -> dict[str, Cell]:
    """The cells without registers that moved or that nobody reads any more, nor those that only these read."""
    absorbed = {id(cell) for cell in netlist.absorbed}
    cells = {name: cell for name, cell in netlist.cells.items() if id(cell) not in absorbed}
    while True:
        read = {bit for cell in cells.values() for port, bits in cell["connections"].items() for bit in bits if _is_input(cell, port)}
        unread = [name for name, cell in cells.items() if cell["type"] == "TRELLIS_FF" and not _feeds(cell, read | netlist.outside)]
        if not unread:
            return cells
        for name in unread:
            del cells[name]


def _is_input(cell: Cell, port: str) -> bool:
    return cell["port_directions"][port] == "input"


def _feeds(register: Cell, read: set[Bit]) -> bool:
    return register["connections"]["Q"][0] in read


def _clock(register: Cell) -> Bit:
    return register["connections"]["CLK"][0]


def _enable(register: Cell) -> Bit:
    """The net that enables a register; the constant "1" where nothing does."""
    return "1" if register["parameters"]["CEMUX"].strip() == "1" else register["connections"]["CE"][0]
