"""Batches where the net learns: on its device, changed by chance, with what a teacher says of them, this process's part of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import ceil

import torch
from torch import Tensor

from bayestt.bayes.batches import Batches
from bayestt.bayes.processes import part
from bayestt.bayes.teacher import Lesson, Teacher

TRIED = 1000
"""Images of which a teacher is asked beforehand, where it will be asked of each batch again."""


@dataclass(frozen=True, eq=False)
class Feed:
    """Images and labels on a device, the batches in which they come, the teacher, and its lesson: of all images, or of the first few.

    Where batches change their images the teacher is asked of what they have become, so that it speaks of what the net sees.
    """

    batches: Batches
    images: Tensor
    labels: Tensor
    teacher: Teacher | None
    lesson: Lesson | None

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor, Lesson | None]]:
        """For each batch of an epoch this process's images, their labels, and what the teacher says of them."""
        for k, whole in enumerate(self.batches.epoch(number)):
            chosen = part(whole)
            x, labels = self.images[chosen], self.labels[chosen]
            if self.batches.augment:
                x = self.batches.augment(x, part(self.batches.chance(number, k)).to(x))
                lesson = self.teacher and self.teacher.of(x)
            else:
                lesson = self.lesson and self.lesson.of(chosen, x.device)
            yield channels_last(x), labels, lesson

    def unchanged(self, count: int) -> list[Tensor]:
        """At least `count` images in whole batches, or all, as they are; the same on every process."""
        return [channels_last(self.images[chosen]) for chosen in islice(self.batches.epoch(0), ceil(count / self.batches.size))]


def feed(batches: Batches, teacher: Teacher | None, like: Tensor) -> Feed:
    """Everything on the device, and of the type, of `like`, once and for all."""
    images, labels = torch.from_numpy(batches.images).to(like), torch.from_numpy(batches.labels).to(like.device)
    lesson = teacher and teacher.lesson(batches.images[:TRIED] if batches.augment else batches.images)
    return Feed(batches, images, labels, teacher, lesson)


def channels_last(x: Tensor) -> Tensor:
    """Images (n, channels, h, w) with their channels last in memory: convolutions are a fifth faster."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
