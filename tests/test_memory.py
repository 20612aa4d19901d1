"""Memory that is kept is not asked of the system again."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from bayestt.bayes.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def step():
    return sum(part.sum() for part in [torch.ones(2**20) for _ in range(20)])

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_second_step_takes_the_pages_of_the_first() -> None:
    given_back, kept = (
        int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True).stdout)
        for how in ("given back", "kept")
    )
    assert kept < given_back / 2
