"""The package as people install it: a wheel in an environment of its own, far from the repository."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = """
import bayestt, hw, sys
from bayestt.data import fashion_mnist
from hw.arch import Arch
from hw.verilog import verilog

assert not [module.__file__ for module in (bayestt, hw) if sys.argv[1] in module.__file__], "the repository's own files were imported"
data = fashion_mnist.small()
assert (len(data.train.images), len(data.validation.images), len(data.test.images)) == (9000, 1000, 2000)
assert "module" in verilog(Arch(rows=1, lanes=1))
print("works")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True)
    return next(folder.glob("bayestt-*.whl"))


def test_an_installed_wheel_works_with_its_data(wheel: Path, tmp_path: Path) -> None:
    """The wheel is installed alone; what it depends on is lent by this environment, without this environment's bayestt."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    lib = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", lib, wheel], check=True)
    (lib / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = subprocess.run([python, "-I", "-c", PROGRAM, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "works", done.stderr


@pytest.mark.slow
def test_a_wheel_installs_into_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """With everything it depends on, under the constraints file, by pip alone."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel], check=True)
    done = subprocess.run([python, "-I", "-c", PROGRAM, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "works", done.stderr
