"""Labelled images in batches, in an order that is a function of a seed and the epoch's number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Augment = Callable[[Tensor, Tensor], Tensor]
"""From images (n, ...) and three numbers for each, (n, 3), uniform from 0 to 1, to changed images (n, ...)."""


@dataclass(frozen=True, eq=False)
class Batches:
    """Images, float32 (n, ...), and labels, int64 (n,), to be met `size` at a time, changed by `augment` where there is one.

    Its `repr` tells an augment from others; `bayestt.data.augment` has one.
    """

    images: np.ndarray
    labels: np.ndarray
    size: int = 128
    seed: int = 0
    augment: Augment | None = None

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

    def chance(self, number: int, batch: int) -> Tensor:
        """What `augment` is given for the images of a batch, counted from 0, of an epoch: (n, 3), uniform from 0 to 1."""
        generator = torch.Generator().manual_seed(self.seed_of(number, batch))
        return torch.rand(min(self.size, len(self.images)), 3, generator=generator)

    def seed_of(self, *place: int) -> int:
        """The seed of an epoch's order, and of all noise in it; with a batch's number too, of how that batch is changed."""
        return int(np.random.SeedSequence([self.seed, *place]).generate_state(1)[0])
