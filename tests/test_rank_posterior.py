"""The posterior over ranks: certain for a point, the frequencies of what samples would be pruned to for all others."""

import numpy as np
import pytest
import torch

from bayestt.algebra.formats import Form, tt_matrix
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import categorical, model
from bayestt.bayes.posterior import Posterior
from bayestt.bayes.prior import log_uniform
from bayestt.bayes.prune import prune, ranks
from bayestt.bayes.rank_posterior import rank_posterior
from bayestt.bayes.svgd import particles
from bayestt.data.planted import planted
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize


def drawn(magnitudes: list[list[float]]) -> Posterior:
    """A layer with one bond, whose ranks have these magnitudes in each sample."""
    net = tensorize(fc([16, 16]), {"fc1": Form("tt_matrix", len(magnitudes[0]), (4, 4), (4, 4))})
    samples = []
    for sample in magnitudes:
        core0 = torch.zeros_like(net.fc1.core0)
        core0[0, 0] = torch.tensor(sample)
        samples.append({"fc1.core0": core0, "fc1.core1": torch.ones_like(net.fc1.core1)})
    return Posterior(net, {}, {}, {}, (), lambda count, seed: samples[:count], lambda weights: {}, 0)


def test_a_belief_is_how_often_samples_have_each_rank() -> None:
    learned = drawn([[1, 0.9, 0.0]] * 6 + [[1, 0.05, 0.0]] * 3 + [[1, 1, 1]])
    belief = rank_posterior(learned, 0.1, samples=10, credible=0.8)["fc1.r1"]
    assert belief.probabilities == {1: 0.3, 2: 0.6, 3: 0.1}
    assert belief.mean == pytest.approx(1.8) and belief.interval == (1, 2)
    assert rank_posterior(learned, 0.1, samples=10, credible=0.95)["fc1.r1"].interval == (1, 3)
    low = drawn([[1, 0, 0]] * 2 + [[1, 1, 0]] * 3 + [[1, 1, 1]] * 5)
    assert rank_posterior(low, 0.1, samples=10, credible=0.5)["fc1.r1"].interval == (2, 3)
    assert rank_posterior(low, 0.1, samples=10, credible=0.7)["fc1.r1"].interval == (1, 3)
    assert rank_posterior(learned, 0.01, samples=10)["fc1.r1"].probabilities == {2: 0.9, 3: 0.1}


@pytest.mark.parametrize("make", [point, mean_field, "particles"], ids=["point", "mean_field", "particles"])
def test_planted_ranks_are_believed(make) -> None:
    form = tt_matrix((4, 2, 2), (4, 4, 3), (2, 3))
    data = planted(form, 4000, seed=0)
    validation = data.validation.images, data.validation.labels
    batches = Batches(data.train.images, data.train.labels, size=200)
    torch.manual_seed(0)
    net = tensorize(fc([48, 16]), {"fc1": Form("tt_matrix", 6, (4, 2, 2), (4, 4, 3))})
    believes = model(net, log_uniform(), categorical, 4000)
    settings = {"lr": 0.03, "epochs": 60, "weight": 20, "ramp": 15}
    if make == "particles":
        best = fit(believes, point(believes), batches, validation, **settings)
        believes = model(prune(best, 0.01), log_uniform(), categorical, 4000)
        learned = fit(believes, particles(believes, 6), batches, validation, lr=0.001, epochs=5, weight=20)
    else:
        learned = fit(believes, make(believes), batches, validation, **settings)
    for axis, belief in rank_posterior(learned, 0.1, samples=40).items():
        low, high = belief.interval
        assert low <= form.size[axis.removeprefix("fc1.")] <= high
        assert sum(belief.probabilities.values()) == pytest.approx(1)
        np.testing.assert_allclose(belief.mean, sum(rank * share for rank, share in belief.probabilities.items()))
        if make is point:
            assert belief.probabilities == {ranks(learned.net, 0.1)[axis]: 1.0}


def test_the_net_stays_as_it_was() -> None:
    learned = drawn([[1, 2, 3]])
    before = learned.net.fc1.core0.clone()
    rank_posterior(learned, 0.1, samples=1)
    assert torch.equal(before, learned.net.fc1.core0)


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"credible": 1.0}, {"credible": 0.0}])
def test_what_makes_no_interval_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="give at least one sample, and a probability between 0 and 1"):
        rank_posterior(drawn([[1]]), 0.1, **wrong)
