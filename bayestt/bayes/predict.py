"""Predictions averaged over what is believed, and how good they are."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayestt.bayes.posterior import Posterior

BATCH = 1000
"""Images in one pass through the net."""
BINS = 15
"""Of equal width, for the calibration error."""


@dataclass(frozen=True)
class Score:
    """Accuracy (0 to 1), mean negative log-likelihood (nats), and expected calibration error over 15 equal bins (Guo et al. 2017)."""

    accuracy: float
    nll: float
    ece: float


@torch.no_grad()
def predict(learned: Posterior | nn.Module, images: np.ndarray, samples: int = 10, seed: int = 0) -> np.ndarray:
    """Probabilities (n, classes), float32, of images (n, ...): the mean over samples of all weights, or those of a net as it is."""
    if samples < 1:
        raise ValueError(f"{samples} samples, expected at least 1: give how many to average over")
    if isinstance(learned, nn.Module):
        return _probabilities(learned, {}, images)
    if not any(std.any() for std in learned.std.values()):
        return _probabilities(learned.net, learned.mean, images)
    generator = torch.Generator().manual_seed(seed)
    drawn = (_draw(learned, generator) for _ in range(samples))
    return sum(_probabilities(learned.net, weights, images) for weights in drawn) / np.float32(samples)


def score(probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """How good probabilities (n, classes) are, judged by the true labels (n,)."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence.astype(np.float64), minlength=BINS)
    tiny = np.finfo(np.float32).tiny
    return Score(float(right.mean()), float(-np.log(np.maximum(true, tiny)).mean()), float(np.abs(gaps).sum() / len(labels)))


def _probabilities(net: nn.Module, weights: dict[str, Tensor], images: np.ndarray) -> np.ndarray:
    """Of one set of weights; what it lacks is the net's own."""
    like, training = next(net.parameters()), net.training
    net.eval()
    parts = [torch.from_numpy(images[k : k + BATCH]).to(like) for k in range(0, max(1, len(images)), BATCH)]
    scores = torch.cat([functional_call(net, weights, (part,)) for part in parts])
    net.train(training)
    return scores.softmax(dim=1).float().cpu().numpy()


def _draw(posterior: Posterior, generator: torch.Generator) -> dict[str, Tensor]:
    noise = {name: torch.randn(mean.shape, generator=generator).to(mean) for name, mean in posterior.mean.items()}
    return {name: mean + posterior.std[name] * noise[name] for name, mean in posterior.mean.items()}
