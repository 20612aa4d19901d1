"""Batches: every image once an epoch, in an order that seed and epoch decide."""

import numpy as np
import pytest
import torch

from bayestt.bayes.batches import Batches


def test_an_epoch_meets_every_image_once_in_an_order_of_its_own() -> None:
    images = np.arange(10, dtype=np.float32)[:, None]
    ten = Batches(images, np.arange(10), size=3, seed=2)
    epochs = [torch.cat(list(ten.epoch(number))).tolist() for number in (1, 2, 1)]
    assert len(ten) == 3 and epochs[0] == epochs[2] != epochs[1] and all(len(set(epoch)) == 9 for epoch in epochs)
    assert [len(chosen) for chosen in ten.epoch(7)] == [3, 3, 3]
    assert [len(chosen) for chosen in Batches(images, np.arange(10), size=64).epoch(1)] == [10]
    with pytest.raises(ValueError, match="10 images and 9 labels: give at least one image, and each one label"):
        Batches(images, np.arange(9))
    with pytest.raises(ValueError, match="batches of 0 images"):
        Batches(images, np.arange(10), size=0)


def test_every_batch_is_changed_by_numbers_of_its_own() -> None:
    ten = Batches(np.zeros((10, 1), np.float32), np.arange(10), size=3, seed=2)
    places = [(1, 0), (1, 1), (2, 0), (1, 0)]
    first, *others, again = [ten.chance(*place) for place in places]
    assert torch.equal(first, again) and not any(torch.equal(first, other) for other in others)
    assert first.shape == (3, 3) and Batches(ten.images, ten.labels).chance(1, 0).shape == (10, 3)
