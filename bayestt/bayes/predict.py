"""Predictions averaged over what is believed, and how good they are."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from tqdm import tqdm

from bayestt.bayes.feed import channels_last
from bayestt.bayes.posterior import Posterior
from bayestt.bayes.processes import first
from bayestt.bayes.reliability import calibration_error, reliability

BATCH = 1000
"""Images in one pass through the net."""


@dataclass(frozen=True)
class Score:
    """Accuracy (0 to 1), mean negative log-likelihood (nats), and expected calibration error over 15 equal bins (Guo et al. 2017)."""

    accuracy: float
    nll: float
    ece: float


@torch.no_grad()
def predict(learned: Posterior | nn.Module, images: np.ndarray, samples: int = 10, seed: int = 0) -> np.ndarray:
    """Probabilities (n, classes), float32, of images (n, ...): the mean over samples of all weights, or those of a net as it is.

    Every sample has batch-norm statistics of its own (see `bayestt.bayes.statistics`).
    """
    if samples < 1:
        raise ValueError(f"{samples} samples, expected at least 1: give how many to average over")
    if isinstance(learned, nn.Module):
        return _probabilities(learned, {}, images)
    if not any(std.any() for std in learned.std.values()):
        return _probabilities(learned.net, learned.mean, images)
    drawn = ({**weights, **learned.statistics(weights)} for weights in learned.draws(samples, seed))
    return sum(_probabilities(learned.net, weights, images) for weights in drawn) / np.float32(samples)


def score(probabilities: np.ndarray, labels: np.ndarray) -> Score:
    """How good probabilities (n, classes) are, judged by the true labels (n,)."""
    if not len(labels):
        raise ValueError("there are no images to judge: give at least one")
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    nll = -np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean()
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    return Score(float(accuracy), float(nll), calibration_error(reliability(probabilities, labels)))


def _probabilities(net: nn.Module, weights: dict[str, Tensor], images: np.ndarray) -> np.ndarray:
    """Of one set of weights and statistics; what it lacks is the net's own."""
    like, training = next(net.parameters()), net.training
    net.eval()
    starts = tqdm(range(0, max(1, len(images)), BATCH), "predict", unit="k", leave=False, delay=3, disable=None if first() else True)
    parts = (channels_last(torch.from_numpy(images[k : k + BATCH]).to(like)) for k in starts)
    scores = torch.cat([functional_call(net, weights, (part,)) for part in parts])
    net.train(training)
    return scores.softmax(dim=1).float().cpu().numpy()
