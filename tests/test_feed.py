"""What a training is fed: the images that the order names, changed by their own numbers, and a lesson about just these."""

import numpy as np
import torch
from torch import Tensor, nn

from bayestt.bayes.batches import Batches
from bayestt.bayes.feed import feed
from bayestt.bayes.teacher import Teacher

IMAGES, LABELS = np.arange(10 * 3 * 4 * 4, dtype=np.float32).reshape(10, 3, 4, 4), np.arange(10)
LIKE = torch.zeros(1)


def shifted(images: Tensor, chance: Tensor) -> Tensor:
    return images + chance[:, 0, None, None, None]


def test_images_labels_and_lesson_belong_together() -> None:
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(48, 5)))
    for augment in (None, shifted):
        batches = Batches(IMAGES, LABELS, size=4, seed=1, augment=augment)
        fed = feed(batches, teacher, LIKE)
        for k, (chosen, (x, labels, lesson)) in enumerate(zip(batches.epoch(3), fed.epoch(3), strict=True)):
            expected = torch.from_numpy(IMAGES[chosen])
            assert torch.equal(x, shifted(expected, batches.chance(3, k)) if augment else expected)
            assert labels.tolist() == LABELS[chosen].tolist() and x.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(lesson.scores, teacher.net(x))


def test_images_are_of_the_nets_type() -> None:
    (x, *_), *_ = feed(Batches(IMAGES, LABELS), None, torch.zeros(1, dtype=torch.float64)).epoch(1)
    assert x.dtype == torch.float64


def test_unchanged_images_come_in_whole_batches() -> None:
    fed = feed(Batches(IMAGES, LABELS, size=3, augment=shifted), None, LIKE)
    assert [len(x) for x in fed.unchanged(4)] == [3, 3] and [len(x) for x in fed.unchanged(99)] == [3, 3, 3]
    assert all(x[0].flatten()[0] % 48 == 0 for x in fed.unchanged(99))
