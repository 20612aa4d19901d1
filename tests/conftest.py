"""What all tests share: one thread for torch, and no clock on random cases."""

import os

import torch
from hypothesis import HealthCheck, settings

# Nets this small gain nothing from more threads, and threads that wait for one another on a busy machine cost minutes.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# A busy machine is no failure. Continuous integration meets the same cases every time; people meet new ones.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ)
settings.load_profile("here")
