"""What all tests share: one thread for torch, and no clock on random cases."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Nets this small gain nothing from more threads, and threads that wait for one another on a busy machine cost minutes.
os.environ["OMP_NUM_THREADS"] = "1"  # numpy and torch read it when they are loaded

import pytest
import torch
from hypothesis import HealthCheck, settings

from bayestt.nets import contract, contract_conv
from hw.prove import YOSYS

torch.set_num_threads(1)

# A busy machine is no failure. Continuous integration meets the same cases every time; people meet new ones.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ)
settings.load_profile("here")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before processes share the tests: have yosys compiled, which its package does at a machine's first call, without a lock."""
    if session.config.getoption("numprocesses", None):
        subprocess.run([sys.executable, "-c", YOSYS, "-V"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def conv_choices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of choices among contractions, in a cache folder of a module's own; none among convolutions is remembered in memory."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contract.pooch, "os_cache", lambda name: folder / name)
        contract_conv._chosen.cache_clear()
        yield folder / "bayestt" / "contract.json"
        contract_conv._chosen.cache_clear()
