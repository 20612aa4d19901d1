"""Labelled images in batches, in an order that is a function of a seed and the epoch's number."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batches:
    """Images, float32 (n, ...), and labels, int64 (n,), to be met `size` at a time."""

    images: np.ndarray
    labels: np.ndarray
    size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not len(self.images) or len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images and {len(self.labels)} labels: give at least one image, and each one label")
        if self.size < 1:
            raise ValueError(f"batches of {self.size} images: give a size of at least 1")

    def __len__(self) -> int:
        """Batches in an epoch."""
        return max(1, len(self.images) // self.size)

    def epoch(self, number: int) -> Iterator[Tensor]:
        """The numbers of the images in each batch; images left over from whole batches wait for another epoch, whose order is another."""
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.seed_of(number)))
        return iter(order[: len(self) * self.size].split(self.size))

    def seed_of(self, number: int) -> int:
        """The seed of an epoch's order, and of all noise in it."""
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
