"""Reliability: known bins, and that probabilities from which labels are drawn are reliable."""

import numpy as np
import pytest

from bayestt.bayes.predict import score
from bayestt.bayes.reliability import BINS, Bin, calibration_error, reliability


def test_known_bins() -> None:
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.45, 0.55]] * 2)
    low, high = reliability(probabilities, np.array([0, 0, 0, 1, 1, 0]))
    assert low == pytest.approx(Bin(0.55, 0.5, 2)) and high == pytest.approx(Bin(0.9, 0.75, 4))
    assert calibration_error((low, high)) == pytest.approx((2 * 0.05 + 4 * 0.15) / 6)


def test_a_bin_is_a_fifteenth_wide() -> None:
    sure = np.array([0.59, 0.601, 0.66, 0.667])
    bins = reliability(np.stack([sure, 1 - sure], 1), np.array([0, 0, 1, 0]))
    assert [part.images for part in bins] == [1, 2, 1] and bins[1].accuracy == 0.5


def test_bins_hold_every_image_once_and_their_mean_is_in_them() -> None:
    random = np.random.default_rng(0)
    probabilities, labels = random.dirichlet([0.4] * 5, 10_000), random.integers(0, 5, 10_000)
    bins = reliability(probabilities, labels)
    assert sum(part.images for part in bins) == 10_000
    assert sum(part.images * part.accuracy for part in bins) == pytest.approx((probabilities.argmax(1) == labels).sum())
    assert len({int(np.ceil(part.confidence * BINS)) for part in bins}) == len(bins)
    assert calibration_error(bins) == pytest.approx(score(probabilities, labels).ece)


def test_labels_drawn_from_the_probabilities_are_reliable() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([0.4] * 5, 100_000)
    labels = (probabilities.cumsum(1) < random.random((100_000, 1))).sum(1)
    assert all(abs(part.accuracy - part.confidence) < 4 * np.sqrt(0.25 / part.images) for part in reliability(probabilities, labels))
