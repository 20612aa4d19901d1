"""What is believed of the ranks: how likely each rank of a bond is, when weights are drawn from their posterior."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from bayestt.bayes.posterior import Posterior
from bayestt.bayes.prune import ranks


@dataclass(frozen=True)
class RankBelief:
    """The probability of every rank that a bond may have, their mean, and the ranks between which it lies with a given probability."""

    probabilities: Mapping[int, float]
    mean: float
    interval: tuple[int, int]


@torch.no_grad()
def rank_posterior(learned: Posterior, threshold: float, samples: int = 100, seed: int = 0, credible: float = 0.9) -> dict[str, RankBelief]:
    """By bond (`fc1.r1`) what is believed of its rank: in each sample of all weights, the indices that `prune` keeps at this threshold.

    The interval is equal-tailed: `credible` (0 to 1) of the samples lie in it, as many above as below. A point knows its ranks for certain.
    """
    if samples < 1 or not 0 < credible < 1:
        raise ValueError(f"{samples} samples, credible {credible}: give at least one sample, and a probability between 0 and 1")
    net, found = deepcopy(learned.net), []
    for weights in learned.draws(samples, seed):
        net.load_state_dict(weights, strict=False)
        found.append(ranks(net, threshold))
    tails = (1 - credible) / 2, (1 + credible) / 2
    return {bond: _belief(np.array([sample[bond] for sample in found]), tails) for bond in found[0]}


def _belief(drawn: np.ndarray, tails: tuple[float, float]) -> RankBelief:
    values, counts = np.unique(drawn, return_counts=True)
    low, high = np.quantile(drawn, tails, method="inverted_cdf").tolist()
    return RankBelief(dict(zip(values.tolist(), (counts / len(drawn)).tolist(), strict=True)), float(drawn.mean()), (low, high))
