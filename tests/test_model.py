"""The model is one in Pyro's eyes, and its fast path gives the same log-density."""

import warnings
from functools import partial
from itertools import pairwise

import pyro
import pytest
import torch
from pyro.distributions import HalfCauchy, Normal
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal, init_to_value
from torch import Tensor, nn
from torch.func import grad, vmap

from bayestt.algebra.formats import FORMATS, Form
from bayestt.bayes.model import Model, categorical, log_joint, log_prior, model
from bayestt.bayes.prior import Prior, gamma, gamma_product, half_cauchy, inverse_gamma, log_uniform
from bayestt.nets.fc import fc
from bayestt.nets.tensorize import tensorize

PRIORS = [log_uniform(), half_cauchy(0.3, closed_form=False), inverse_gamma(1.0, 0.1, product=True), gamma_product()]
CLOSED = [log_uniform, partial(half_cauchy, 0.3), partial(inverse_gamma, 1.0, 0.1), gamma]
X, LABELS = torch.randn(6, 12, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 2, 1])


@pytest.fixture(autouse=True)
def params():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def believed(prior: Prior, format: str = "tt_matrix", rows: tuple[int, ...] = (2, 4), cols: tuple[int, ...] = (4, 3)) -> Model:
    """A tensorized layer, then a dense one."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = tensorize(fc([12, 8, 4]), {"fc1": Form(format, 3, rows, cols)})
    return model(net, prior, categorical, num_data=100)


def values(model: Model, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    theta, lam = (torch.randn(size, generator=generator) for size in (model.layout.size, len(model.layout.count)))
    return theta, lam.exp()


def in_pyro(model: Model, theta: Tensor, lam: Tensor) -> Tensor:
    given = {"theta": theta, "lam": lam} if model.layout.ranks else {"theta": theta}
    return pyro.poutine.trace(pyro.condition(model, data=given)).get_trace(X, LABELS).log_prob_sum()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
def test_the_fast_path_is_pyros_log_density(prior: Prior, format: str) -> None:
    believes = believed(prior, format)
    theta, lam = values(believes)
    assert log_joint(believes, theta, lam, X, LABELS).item() == pytest.approx(in_pyro(believes, theta, lam).item(), rel=1e-5)
    leaves = theta.requires_grad_(), lam.requires_grad_()
    slopes = [torch.autograd.grad(density(believes), leaves) for density in (
        lambda m: log_joint(m, theta, lam, X, LABELS), lambda m: in_pyro(m, theta, lam)
    )]  # fmt: skip
    for fast, slow in zip(*slopes, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-3)


def test_a_plain_net_has_a_model_without_scales() -> None:
    plain = model(fc([12, 4]), log_uniform(), categorical, num_data=100)
    theta, lam = values(plain)
    assert log_joint(plain, theta, lam, X, LABELS).item() == pytest.approx(in_pyro(plain, theta, lam).item(), rel=1e-5)
    assert set(pyro.poutine.trace(plain).get_trace(X).nodes) >= {"theta", "labels"} and not len(lam)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("prior", [log_uniform(), gamma_product()], ids=lambda prior: prior.name)
def test_every_entry_has_the_deviation_of_its_ranks(prior: Prior, format: str) -> None:
    believes = believed(prior, format)
    theta, lam = values(believes)
    scales, layer = believes.layout.unpack_scales(lam), believes.net.fc1
    deviations = believes.layout.unpack(believes.deviations(lam))
    for k, (core, axes) in enumerate(zip(layer.form.cores, prior.scales(layer.form), strict=True)):
        expected = torch.full(layer.form.shapes[k], 1.0 if axes else prior.wide)
        for axis in axes:
            expected = expected * scales[f"fc1.{axis}"].reshape([-1 if name == axis else 1 for name in core])
        torch.testing.assert_close(deviations[f"fc1.core{k}"], expected)
    assert all((deviations[name] == prior.wide).all() for name in ("fc1.bias", "fc2.weight", "fc2.bias"))


def test_squares_are_summed_where_the_right_index_reaches() -> None:
    believes = believed(log_uniform())
    theta, lam = values(believes)
    sites, found = believes.layout.unpack(theta), believes.squares(theta.square())
    torch.testing.assert_close(found, sites["fc1.core0"].square().sum((0, 1)) + sites["fc1.core1"].square().sum((1, 2)))
    assert believes.layout.count.tolist() == [8 + 12] * 3


def test_squares_are_summed_once_for_every_use_of_a_product() -> None:
    believes = believed(gamma_product())
    theta, lam = values(believes)
    sites, found = believes.layout.unpack(theta), believes.squares(theta.square())
    torch.testing.assert_close(found, 2 * sites["fc1.core0"].square().sum((0, 1)) + 2 * sites["fc1.core1"].square().sum((1, 2)))
    assert believes.layout.count.tolist() == [2 * (8 + 12)] * 3


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("product", [False, True], ids=["right index", "product"])
@pytest.mark.parametrize("prior", CLOSED, ids=lambda prior: prior().law)
def test_steps_to_the_best_scales_climb_to_where_the_density_is_flat(prior, product: bool, format: str) -> None:
    believes = believed(prior(product=product), format, rows=(2, 2, 2), cols=(3, 2, 2))
    theta, lam = (value.double() for value in values(believes))
    densities = []
    for _ in range(200):
        densities.append(log_prior(believes, theta.square(), lam).item())
        lam = believes.best_scales(theta.square(), lam)
    assert all(after >= before - 1e-6 * abs(before) for before, after in pairwise(densities))
    assert densities[-1] > densities[0]
    slope = grad(lambda log_lam: log_prior(believes, theta.square(), log_lam.exp()))(lam.log())
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-2, rtol=0)


@pytest.mark.parametrize("prior", CLOSED, ids=lambda prior: prior().law)
def test_scales_live_where_the_net_does(prior) -> None:
    elsewhere = tensorize(fc([12, 8]), {"fc1": Form("tt_matrix", 3, (2, 4), (4, 3))}).to("meta")
    with pyro.validation_enabled(False):
        believes = model(elsewhere, prior(), categorical, num_data=100)
        assert log_prior(believes, *(torch.ones(size, device="meta") for size in (believes.layout.size, 3))).device.type == "meta"


def test_both_vectors_are_shown_by_name() -> None:
    believes = believed(log_uniform())
    theta, lam = values(believes)
    sites = believes.layout.unpack(theta) | believes.layout.unpack_scales(lam)
    assert list(sites) == ["fc1.core0", "fc1.core1", "fc1.bias", "fc2.weight", "fc2.bias", "fc1.r1"]
    assert {name: tuple(site.shape) for name, site in sites.items() if "core" in name} == {"fc1.core0": (2, 4, 3), "fc1.core1": (3, 4, 3)}
    weights = dict(believes.net.named_parameters())
    for name, site in believes.layout.unpack(believes.layout.pack(weights)).items():
        assert torch.equal(site, weights[name])


def test_a_batch_counts_for_all_images() -> None:
    believes = believed(log_uniform())
    theta, lam = values(believes)
    scores = believes.scores(theta, X)
    expected = -100 * nn.functional.cross_entropy(scores, LABELS) + log_prior(believes, theta.square(), lam)
    torch.testing.assert_close(log_joint(believes, theta, lam, X, LABELS), expected)
    with pytest.raises(ValueError, match="num_data is 0, expected at least 1"):
        model(believes.net, log_uniform(), categorical, 0)


def test_another_likelihood_may_be_given() -> None:
    noisy = model(believed(log_uniform()).net, log_uniform(), lambda scores: Normal(scores[:, 0], 0.1), num_data=6)
    theta, lam = values(noisy)
    given = {"theta": theta, "lam": lam}
    traced = pyro.poutine.trace(pyro.condition(noisy, data=given)).get_trace(X, LABELS.float())
    assert log_joint(noisy, theta, lam, X, LABELS.float()).item() == pytest.approx(traced.log_prob_sum().item(), rel=1e-5)


def test_gradients_of_many_particles_at_once() -> None:
    believes = believed(half_cauchy(0.3))
    thetas, lams = map(torch.stack, zip(*(values(believes, seed) for seed in range(3)), strict=True))
    slopes = vmap(grad(lambda theta, lam: log_joint(believes, theta, lam, X, LABELS), argnums=(0, 1)))(thetas, lams)
    for k in range(3):
        alone = grad(lambda theta, lam: log_joint(believes, theta, lam, X, LABELS), argnums=(0, 1))(thetas[k], lams[k])
        torch.testing.assert_close([slope[k] for slope in slopes], list(alone), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("auto", [AutoNormal, AutoDelta])
@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: prior.name)
def test_pyros_own_inference_and_prediction_run(prior: Prior, auto: type) -> None:
    believes = believed(prior)
    start = {"theta": values(believes)[0] / 3, "lam": torch.ones(3)}
    guide = auto(believes, init_loc_fn=init_to_value(values=start))
    svi = SVI(believes, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step(X, LABELS) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    drawn = Predictive(believes, guide=guide, num_samples=7)(X)
    assert drawn["labels"].shape == (7, 6) and drawn["labels"].max() < 4


def test_the_prior_predicts_by_itself() -> None:
    mine = Prior("mine", lambda ranks: HalfCauchy(torch.ones(ranks)), half_cauchy(1.0).best)
    drawn = Predictive(believed(mine), num_samples=3)(X)
    assert drawn["lam"].numel() == 9 and drawn["labels"].shape == (3, 6)
    assert Predictive(believed(log_uniform()), num_samples=1)(torch.randn(101, 12))["labels"].shape == (1, 101)
