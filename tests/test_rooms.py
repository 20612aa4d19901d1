"""The house: who may import whom, how long a file may be, what may not be called what."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [path for folder in ("bayestt", "hw", "experiments", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
NO_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "base", "manager", "types", "core"}


def test_imports_flow_one_way() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


BELOW = ["bayestt.algebra.formats", "bayestt.ir.lower", "bayestt.artifact", "bayestt.report.figures", "hw.simulate"]


@pytest.mark.parametrize("room", BELOW)
def test_nothing_below_the_waist_loads_torch(room: str) -> None:
    program = f"import sys, {room}; sys.exit('torch' in sys.modules or 'pyro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_and_named_after_something(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert path.stem not in NO_NAMES


def test_package_files_are_empty() -> None:
    assert not [path for path in SOURCES if path.name == "__init__.py" and path.read_text()]


def test_every_source_file_says_what_it_is() -> None:
    speechless = [path for path in SOURCES if path.name != "__init__.py" and not path.read_text().startswith('"""')]
    assert not speechless
