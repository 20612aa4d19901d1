"""Predictions are averages of probabilities; scores have known answers."""

import numpy as np
import pytest
import torch
from torch.func import functional_call

from bayestt.bayes.posterior import Posterior
from bayestt.bayes.predict import predict, score
from bayestt.nets.fc import fc

IMAGES = np.random.default_rng(0).standard_normal((2300, 2, 3)).astype(np.float32)


def believed(std: float) -> Posterior:
    torch.manual_seed(0)
    net = fc([6, 4, 3])
    mean = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    deviations = {name: torch.full_like(weight, std) for name, weight in mean.items()}

    def draws(count: int, seed: int) -> list[dict[str, torch.Tensor]]:
        noise = torch.Generator().manual_seed(seed)
        return [{name: weight + std * torch.randn(weight.shape, generator=noise) for name, weight in mean.items()} for _ in range(count)]

    return Posterior(net, mean, deviations, {}, (), draws, lambda weights: {}, 0)


def test_a_net_predicts_the_softmax_of_its_scores() -> None:
    net = believed(0).net.train()
    found = predict(net, IMAGES)
    assert found.shape == (2300, 3) and found.dtype == np.float32 and net.training
    np.testing.assert_allclose(found, net(torch.from_numpy(IMAGES)).softmax(1).detach(), rtol=1e-5)


def test_a_point_predicts_as_its_net() -> None:
    point = believed(0)
    assert (predict(point, IMAGES, samples=100) == predict(point.net, IMAGES)).all()


def test_a_posterior_predicts_the_mean_over_its_weights() -> None:
    posterior = believed(0.4)
    found = predict(posterior, IMAGES[:50], samples=4000, seed=1)
    torch.manual_seed(7)
    drawn = ({name: torch.normal(mean, 0.4) for name, mean in posterior.mean.items()} for _ in range(4000))
    x = torch.from_numpy(IMAGES[:50])
    expected = sum(functional_call(posterior.net, weights, (x,)).softmax(1) for weights in drawn).detach() / 4000
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_the_seed_decides_the_samples() -> None:
    one, again, other = (predict(believed(0.4), IMAGES[:9], samples=3, seed=seed) for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any()
    with pytest.raises(ValueError, match="0 samples, expected at least 1"):
        predict(believed(0.4), IMAGES, samples=0)


@pytest.mark.parametrize(
    ("probabilities", "labels", "accuracy", "nll", "ece"),
    [
        ([[1, 0], [0, 1]], [0, 1], 1.0, 0.0, 0.0),
        ([[1, 0], [1, 0]], [0, 1], 0.5, -np.log(np.finfo(np.float32).tiny) / 2, 0.5),
        ([[0.5, 0.5]] * 4, [0, 0, 1, 1], 0.5, np.log(2), 0.0),
        ([[0.9, 0.1]] * 10, [0] * 9 + [1], 0.9, -(9 * np.log(0.9) + np.log(0.1)) / 10, 0.0),
        ([[0.9, 0.1]] * 5 + [[0.6, 0.4]] * 5, [0] * 10, 1.0, -(np.log(0.9) + np.log(0.6)) / 2, (0.1 + 0.4) / 2),
        # Both fall in one bin of width 1/15, where too sure and not sure enough cancel.
        ([[0.61, 0.39], [0.65, 0.35]], [0, 1], 0.5, -(np.log(0.61) + np.log(0.35)) / 2, 0.13),
    ],
)
def test_known_scores(probabilities: list, labels: list, accuracy: float, nll: float, ece: float) -> None:
    found = score(np.array(probabilities, np.float32), np.array(labels))
    assert found.accuracy == accuracy
    assert found.nll == pytest.approx(nll, rel=1e-5, abs=1e-7) and found.ece == pytest.approx(ece, rel=1e-5, abs=1e-7)


def test_labels_drawn_from_the_probabilities_are_calibrated() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([0.4] * 5, 100_000)
    labels = (probabilities.cumsum(1) < random.random((100_000, 1))).sum(1)
    assert score(probabilities, labels).ece < 0.01
    assert score(probabilities**2 / (probabilities**2).sum(1, keepdims=True), labels).ece > 0.05


def test_no_images_have_no_predictions() -> None:
    assert predict(believed(0), IMAGES[:0]).shape == (0, 3)


def test_no_images_have_no_score() -> None:
    with pytest.raises(ValueError, match="there are no images to judge: give at least one"):
        score(np.zeros((0, 3), np.float32), np.zeros(0, int))
