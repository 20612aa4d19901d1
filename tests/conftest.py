"""One thread for torch in every test: nets this small gain nothing from more, and threads that wait for one another cost minutes."""

import os

import torch

os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
