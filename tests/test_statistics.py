"""Batch-norm: its statistics are those of the weights that predict, and its learning leaves none behind."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.predict import predict
from bayestt.bayes.prior import log_uniform
from bayestt.bayes.statistics import learning, statistics
from bayestt.nets.fc import fc
from bayestt.nets.resnet import resnet

RANDOM = np.random.default_rng(0)
IMAGES, LABELS = RANDOM.standard_normal((48, 3, 8, 8)).astype(np.float32), RANDOM.integers(0, 4, 48)
BATCHES = Batches(IMAGES, LABELS, size=16)


def believed() -> Model:
    torch.manual_seed(0)
    return model(resnet(8, 3, 4), log_uniform(), categorical, 48)


def passes() -> list[Tensor]:
    return list(torch.from_numpy(IMAGES).split(16))


def test_they_are_means_over_batches_of_what_a_layer_is_given() -> None:
    net = believed().net
    net.train()(passes()[2])  # what a net has seen before does not count
    given: dict[str, list[Tensor]] = {name: [] for name, layer in net.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    found = statistics(net, {}, passes())
    for name, seen in given.items():
        net.get_submodule(name).register_forward_hook(lambda layer, x, y, seen=seen: seen.append(x[0].detach()))
    for x in passes():
        net.train()(x)
    for name, seen in given.items():
        expected = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
        torch.testing.assert_close(found[f"{name}.running_mean"], expected, atol=1e-5, rtol=1e-4)
        expected = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen]).mean(0)
        torch.testing.assert_close(found[f"{name}.running_var"], expected, atol=1e-5, rtol=1e-4)


def test_they_are_of_the_weights_that_are_given_and_change_nothing() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 5), nn.BatchNorm1d(5))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    doubled = {name: 2 * weight.detach() for name, weight in net.named_parameters() if name.startswith("2")}
    once, twice = statistics(net, {}, passes()), statistics(net, doubled, passes())
    torch.testing.assert_close(twice["3.running_mean"], 2 * once["3.running_mean"])
    torch.testing.assert_close(twice["3.running_var"], 4 * once["3.running_var"])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()) and net.training
    assert once.keys() == {"3.running_mean", "3.running_var"} and statistics(fc([192, 4]), {}, passes()) == {}


def test_learning_normalises_by_the_batch_and_leaves_statistics_alone() -> None:
    net, x = believed().net.eval(), passes()[0]
    before = [buffer.clone() for buffer in net.buffers()]
    expected = believed().net.train()(x)
    with learning(net):
        assert torch.equal(net(x), expected)
    assert all(torch.equal(one, other) for one, other in zip(net.buffers(), before, strict=True))
    net(x)
    assert not torch.equal(next(net.buffers()), before[0])


@pytest.mark.parametrize("make", [point, mean_field])
def test_a_learned_net_has_the_statistics_of_its_mean(make) -> None:
    believes = believed()
    learned = fit(believes, make(believes), BATCHES, (IMAGES, LABELS), lr=1e-3, epochs=2)
    own = learned.net.state_dict()
    for _ in range(2):
        assert all(torch.equal(own[name], value) for name, value in learned.statistics(learned.mean).items())


def test_a_posterior_as_narrow_as_a_point_predicts_as_its_net() -> None:
    believes = believed()
    narrow = fit(believes, mean_field(believes, std=1e-12), BATCHES, (IMAGES, LABELS), lr=1e-3, epochs=1, weight=0)
    assert all((std > 0).all() for std in narrow.std.values())
    np.testing.assert_allclose(predict(narrow, IMAGES, samples=3), predict(narrow.net, IMAGES), atol=1e-6)


def test_every_sample_predicts_with_statistics_of_its_own() -> None:
    believes = believed()
    learned = fit(believes, mean_field(believes, std=0.2), BATCHES, (IMAGES, LABELS), lr=1e-3, epochs=1)
    (weights,) = learned.draws(1, seed=3)
    x = torch.from_numpy(IMAGES)
    with torch.no_grad():
        own = functional_call(learned.net, {**weights, **learned.statistics(weights)}, (x,)).softmax(1)
        means = functional_call(learned.net, weights, (x,)).softmax(1)
    np.testing.assert_allclose(predict(learned, IMAGES, samples=1, seed=3), own, atol=1e-6)
    assert (own - means).abs().max() > 1e-3
