"""The memories of the machine that trains: those in its gateware are all counted, by purpose."""

import re
from math import prod

import pytest

from hw.synthesize import rtlil_of
from hw.training.arch import TrainingArch
from hw.training.memory import memory_bits


@pytest.mark.parametrize(
    "arch", [TrainingArch(), TrainingArch(lanes=2, loops=3, latent_depth=700, code_depth=33, ranks=9, contractions=5)], ids=str
)
def test_every_memory_of_the_gateware_is_counted(arch: TrainingArch) -> None:
    there = re.findall(r"^ *memory width (\d+) size (\d+) ", rtlil_of(arch), re.MULTILINE)
    assert len(there) == 17
    assert sum(memory_bits(arch).values()) == sum(prod(map(int, each)) for each in there)
