"""How sure a classifier is, and how often it is right when it is so sure."""

from typing import NamedTuple

import numpy as np

BINS = 15
"""Of equal width."""


class Bin(NamedTuple):
    """Images whose highest probability lies in one interval: its mean, the part of them that is classified right, and their number."""

    confidence: float
    accuracy: float
    images: int


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[Bin, ...]:
    """The bins that hold images, from probabilities (n, classes) and true labels (n,): a reliability diagram (Guo et al. 2017)."""
    confidence, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    images, sure, correct = (np.bincount(places, weights, BINS) for weights in (None, confidence, right))
    held = np.flatnonzero(images)
    return tuple(Bin(float(sure[k] / images[k]), float(correct[k] / images[k]), int(images[k])) for k in held)


def calibration_error(bins: tuple[Bin, ...]) -> float:
    """The expected calibration error: the mean over images of how far confidence and accuracy of their bins lie apart."""
    return sum(part.images * abs(part.accuracy - part.confidence) for part in bins) / sum(part.images for part in bins)
