"""Training finds planted ranks exactly, changes nothing it was given, and ends with a sentence when numbers are none."""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from bayestt.algebra.formats import Form, tt_matrix, tucker
from bayestt.bayes import fit as fitting
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import Point, mean_field, point
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.posterior import Posterior
from bayestt.bayes.prior import gamma_product, half_cauchy, log_uniform
from bayestt.bayes.prune import prune, ranks
from bayestt.bayes.svgd import particles
from bayestt.data.planted import planted
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize

PLANTED = {
    "tt_matrix": (tt_matrix((4, 2, 2), (4, 4, 3), (2, 3)), Form("tt_matrix", 6, (4, 2, 2), (4, 4, 3))),
    "tucker": (tucker((12,), (8, 6), (3, 3, 2)), Form("tucker", 5, (12,), (8, 6))),
}
DATA = planted(PLANTED["tt_matrix"][0], 96, seed=1)
VALIDATION = DATA.validation.images, DATA.validation.labels
SHORT = {"lr": 0.01, "epochs": 4, "ramp": 2}


def believed(prior=None, norm: bool = False) -> Model:
    """A small net; with `norm`, one whose training draws noise and changes buffers."""
    torch.manual_seed(3)
    net = fc([48, 24, 16])
    if norm:
        net.relu1 = nn.Sequential(nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2))
    return model(tensorize(net, {"fc1": Form("tt_matrix", 4, (4, 6), (8, 6))}), prior or log_uniform(), categorical, 96)


def batches(seed: int = 5) -> Batches:
    return Batches(DATA.train.images, DATA.train.labels, size=16, seed=seed)


def contents(posterior: Posterior) -> list[bytes]:
    """Every byte of what was learned."""
    tensors = [posterior.mean, posterior.std, posterior.scales, posterior.net.state_dict()]
    return [repr(posterior.history).encode(), *(tensor.numpy().tobytes() for named in tensors for tensor in named.values())]


@pytest.mark.parametrize(
    ("format", "guide", "prior"),
    [
        ("tt_matrix", point, log_uniform()),
        ("tt_matrix", mean_field, log_uniform()),
        ("tucker", point, log_uniform()),
        ("tucker", mean_field, log_uniform()),
        ("tt_matrix", point, half_cauchy(0.1)),
        ("tt_matrix", point, gamma_product()),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", value)),
)
def test_planted_ranks_are_found_exactly(format: str, guide, prior) -> None:
    planted_form, form = PLANTED[format]
    data = planted(planted_form, 4000, seed=0)
    torch.manual_seed(0)
    net = tensorize(fc([planted_form.shape[1], planted_form.shape[0]]), {"fc1": form})
    believes = model(net, prior, categorical, num_data=4000)
    training = Batches(data.train.images, data.train.labels, size=200)
    learned = fit(
        believes, guide(believes), training, (data.validation.images, data.validation.labels), lr=0.03, epochs=60, weight=20, ramp=15
    )
    expected = {f"fc1.{axis}": planted_form.size[axis] for axis in planted_form.ranks}
    assert learned.history[-1].ranks == ranks(learned.net, 0.1) == ranks(prune(learned, 0.1)) == expected
    assert learned.history[-1].accuracy > 0.8


def test_training_changes_nothing_it_was_given() -> None:
    believes = believed(norm=True)
    guide = mean_field(believes)
    before = [tensor.clone() for tensor in (*guide.parameters(), *believes.net.state_dict().values())]
    random, training = torch.get_rng_state(), believes.net.training
    learned = fit(believes, guide, batches(), VALIDATION, **SHORT)
    after = (*guide.parameters(), *believes.net.state_dict().values())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert torch.equal(random, torch.get_rng_state()) and believes.net.training == training
    assert not learned.net.training and not pyro.get_param_store().keys()


def test_the_posterior_names_what_was_learned() -> None:
    believes = believed()
    learned = fit(believes, mean_field(believes), batches(), VALIDATION, **SHORT)
    assert learned.mean.keys() == learned.std.keys() == dict(believes.net.named_parameters()).keys()
    assert {name: len(scale) for name, scale in learned.scales.items()} == {"fc1.r1": 4}
    for name, weight in learned.net.named_parameters():
        assert torch.equal(weight, learned.mean[name]) and (learned.std[name] > 0).all()
    assert len(learned.history) == 4 and learned.history[0].ranks.keys() == {"fc1.r1"}
    assert not any(std.any() for std in fit(believes, point(believes), batches(), VALIDATION, **SHORT).std.values())


@pytest.mark.parametrize("make", [point, mean_field])
def test_without_weight_there_is_no_prior(make) -> None:
    likelier, unlikelier = (replace(believed(), prior=replace(log_uniform(), wide=wide)) for wide in (10.0, 0.01))
    found = [fit(believes, make(believes), batches(), VALIDATION, lr=0.01, epochs=2, weight=0) for believes in (likelier, unlikelier)]
    assert contents(found[0]) == contents(found[1])
    assert all(torch.equal(found[0].scales[name], point(likelier).log_lam.detach().exp()) for name in found[0].scales) or make is mean_field


def test_scales_follow_their_closed_form_damped() -> None:
    believes = believed(half_cauchy(0.1))
    best = half_cauchy(0.1).best(believes.squares(point(believes).square().detach()), believes.layout.count)
    for rho in (0.0, 0.25, 1.0):
        guide = Point(point(believes).theta.detach(), torch.ones(4))
        found = fit(believes, guide, replace(batches(), size=48), VALIDATION, lr=1e-9, epochs=1, rho=rho).scales["fc1.r1"]
        torch.testing.assert_close(found.square(), best + (1 - rho) ** 2 * (1 - best), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("make", [point, mean_field])
def test_the_priors_weight_grows_over_the_ramp(make) -> None:
    believes = replace(believed(), prior=half_cauchy(0.1))
    whole = replace(batches(), size=96)
    settings = {"lr": 1e-9, "epochs": 6, "ramp": 4}
    without, given = (fit(believes, make(believes), whole, VALIDATION, **settings, weight=weight).history for weight in (0, 8))
    prior = np.array([epoch.loss - other.loss for epoch, other in zip(given, without, strict=True)])
    np.testing.assert_allclose(prior / prior[-1], [0, 0.25, 0.5, 0.75, 1, 1], atol=1e-3)


def test_a_posterior_counts_all_numbers_that_it_holds() -> None:
    believes = believed()
    size = sum(weight.numel() for weight in believes.net.parameters())
    makes = {point: 1, mean_field: 2, partial(particles, count=3): 3}
    for make, times in makes.items():
        assert fit(believes, make(believes), batches(), VALIDATION, lr=0.01, epochs=1).parameters == times * size


def test_scales_without_a_closed_form_follow_their_gradient() -> None:
    believes = believed(gamma_product())
    learned = fit(believes, point(believes), batches(), VALIDATION, lr=0.01, epochs=2)
    assert not torch.equal(learned.scales["fc1.r1"], point(believes).log_lam.detach().exp())


def test_numbers_that_are_none_end_training_with_the_epoch_and_the_layer() -> None:
    believes = believed()
    images = DATA.train.images.copy()
    images[4, 7] = np.nan
    with pytest.raises(FloatingPointError, match=r"ended in epoch 1, batch \d of 6: the objective is nan, and the images hold one"):
        fit(believes, point(believes), replace(batches(), images=images), VALIDATION, **SHORT)
    with pytest.raises(FloatingPointError, match=r"ended in epoch \d, batch \d of 6: .*(layer fc[12] is the first|the gradient of fc)"):
        fit(believes, point(believes), batches(), VALIDATION, lr=1e30, epochs=9)


def test_a_gradient_that_is_none_names_its_site() -> None:
    believes = believed()
    with torch.no_grad():
        believes.net.fc2.bias.fill_(3e30)
        believes.net.fc2.weight.fill_(1e30)
    with pytest.raises(FloatingPointError, match="layer fc2 is the first|the gradient of fc1|the gradient of fc2"):
        fit(believes, point(believes), batches(), VALIDATION, lr=1e-3, epochs=1, weight=1e38)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0}, "lr is 0, expected a positive number"),
        ({"epochs": 0, "weight": -1}, "epochs is 0, expected at least 1, weight is -1, expected 0 or more: change what fit is given"),
        ({"ramp": -1}, "ramp is -1"),
        ({"rho": 1.5}, "rho is 1.5, expected 0 to 1"),
        ({"threshold": 2}, "threshold is 2, expected 0 to 1"),
        ({"precision": "fp16"}, "precision is fp16, expected fp32 or bf16"),
        ({"batches": Batches(np.zeros((9, 3, 8, 8), np.float32), np.zeros(9, int))}, r"the net takes no images of shape \(3, 8, 8\)"),
        ({"batches": Batches(DATA.train.images, DATA.train.labels + 3)}, "training labels go from 3 to 18 and the net scores 16 classes"),
        ({"validation": (np.zeros((9, 5), np.float32), np.zeros(9, int))}, r"the net takes no images of shape \(5,\)"),
        ({"validation": (VALIDATION[0], VALIDATION[1] - 99)}, "validation labels go from -9"),
        ({"validation": (VALIDATION[0][:0], VALIDATION[1][:0])}, "there are no validation images: give at least one"),
    ],
)
def test_bad_settings_are_refused(change: dict, message: str, monkeypatch) -> None:
    monkeypatch.setattr(fitting, "step", None)
    believes = believed()
    with pytest.raises(ValueError, match=message):
        fit(**{"model": believes, "guide": point(believes), "batches": batches(), "validation": VALIDATION, **SHORT, **change})


def test_no_warning_is_left_to_chance() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        believes = believed()
        fit(believes, mean_field(believes), batches(), VALIDATION, **SHORT)
