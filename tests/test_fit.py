"""Training finds planted ranks exactly, goes on to the same bytes after an interrupt, and ends with a sentence when numbers are none."""

import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from bayestt.algebra.formats import Form, tt_matrix, tucker
from bayestt.artifact import read_arrays, write_arrays
from bayestt.bayes import fit as fitting
from bayestt.bayes.batches import Batches
from bayestt.bayes.fit import fit
from bayestt.bayes.guide import mean_field, point
from bayestt.bayes.model import Model, categorical, model
from bayestt.bayes.posterior import Posterior
from bayestt.bayes.prior import gamma_product, half_cauchy, log_uniform
from bayestt.bayes.prune import prune, ranks
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
    still, half, full = (
        fit(believes, point(believes), batches(), VALIDATION, lr=1e-9, epochs=1, rho=rho).scales["fc1.r1"] for rho in (0.0, 0.5, 1.0)
    )
    first = point(believes)
    torch.testing.assert_close(still, first.log_lam.detach().exp())
    best = half_cauchy(0.1).update(believes.squares(first.square().detach()), believes.layout.count).sqrt()
    torch.testing.assert_close(full, best, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(half, best, rtol=1e-2, atol=1e-6)


def test_scales_without_a_closed_form_follow_their_gradient() -> None:
    believes = believed(gamma_product())
    learned = fit(believes, point(believes), batches(), VALIDATION, lr=0.01, epochs=2)
    assert not torch.equal(learned.scales["fc1.r1"], point(believes).log_lam.detach().exp())


@pytest.fixture
def interrupted(monkeypatch):
    """Make the step of that number of a training a real Ctrl-C."""

    def at(number: int) -> None:
        steps = iter(range(1, 10_000))
        step = fitting.step

        def stop(*given) -> float:
            if next(steps) == number:
                monkeypatch.setattr(fitting, "step", step)
                signal.raise_signal(signal.SIGINT)
            return step(*given)

        monkeypatch.setattr(fitting, "step", stop)

    return at


@pytest.mark.parametrize("make", [point, mean_field])
@pytest.mark.parametrize("prior", [log_uniform(), gamma_product()], ids=lambda prior: prior.name)
@pytest.mark.parametrize("number", [3, 7, 16, 24], ids=["first epoch", "boundary", "mid-epoch", "last step"])
def test_an_interrupted_training_ends_with_the_same_bytes(make, prior, number: int, tmp_path: Path, interrupted) -> None:
    believes = believed(prior, norm=True)
    whole = fit(believes, make(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "whole")
    interrupted(number)
    with pytest.raises(KeyboardInterrupt):
        fit(believes, make(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "twice")
    torch.manual_seed(999)
    resumed = fit(believes, make(believes), batches(), VALIDATION, **SHORT, checkpoint=str(tmp_path / "twice"))
    assert contents(resumed) == contents(whole)
    assert (tmp_path / "twice").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_checkpoint_changes_no_byte_and_a_finished_one_is_the_answer(tmp_path: Path, monkeypatch) -> None:
    believes = believed()
    kept = fit(believes, mean_field(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "kept")
    assert contents(fit(believes, mean_field(believes), batches(), VALIDATION, **SHORT)) == contents(kept)
    monkeypatch.setattr(fitting, "step", None)
    assert contents(fit(believes, mean_field(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "kept")) == contents(kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.02}, "lr 0.01 there and 0.02 here"),
        ({"epochs": 9, "weight": 2}, "epochs 4 there and 9 here, weight 1.0 there and 2 here"),
        ({"batches": batches(seed=6)}, r"batches \[16, 5\] there and \[16, 6\] here"),
        ({"validation": (VALIDATION[0] + 1, VALIDATION[1])}, "data "),
        ({"prior": half_cauchy(1.0)}, "prior log_uniform there and half_cauchy"),
    ],
)
def test_another_trainings_checkpoint_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    def run(prior=None, **change) -> Posterior:
        believes = believed(prior)
        given = {"model": believes, "guide": point(believes), "batches": batches(), "validation": VALIDATION, **SHORT, **change}
        return fit(**given, checkpoint=tmp_path / "kept")

    run()
    with pytest.raises(ValueError, match=f"kept is a checkpoint of another training .*{message}.*delete it or give another path"):
        run(**change)


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    believes, path = believed(), tmp_path / "kept"
    fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=path)
    header, arrays = read_arrays(path, "training")
    assert {"guide.theta", "guide.log_lam", "optimizer.0.exp_avg"} <= arrays.keys() and header["identity"]["prior"] == "log_uniform"
    for content in (path.read_bytes()[:-9], b"something else"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="write it again|give one that bayestt wrote"):
            fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=path)
    write_arrays(path, "graph", header, arrays)
    with pytest.raises(ValueError, match="is a graph file of version 1, expected a training file"):
        fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=path)


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(fitting, "step", None)
    believes = believed()
    with pytest.raises(OSError, match="cannot write .*choose a folder with room that you may write to"):
        fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "file" / "kept")
    if os.getuid():
        tmp_path.chmod(0o500)
        with pytest.raises(OSError, match="cannot write"):
            fit(believes, point(believes), batches(), VALIDATION, **SHORT, checkpoint=tmp_path / "kept")


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
        ({"batches": Batches(DATA.train.images, DATA.train.labels + 3)}, "training labels go from 3 to 18 and the net scores 16 classes"),
        ({"validation": (VALIDATION[0], VALIDATION[1] - 99)}, "validation labels go from -9"),
        ({"validation": (VALIDATION[0][:0], VALIDATION[1][:0])}, "there are no validation images: give at least one"),
    ],
)
def test_bad_settings_are_refused(change: dict, message: str, monkeypatch) -> None:
    monkeypatch.setattr(fitting, "step", None)
    believes = believed()
    with pytest.raises(ValueError, match=message):
        fit(**{"model": believes, "guide": point(believes), "batches": batches(), "validation": VALIDATION, **SHORT, **change})


def test_an_epoch_meets_every_image_once_in_an_order_of_its_own() -> None:
    images = np.arange(10, dtype=np.float32)[:, None]
    ten = Batches(images, np.arange(10), size=3, seed=2)
    epochs = [torch.cat([labels for _, labels in ten.epoch(number)]).tolist() for number in (1, 2, 1)]
    assert len(ten) == 3 and epochs[0] == epochs[2] != epochs[1] and all(len(set(epoch)) == 9 for epoch in epochs)
    assert all((x[:, 0] == labels).all() for x, labels in ten.epoch(7))
    assert [len(labels) for _, labels in Batches(images, np.arange(10), size=64).epoch(1)] == [10]
    with pytest.raises(ValueError, match="10 images and 9 labels: give at least one image, and each one label"):
        Batches(images, np.arange(9))
    with pytest.raises(ValueError, match="batches of 0 images"):
        Batches(images, np.arange(10), size=0)


def test_no_warning_is_left_to_chance() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        believes = believed()
        fit(believes, mean_field(believes), batches(), VALIDATION, **SHORT)
